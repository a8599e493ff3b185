import dataclasses

import pytest
import torch

import tiny
from ownlm.model.attention import Attention
from ownlm.model.cache import StaticCache
from ownlm.model.decoder import Decoder, initialise
from ownlm.model.kernels import Kernels, use
from ownlm.model.rope import rotate


def cached_logits(decoder: Decoder, ids: torch.Tensor, *cuts: int) -> torch.Tensor:
    """The logits of all positions, fed to a cache in pieces that end at `cuts`."""
    cache = StaticCache(decoder.config, len(ids), ids.shape[1], torch.float32, torch.device("cpu"))
    ends = [*cuts, ids.shape[1]]
    parts = [decoder.hidden(ids[:, a:b], cache=cache) for a, b in zip([0, *cuts], ends)]
    return decoder.logits(torch.cat(parts, 1))


def logits(decoder: Decoder, path: str, ids: torch.Tensor) -> torch.Tensor:
    """All positions' logits by one of the ways that a decoder is run."""
    with torch.no_grad():
        if path == "cached, a token at a time":
            return cached_logits(decoder, ids, *range(1, ids.shape[1]))
        if path == "cached, in pieces":
            return cached_logits(decoder, ids, 7, 8, 20)
        return use(decoder, Kernels(attention=path))(ids)  # type: ignore[arg-type]


PATHS = ("sdpa", "tiled", "cached, a token at a time", "cached, in pieces")


@pytest.mark.parametrize("path", PATHS)
def test_a_later_token_changes_no_earlier_logit(path: str) -> None:
    decoder, ids = tiny.decoder(), tiny.random_ids(2, 33)
    before = logits(decoder, path, ids)
    for place in (1, 8, 20, 32):
        changed = ids.clone()
        changed[:, place] = (changed[:, place] + 1) % 100
        after = logits(decoder, path, changed)
        assert torch.equal(after[:, :place], before[:, :place])
        # ... and every later one, so that the test would also fail if nothing were attended to.
        assert bool(((after - before)[:, place:].abs().amax(-1) > 1e-4).all())


@pytest.mark.parametrize("path", PATHS[1:])
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_all_paths_compute_the_same(path: str, kv_heads: int) -> None:
    decoder, ids = tiny.decoder(kv_heads=kv_heads), tiny.random_ids(3, 40)
    torch.testing.assert_close(logits(decoder, path, ids), logits(decoder, "sdpa", ids), rtol=1e-4, atol=1e-4)


def test_a_padded_row_equals_the_row_alone() -> None:
    decoder, ids = tiny.decoder(), tiny.random_ids(1, 20)
    alone = decoder(ids)
    pad = 5
    padded = torch.cat((torch.full((1, pad), 9), ids), 1)
    positions = torch.cat((torch.zeros(pad, dtype=torch.long), torch.arange(20)))[None]
    time = padded.shape[1]
    mask = torch.ones(time, time, dtype=torch.bool).tril()
    mask[:, :pad] = False
    mask |= torch.eye(time, dtype=torch.bool)
    together = decoder.logits(decoder.hidden(padded, positions=positions, mask=mask[None, None]))[:, pad:]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_rows_of_a_cache_can_be_dropped() -> None:
    decoder, ids = tiny.decoder(), tiny.random_ids(3, 12)
    cache = StaticCache(decoder.config, 3, 12, torch.float32, torch.device("cpu"))
    decoder.hidden(ids[:, :11], cache=cache)
    assert cache.length == 11
    cache.keep(torch.tensor([2, 0]))
    last = decoder.logits(decoder.hidden(ids[[2, 0], 11:], cache=cache))
    torch.testing.assert_close(last, decoder(ids)[[2, 0], 11:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"kv_heads": 2, "tied_embeddings": False}, {"qk_norm": None, "layers": 3}])
def test_the_config_counts_what_the_decoder_has(changes: dict[str, object]) -> None:
    decoder = tiny.decoder(**changes)
    assert decoder.config.parameters == sum(parameter.numel() for parameter in decoder.parameters())
    lookup = 0 if decoder.config.tied_embeddings else decoder.embed_tokens.weight.numel()
    matrices = sum(parameter.numel() for parameter in decoder.parameters() if parameter.ndim == 2)
    assert decoder.config.matmul_parameters == matrices - lookup


def test_flops_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = tiny.config()
    # The math of attention is not in the count: it is full there, causal in ours.
    with FlopCounterMode(display=False) as counter:
        tiny.decoder()(tiny.random_ids(1, 16)).sum().backward()
    counted = counter.get_total_flops() / 16
    attention = 6 * config.layers * config.heads * config.head_dim * 16
    full_attention = 2 * attention
    assert config.training_flops_per_token(16) == 6 * config.matmul_parameters + attention
    # Fused kernels may be left out of torch's count, or recompute the scores once.
    assert 6 * config.matmul_parameters <= counted <= 6 * config.matmul_parameters + 1.5 * full_attention


