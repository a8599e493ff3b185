import pytest
import torch
from tests import tiny
from torch import Tensor
from torch.nn import functional

from ownlm.model.config import DecoderConfig
from ownlm.model.decoder import Decoder, initialise
from ownlm.model.induction import can_hold_induction


def shape(**changes: int) -> DecoderConfig:
    return tiny.config(
        **{"vocabulary": 1000, "width": 160, "heads": 3, "head_dim": 64, "ffn": 64, "context": 256} | changes
    )


def fresh(config: DecoderConfig, seed: int = 0) -> Decoder:
    decoder = Decoder(config)
    initialise(decoder, seed)
    return decoder


def repeated(rows: int = 8, length: int = 100) -> Tensor:
    """`(rows, 2 * length)`: random tokens, then the same ones again."""
    once = torch.randint(1000, (rows, length), generator=torch.Generator().manual_seed(1))
    return torch.cat((once, once), dim=1)


@torch.no_grad()
def halves(decoder: Decoder) -> tuple[float, float]:
    """Mean nats a token in the first and in the second half of repeated random tokens."""
    ids = repeated()
    logits = decoder(ids[:, :-1])
    nats = functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return float(nats[:, :99].mean()), float(nats[:, 100:].mean())


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="grouped"),
        pytest.param({"kv_heads": 3}, id="multi-head"),
        pytest.param({"width": 256, "heads": 2, "head_dim": 128}, id="wide-heads"),
        pytest.param({"layers": 6}, id="deep"),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_fresh_model_copies_what_followed_the_same_token(changes: dict[str, int], seed: int) -> None:
    first, second = halves(fresh(shape(**changes), seed))
    assert second < first - 0.1


def test_without_its_matching_head_it_copies_nothing() -> None:
    decoder = fresh(shape())
    with torch.no_grad():
        decoder.layers[1].self_attn.o_proj.weight.zero_()
    first, second = halves(decoder)
    assert second == pytest.approx(first, abs=0.03)


@pytest.mark.parametrize("changes", [{"layers": 1}, {"width": 64, "heads": 1}])
def test_shapes_without_room_start_as_the_identity(changes: dict[str, int]) -> None:
    config = shape(**changes)
    decoder = fresh(config)
    assert not can_hold_induction(decoder)
    assert not decoder.layers[0].self_attn.o_proj.weight.any()


def test_the_seed_decides() -> None:
    one, same, other = (fresh(shape(), seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["layers.1.self_attn.o_proj.weight"], other["layers.1.self_attn.o_proj.weight"])
