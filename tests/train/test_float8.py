import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from ownlm.model.layers import Linear
from ownlm.runtime.errors import OwnLMError
from ownlm.train.float8 import leave_float8, use_float8


class Converted(nn.Linear):
    """Stands for torchao's layer."""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchao's two public names, which replace layers as it does."""

    def convert(module: nn.Module, *, module_filter_fn: Any, config: Any) -> None:
        assert config.emulate
        for name, child in list(module.named_modules()):
            if isinstance(child, nn.Linear) and module_filter_fn(child, name):
                with torch.device("meta"):
                    made = Converted(child.in_features, child.out_features, bias=False)
                made.weight, made.bias = child.weight, child.bias
                owner, _, last = name.rpartition(".")
                setattr(module.get_submodule(owner), last, made)

    library = ModuleType("torchao.float8")
    library.convert_to_float8_training = convert  # type: ignore[attr-defined]
    library.Float8LinearConfig = SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchao", ModuleType("torchao"))
    monkeypatch.setitem(sys.modules, "torchao.float8", library)


@pytest.mark.usefixtures("stand_in")
def test_the_layers_of_the_blocks_are_replaced_and_put_back() -> None:
    decoder = tiny.decoder(tied_embeddings=False, ffn_bias=True)
    before = dict(decoder.named_parameters())
    assert use_float8(decoder, "cpu", emulate=True) == 14
    converted = {name for name, module in decoder.named_modules() if isinstance(module, Converted)}
    assert len(converted) == 14 and all(name.startswith("layers.") for name in converted)
    assert {name: id(p) for name, p in decoder.named_parameters()} == {name: id(p) for name, p in before.items()}
    leave_float8(decoder)
    assert all(isinstance(module, Linear) for module in decoder.modules() if isinstance(module, nn.Linear))
    assert {name: id(p) for name, p in decoder.named_parameters()} == {name: id(p) for name, p in before.items()}
    decoder(tiny.random_ids(1, 5))


@pytest.mark.usefixtures("stand_in")
def test_odd_sizes_stay_as_they_are() -> None:
    decoder = tiny.decoder(ffn=40)
    assert use_float8(decoder, "cpu", emulate=True) == 8
    with pytest.raises(OwnLMError, match="multiples of 16; this model has none"):
        use_float8(tiny.decoder(width=24, head_dim=4, qk_norm=None), "cpu", emulate=True)


def test_emulated_float8_is_close_to_the_model() -> None:
    pytest.importorskip("torchao.float8")
    decoder = tiny.decoder()
    ids = tiny.random_ids(2, 33)

    def loss() -> torch.Tensor:
        targets = ids[:, 1:].flatten()
        return decoder.cross_entropy(decoder.hidden(ids[:, :-1]).flatten(0, 1), targets, torch.ones(64))

    expected = loss()
    expected.backward()
    slope = decoder.layers[1].get_parameter("mlp.down_proj.weight").grad
    assert slope is not None
    decoder.zero_grad()
    use_float8(decoder, "cpu", emulate=True)
    found = loss()
    assert 0 < float((found - expected).detach().abs()) < 0.1 * float(expected.detach())
    found.backward()
    other = decoder.layers[1].get_parameter("mlp.down_proj.weight").grad
    assert other is not None and other.dtype == torch.float32
    assert float(torch.nn.functional.cosine_similarity(slope.flatten(), other.flatten(), dim=0)) > 0.9


@pytest.mark.parametrize(
    ("device", "capability", "parallel", "sentence"),
    [
        ("cpu", None, 1, "float8 needs an NVIDIA GPU; this run is on cpu"),
        ("mps", None, 1, "this run is on mps"),
        ("cuda", (8, 0), 1, "compute capability 8.9 or later .* cuda has 8.0"),
        ("cuda", (9, 0), 1, "otherwise compute in bfloat16"),
        ("cuda", (9, 0), 2, "float8 and --tensor-parallel"),
    ],
)
def test_where_it_cannot_be_it_is_refused(
    device: str, capability: tuple[int, int] | None, parallel: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    with pytest.raises(OwnLMError, match=sentence):
        use_float8(tiny.decoder(), device, parallel)


def test_without_torchao_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    with pytest.raises(OwnLMError, match="pip install torchao"):
        use_float8(tiny.decoder(), "cpu", emulate=True)
