"""What is measured of a machine, on a model that takes a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ownlm.model.config import DecoderConfig
from ownlm.model.kernels import Kernels
from ownlm.recipe import measure
from ownlm.recipe.measure import available_memory, choose_device, step_seconds
from ownlm.runtime.errors import OwnLMError

TINY = DecoderConfig(512, 1, 32, 2, 1, 16, 64, 32)


def test_a_step_takes_time() -> None:
    assert 0 < step_seconds(TINY, Kernels(), rows=2, steps=4) < 5
    assert step_seconds(TINY, Kernels("bfloat16", "tiled", recompute=True), 2, 3, steps=1) > 0


def test_this_machine_s_memory() -> None:
    found = available_memory("cpu")
    assert found is None or 10e6 < found < 100e12


def test_a_container_s_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, used = tmp_path / "max", tmp_path / "current"
    limits = ((limit, used, "inactive_file"), (tmp_path / "none", used, "total_inactive_file"))
    monkeypatch.setattr(measure, "_CONTAINER_LIMITS", limits)
    without = available_memory("cpu")
    limit.write_text("5000000\n")
    used.write_text("1000000\n")
    assert available_memory("cpu") == 4_000_000
    (tmp_path / "memory.stat").write_text("anon 400000\ninactive_file 600000\nactive_file 1\n")
    assert available_memory("cpu") == 4_600_000
    (tmp_path / "memory.stat").unlink()
    used.write_text("6000000\n")
    assert available_memory("cpu") == 0
    limit.write_text("max\n")
    found = available_memory("cpu")
    assert (found is None) == (without is None)
    assert found is None or found > 4_000_000


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == "cpu"
    with pytest.raises(OwnLMError, match="--device abacus: there is no such device. Choose cpu, cuda, mps."):
        choose_device("abacus")
    monkeypatch.setattr(measure, "present_devices", lambda: ["cpu"])
    assert choose_device(None) == "cpu"
    with pytest.raises(OwnLMError, match="--device mps: this torch finds none here .it finds cpu."):
        choose_device("mps")


def test_the_device_with_the_fastest_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"cpu": 0.3, "cuda": 0.1, "mps": 0.2}
    asked: list[tuple[str, str]] = []

    def fake(config: DecoderConfig, kernels: Kernels, rows: int, *, device: str, **_: Any) -> float:
        asked.append((device, kernels.attention))
        return seconds[device]

    monkeypatch.setattr(measure, "present_devices", lambda: ["cpu", "cuda", "mps"])
    monkeypatch.setattr(measure, "step_seconds", fake)
    assert choose_device(None) == "cuda"
    assert asked == [("cpu", "tiled"), ("cuda", "sdpa"), ("mps", "sdpa")]
    seconds["cuda"] = 1.0
    assert choose_device(None) == "mps"
    assert choose_device("cuda") == "cuda"
