import pytest
import torch

from ownlm.train.operations import missing_operations


def test_a_processor_lacks_float8_only() -> None:
    assert [missing.operation for missing in missing_operations("cpu")] == ["float8 matrix products"]


def test_what_fails_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("The operator 'aten::bmm' is not implemented for the device.\nMore lines.")

    monkeypatch.setattr(torch, "bmm", refuse)
    found = {missing.operation: missing for missing in missing_operations("cpu")}
    assert set(found) == {"Muon in float32", "Muon in bfloat16", "float8 matrix products"}
    assert found["Muon in bfloat16"].reason == "The operator 'aten::bmm' is not implemented for the device."
    assert found["Muon in bfloat16"].instead == "Muon in float32"


def test_a_device_that_is_not_there_lacks_everything() -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has an mps device")
    assert len(missing_operations("mps")) == 10