def test_rotary_positions_equal_those_of_transformers() -> None:
    from transformers import Qwen3Config
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding, apply_rotary_pos_emb

    config = tiny.config()
    theirs = Qwen3Config(
        head_dim=config.head_dim, rope_parameters={"rope_type": "default", "rope_theta": config.rope.theta}
    )
    q, positions = torch.randn(2, 30, 3, config.head_dim), torch.arange(30)
    cos, sin = Qwen3RotaryEmbedding(theirs)(q, positions[None])
    expected, _ = apply_rotary_pos_emb(q.transpose(1, 2), q.transpose(1, 2), cos, sin)
    found = rotate(q, *config.rope.tables(positions, config.head_dim)).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_scores_depend_on_the_distance_only() -> None:
    config, x = tiny.config(), torch.randn(1, 1, 1, 16)

    def score(query: int, key: int) -> float:
        q = rotate(x, *config.rope.tables(torch.tensor([query]), 16))
        return float((q * rotate(x.flip(-1), *config.rope.tables(torch.tensor([key]), 16))).sum())

    assert score(9, 4) == pytest.approx(score(45, 40), abs=1e-4)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-4)


def test_bfloat16_is_near_to_float32() -> None:
    decoder, ids = tiny.decoder(), tiny.random_ids(2, 40)
    exact = decoder(ids).detach()
    near = use(decoder, Kernels("bfloat16", "tiled"))(ids).detach()
    assert near.dtype == torch.float32
    assert float((near - exact).norm() / exact.norm()) < 0.03


def test_fresh_weights_follow_from_the_seed_and_plain_blocks_begin_as_nothing() -> None:
    one, same, other = (Decoder(tiny.config()) for _ in range(3))
    for decoder, seed in ((one, 1), (same, 1), (other, 2)):
        initialise(decoder, seed)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters()))
    assert not torch.equal(one.head, other.head)
    ids = tiny.random_ids(1, 5)
    plain = Decoder(tiny.config(layers=1))
    initialise(plain, 1)
    torch.testing.assert_close(plain.hidden(ids), plain.norm(plain.embed_tokens(ids)))


def test_kernels_are_set_in_every_layer() -> None:
    decoder = use(tiny.decoder(), Kernels("bfloat16", "tiled"))
    assert decoder.compute_dtype == torch.bfloat16
    assert [module.tiled for module in decoder.modules() if isinstance(module, Attention)] == [True, True]
    use(decoder, Kernels())
    assert not any(module.tiled for module in decoder.modules() if isinstance(module, Attention))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 0}, "layers=0"),
        ({"heads": 3, "kv_heads": 2}, "3 heads, not a multiple of its 2"),
        ({"head_dim": 7}, "head_dim=7"),
    ],
)
def test_impossible_shapes_are_refused(changes: dict[str, int], message: str) -> None:
    from ownlm.runtime.errors import OwnLMError

    with pytest.raises(OwnLMError, match=message):
        dataclasses.replace(tiny.CONFIG, **changes)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"heads": 4, "kv_heads": 2}])
def test_a_single_query_in_bfloat16_is_near_to_float32(changes: dict[str, int]) -> None:
    """The way that a text is continued: token by token from a cache, padded rows among them."""
    decoder, ids = tiny.decoder(**changes), tiny.random_ids(3, 20)
    exact = cached_logits(decoder, ids, *range(1, 20))
    narrow = use(decoder, Kernels("bfloat16", "tiled"))
    cache = StaticCache(decoder.config, 3, 20, torch.bfloat16, torch.device("cpu"))
    found = narrow.logits(torch.cat([narrow.hidden(ids[:, i : i + 1], cache=cache) for i in range(20)], 1))
    assert float((found - exact).norm() / exact.norm()) < 0.05
    # What a mask hides does not count.
    hidden = torch.ones(3, 1, 1, 20, dtype=torch.bool)
    hidden[1, :, :, :7] = False
    positions = torch.tensor([[19], [12], [19]])
    states = []
    for noise in (0.0, 9.0):
        cache = StaticCache(decoder.config, 3, 20, torch.bfloat16, torch.device("cpu"))
        narrow.hidden(ids[:, :19], cache=cache)
        cache.keys[:, 1, :, :7] += noise
        states.append(narrow.hidden(ids[:, 19:], positions=positions, cache=cache, mask=hidden))
    assert torch.equal(*states)
