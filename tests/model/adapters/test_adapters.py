"""Adapters in memory: several on one base, switched, merged, taken out again; on a quantised base too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import tiny
from adapter_parts import Rounded, assert_close
from ownlm.model.adapters import Adapter, AdapterConfig, Adapters, fresh_adapter
from ownlm.model.adapters.layers import LowRank
from ownlm.model.decoder import Decoder
from ownlm.model.families.qwen3 import family
from ownlm.runtime.errors import OwnLMError

EVERYWHERE = AdapterConfig(rank=4, alpha=8, dora=True)
CONFIGS = {
    "lora": AdapterConfig(rank=4),
    "rsdora": AdapterConfig(rank=3, dora=True, rslora=True),
    "head": AdapterConfig(rank=2, target_modules=("lm_head", "q_proj")),
    "embedding": AdapterConfig(rank=2, target_modules=("embed_tokens", "down_proj"), dora=True),
}
IDS = tiny.random_ids(2, 10)


def trained(decoder: Decoder, config: AdapterConfig = EVERYWHERE, seed: int = 0) -> Adapter:
    """An adapter as if it had learnt something."""
    adapter = fresh_adapter(decoder, family, config, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for parameter in adapter.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.2
    return adapter


@torch.no_grad()
def logits(decoder: Decoder) -> Tensor:
    return decoder(IDS)  # type: ignore[no-any-return]


def weights(decoder: Decoder) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in decoder.named_parameters()}


def test_switching_between_adapters_and_none() -> None:
    decoder = tiny.decoder()
    plain, before = logits(decoder), weights(decoder)
    adapters = Adapters(decoder)
    for seed, name in enumerate(("first", "a.name-with/dots", "third")):
        adapters.add(name, trained(decoder, list(CONFIGS.values())[seed], seed))
    assert torch.equal(logits(decoder), plain)
    seen = {}
    for name in (*adapters.names, *adapters.names[::-1]):
        adapters.activate(name)
        assert torch.equal(seen.setdefault(name, logits(decoder)), logits(decoder))
    adapters.activate("third")
    with adapters.using("first"):
        assert torch.equal(logits(decoder), seen["first"])
    assert torch.equal(logits(decoder), seen["third"])
    answers = [plain, *seen.values()]
    assert all(not torch.allclose(one, other) for i, one in enumerate(answers) for other in answers[:i])
    adapters.remove("third")
    assert adapters.names == ("first", "a.name-with/dots")
    assert torch.equal(logits(decoder), plain)
    after = weights(adapters.detach())
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(logits(decoder), plain)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("case", CONFIGS)
def test_merged_answers_are_the_adapters_and_unmerging_restores_every_bit(case: str, tied: bool) -> None:
    decoder = tiny.decoder(tied_embeddings=tied)
    plain, before = logits(decoder), weights(decoder)
    adapters = Adapters(decoder)
    adapters.add("it", trained(decoder, CONFIGS[case]))
    adapters.activate("it")
    expected = logits(decoder)
    for _ in range(2):
        adapters.merge()
        assert_close(logits(decoder), expected)
        adapters.unmerge()
        assert torch.equal(logits(decoder), expected)
    adapters.merge()
    adapters.unmerge()
    adapters.activate(None)
    assert torch.equal(logits(decoder), plain)
    adapters.activate("it")
    adapters.merge()
    merged = adapters.detach()
    assert_close(logits(merged), expected)
    assert merged.config.tied_embeddings == (tied and case in ("lora", "rsdora"))
    assert {name for name in weights(merged) if "lm_head" not in name} == set(before) - {"lm_head.weight"}


def test_a_bfloat16_base_is_restored_too() -> None:
    decoder = tiny.decoder().to(torch.bfloat16)
    before = weights(decoder)
    adapters = Adapters(decoder)
    adapters.add("it", trained(decoder))
    adapters.activate("it")
    adapters.merge()
    assert decoder.get_parameter("layers.0.mlp.up_proj.base.weight").dtype == torch.bfloat16
    adapters.unmerge()
    after = weights(adapters.detach())
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_merged_adapter_cannot_be_switched_away_from() -> None:
    decoder = tiny.decoder()
    adapters = Adapters(decoder)
    adapters.add("it", trained(decoder))
    with pytest.raises(OwnLMError, match="No adapter is active"):
        adapters.merge()
    with pytest.raises(OwnLMError, match="No adapter is merged"):
        adapters.unmerge()
    adapters.activate("it")
    adapters.merge()
    for forbidden in (lambda: adapters.activate(None), lambda: adapters.remove("it"), adapters.merge):
        with pytest.raises(OwnLMError, match="unmerge 'it' first"):
            forbidden()
    with pytest.raises(OwnLMError, match=r"no adapter 'other' in memory\. There is: it"):
        adapters["other"]


def test_the_row_lengths_of_dora_are_those_of_the_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, a, b = (torch.randn(shape, generator=generator) for shape in ((24, 16), (4, 16), (24, 4)))
    magnitude = torch.rand(24, generator=generator) + 0.5
    update = LowRank(*(nn.Parameter(each) for each in (a, b)), 0.7, nn.Parameter(magnitude))
    total = weight.double() + 0.7 * (b.double() @ a.double())
    expected = magnitude.double()[:, None] * total / total.norm(dim=1, keepdim=True)
    torch.testing.assert_close(update.merged(weight).double(), expected, rtol=1e-5, atol=1e-6)
    # They are constants for the gradient: what remains is that of m / c (W + s B A) with c fixed.
    x = torch.randn(5, 16, generator=generator)

    class Base:
        inputs, outputs = 16, 24

        def __call__(self, x: Tensor) -> Tensor:
            return x @ weight.T

        def dense(self) -> Tensor:
            return weight

    out = update(x, Base(), None)
    torch.testing.assert_close(out.double(), x.double() @ expected.T, rtol=1e-4, atol=1e-5)
    out.sum().backward()
    factor = (magnitude.double() / total.norm(dim=1))[:, None]
    torch.testing.assert_close(
        update.lora_A.grad,
        (0.7 * (b * factor).T @ torch.ones(24, 5).double() @ x.double()).float(),
        rtol=1e-4,
        atol=1e-5,
    )


def test_fresh_adapters_follow_the_seed_and_begin_as_peft_says() -> None:
    decoder = tiny.decoder()
    one, same, other = (fresh_adapter(decoder, family, AdapterConfig(rank=4, dora=True), seed) for seed in (1, 1, 2))
    for path, update in one.updates.items():
        assert torch.equal(update.lora_A, same.updates[path].lora_A)
        assert not torch.equal(update.lora_A, other.updates[path].lora_A)
        assert update.lora_B.count_nonzero() == 0
        bound = update.lora_A.shape[1] ** -0.5
        assert 0.9 * bound < float(update.lora_A.abs().max()) <= bound
        length = decoder.get_submodule(path).dense().norm(dim=1)  # type: ignore[operator]
        assert update.magnitude is not None
        torch.testing.assert_close(update.magnitude.data, length)


def test_what_does_not_fit_is_refused_before_anything_is_changed() -> None:
    decoder, other = tiny.decoder(), tiny.decoder(width=48, head_dim=24)
    adapters = Adapters(decoder)
    names = [name for name, _ in decoder.named_modules()]
    with pytest.raises(OwnLMError, match=r"layers\.0\.self_attn\.q_proj has shape \(48, 48\), the model's matrix"):
        adapters.add("wide", trained(other))
    with pytest.raises(OwnLMError, match=r"update of layers\.2\.\S+, which this model does not have"):
        adapters.add("deep", trained(tiny.decoder(layers=3)))
    assert [name for name, _ in decoder.named_modules()] == names
    adapters.add("it", trained(decoder))
    with pytest.raises(OwnLMError, match="'it' in memory already"):
        adapters.add("it", trained(decoder))
    with pytest.raises(OwnLMError, match="dropout"):
        trained(decoder, AdapterConfig(target_modules=("lm_head",), dropout=0.1))
    with pytest.raises(OwnLMError, match=r"name no module of this model: it has .*q_proj"):
        trained(decoder, AdapterConfig(target_modules=("query",)))


def quantised(decoder: Decoder) -> Decoder:
    """The decoder with every matrix of its blocks rounded, and everything frozen."""
    for block in decoder.layers:
        for name, module in list(block.named_modules()):
            if name.endswith("_proj"):
                parent, _, child = name.rpartition(".")
                setattr(block.get_submodule(parent), child, Rounded(module.dense().detach()))
    return decoder.requires_grad_(False)


def test_a_quantised_base_takes_adapters_and_no_merging() -> None:
    decoder = quantised(tiny.decoder())
    plain = logits(decoder)
    adapters = Adapters(decoder)
    adapters.add("it", trained(decoder))
    adapters.activate("it")
    dense = tiny.decoder()
    with torch.no_grad():
        for name, parameter in dense.named_parameters():
            if "_proj" in name:
                parameter.copy_(decoder.get_submodule(name.removesuffix(".weight")).dense())  # type: ignore[operator]
    assert_close(logits(decoder), logits(dense))
    with pytest.raises(OwnLMError, match="is quantised"):
        adapters.merge()
    adapters.activate(None)
    assert torch.equal(logits(decoder), plain)
