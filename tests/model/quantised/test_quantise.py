import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import tiny
from ownlm.model.config import Experts
from ownlm.model.decoder import Decoder
from ownlm.model.files import load_model, save_weights
from ownlm.model.quantised import (
    QuantisedEmbedding,
    QuantisedLinear,
    Scheme,
    describe,
    measure_crossover,
    quantise,
    quantise_module,
    schemes_of,
    set_packed_rows,
)
from ownlm.runtime.errors import OwnLMError

IDS = tiny.random_ids(2, 12)


def dense_twin(decoder: Decoder, **changes: object) -> Decoder:
    """The same decoder with plain matrices that hold what the quantised ones stand for."""
    made = tiny.decoder(**changes)
    for name, module in decoder.named_modules():
        if isinstance(module, QuantisedLinear | QuantisedEmbedding):
            made.get_submodule(name).weight = nn.Parameter(module.dense())
    return made


@pytest.mark.parametrize("scheme", ["int8", "int4:32"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_quantised_decoder_answers_as_its_dense_twin(scheme: str, tied: bool) -> None:
    decoder = tiny.decoder(tied_embeddings=tied)
    quantise(decoder, Scheme.parse(scheme))
    twin = dense_twin(decoder, tied_embeddings=tied)
    with torch.inference_mode():
        wanted, found = twin(IDS), decoder(IDS)
        assert not torch.equal(wanted, tiny.decoder(tied_embeddings=tied)(IDS))
        assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
        twin.compute_dtype = decoder.compute_dtype = torch.bfloat16
        narrow = twin(IDS[:1, :3])
        for rows in (0, 1000):
            set_packed_rows(decoder, {8: rows, 4: rows})
            found = decoder(IDS[:1, :3])
            assert (found - wanted[:1, :3]).norm() <= 1.5 * (narrow - wanted[:1, :3]).norm()


def test_every_matrix_is_quantised_a_tied_embedding_once() -> None:
    decoder = tiny.decoder()
    quantise(decoder, Scheme.parse("int8"))
    assert isinstance(decoder.embed_tokens, QuantisedEmbedding) and decoder.lm_head is None
    assert len(schemes_of(decoder)) == 1 + 2 * 7
    assert {parameter.ndim for parameter in decoder.parameters()} == {1}
    assert describe(decoder, Scheme.parse("int8")) == "Quantised 15 matrices to int8."


def test_groups_that_do_not_fit_are_reported() -> None:
    decoder = tiny.decoder(ffn=48)
    quantise(decoder, Scheme.parse("int4:64"))
    schemes = {name.rpartition(".")[2]: str(scheme) for name, scheme in schemes_of(decoder).items()}
    assert schemes["down_proj"] == "int8" and schemes["q_proj"] == "int4:32"
    said = describe(decoder, Scheme.parse("int4:64"))
    assert "13 matrices to int4:32" in said and "2 matrices to int8" in said and "groups of 64" in said
    assert describe(tiny.decoder(), Scheme.parse("int8")) == "Quantised nothing."


def test_router_and_learnt_positions_stay() -> None:
    experts = Experts(count=4, active=2, ffn=32, layers=(0, 1))
    decoder = tiny.decoder(experts=experts, learned_positions=True, rope=None)
    quantise(decoder, Scheme.parse("int8"))
    names = set(schemes_of(decoder))
    assert not any(name.endswith(("router", "embed_positions")) for name in names)
    assert "layers.1.mlp.experts.3.down_proj" in names and len(names) == 1 + 2 * (4 + 4 * 3)
    with torch.inference_mode():
        assert decoder(IDS).isfinite().all()


def test_biases_are_kept_as_they_are() -> None:
    plain, decoder = tiny.decoder(qkv_bias=True), tiny.decoder(qkv_bias=True)
    quantise(decoder, Scheme.parse("int8"))
    found, wanted = decoder.layers[0].self_attn.q_proj.bias, plain.layers[0].self_attn.q_proj.bias
    assert torch.equal(found, wanted) and found.any()


def test_quantising_at_load_is_quantising_after_it(tmp_path: Path) -> None:
    decoder = tiny.decoder(tied_embeddings=False, qkv_bias=False)
    save_weights(tmp_path, decoder)
    scheme = Scheme.parse("int4:32")
    loaded = load_model(tmp_path, replace=partial(quantise_module, scheme=scheme))
    quantise(decoder, scheme)
    wanted = decoder.state_dict()
    assert loaded.state_dict().keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.state_dict().items())


def test_numbers_that_are_not_finite_are_an_error_that_names_the_matrix() -> None:
    for scheme in ("int8", "int4:32"):
        decoder = tiny.decoder()
        with torch.no_grad():
            decoder.layers[1].mlp.up_proj.weight[3, 5] = float("inf")
        with pytest.raises(OwnLMError, match=r"layers\.1\.mlp\.up_proj .* not finite"):
            quantise(decoder, Scheme.parse(scheme))


def test_what_is_quantised_stays_and_other_modules_come_back() -> None:
    scheme = Scheme.parse("int8")
    made = quantise_module("q_proj", tiny.decoder().layers[0].self_attn.q_proj, scheme)
    assert quantise_module("q_proj", made, scheme) is made
    norm = tiny.decoder().norm
    assert quantise_module("norm", norm, scheme) is norm


def test_training_through_frozen_int4_reaches_what_comes_before() -> None:
    decoder = tiny.decoder()
    quantise(decoder, Scheme.parse("int4:32"))
    twin = dense_twin(decoder)
    targets, weights = IDS[:, 1:].flatten(), torch.ones(22)
    gradients = []
    for each in (decoder, twin):
        hidden = each.hidden(IDS[:, :-1]).flatten(0, 1)
        each.cross_entropy(hidden, targets, weights).backward()
        gradients.append(each.layers[0].attn_norm.weight.grad)
    assert (gradients[0] - gradients[1]).abs().max() <= 1e-5 * gradients[1].abs().max()
    assert gradients[1].any()


def test_the_crossover_is_measured() -> None:
    for text in ("int8", "int4:32"):
        found = measure_crossover(Scheme.parse(text), inputs=64, outputs=64, rows=(1, 2), seconds=0.02)
        assert [count for count, _, _ in found.figures] == [1, 2] and found.rows in (0, 1, 2)
        assert all(packed > 0 and dequantised > 0 for _, packed, dequantised in found.figures)
    decoder = tiny.decoder()
    quantise(decoder, Scheme.parse("int8"))
    set_packed_rows(decoder, {8: 7, 4: 9})
    assert decoder.embed_tokens.packed_rows == 7


@pytest.mark.parametrize(("packed", "crossover"), [((1.0, 2.0, 9.0), 2), ((9.0, 1.0, 1.0), 0), ((1.0, 1.0, 1.0), 8)])
def test_the_crossover_is_the_last_row_count_before_packed_is_slower(
    packed: tuple[float, ...], crossover: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([time for each in packed for time in (each, 5.0)])
    monkeypatch.setattr("ownlm.model.quantised.measure._microseconds", lambda *_: next(times))
    assert measure_crossover(Scheme.parse("int8"), inputs=32, outputs=32, rows=(1, 2, 8)).rows == crossover


def test_a_gpu_without_torchao_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    from ownlm.model.quantised.cuda import TorchaoLinear

    with pytest.raises(OwnLMError, match="pip install torchao"):
        TorchaoLinear(tiny.decoder().layers[0].mlp.up_proj, Scheme.parse("int8"))
