import pytest
import torch

import tiny
from ownlm.train.muon import Muon
from ownlm.train.optimisers import Rates, build_optimisers, parameter_groups, set_rates


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_is_in_exactly_one_group(tied: bool) -> None:
    decoder = tiny.decoder(tied_embeddings=tied)
    groups = parameter_groups(decoder)
    grouped = sorted(id(parameter) for group in groups.values() for parameter in group)
    assert grouped == sorted(id(parameter) for parameter in decoder.parameters())
    assert len(groups["matrices"]) == 7 * decoder.config.layers
    assert (len(groups["embeddings"]), len(groups["head"])) == (1, 0 if tied else 1)
    assert all(parameter.ndim == 1 for parameter in groups["vectors"])

    every = [group for optimiser in build_optimisers(decoder, Rates()) for group in optimiser.param_groups]
    assert sorted(id(parameter) for group in every for parameter in group["params"]) == grouped


def test_rates_reach_their_groups() -> None:
    rates = Rates(matrices=0.3, embeddings=0.2, vectors=0.1, momentum=0.8, beta1=0.7, weight_decay=0.05).scaled(
        0.5, 0.25
    )
    muon, adamw = build_optimisers(tiny.decoder(), rates)
    assert isinstance(muon, Muon) and isinstance(adamw, torch.optim.AdamW)
    peaks = [group["peak"] for optimiser in (muon, adamw) for group in optimiser.param_groups]
    assert peaks == pytest.approx([0.15, 0.05, 0.025])
    assert muon.param_groups[0]["momentum"] == 0.8 and muon.param_groups[0]["weight_decay"] == 0.05
    assert adamw.param_groups[0]["betas"] == (0.7, 0.95)


def test_frozen_parameters_are_in_no_group() -> None:
    decoder = tiny.decoder()
    decoder.embed_tokens.requires_grad_(False)
    decoder.layers[0].requires_grad_(False)
    groups = parameter_groups(decoder)
    assert len(groups["matrices"]) == 7 * (decoder.config.layers - 1)
    assert not groups["embeddings"] and groups["vectors"]
    assert len(build_optimisers(decoder, Rates())) == 2
    decoder.requires_grad_(False)
    decoder.norm.requires_grad_(True)
    (adamw,) = build_optimisers(decoder, Rates(vectors=0.3))
    assert isinstance(adamw, torch.optim.AdamW)
    assert [group["peak"] for group in adamw.param_groups] == [0.3]


def test_a_head_of_its_own_has_a_rate_of_its_own() -> None:
    _, adamw = build_optimisers(tiny.decoder(tied_embeddings=False), Rates(embeddings=0.3, head=0.2, vectors=0.1))
    assert [group["peak"] for group in adamw.param_groups] == [0.3, 0.2, 0.1]


def test_the_options_of_muon_reach_it() -> None:
    muon, _ = build_optimisers(tiny.decoder(), Rates(neuron_beta=0.9, cautious=True))
    assert isinstance(muon, Muon) and (muon.neuron_beta, muon.cautious) == (0.9, True)


def test_rates_and_momentum_of_a_step() -> None:
    rates = Rates(matrices=0.2, embeddings=0.1, momentum=0.95, momentum_warmup=10)
    optimisers = build_optimisers(tiny.decoder(), rates)
    for step, momentum in ((0, 0.85), (5, 0.9), (10, 0.95), (500, 0.95)):
        set_rates(optimisers, rates, 0.5, step)
        assert optimisers[0].param_groups[0]["momentum"] == pytest.approx(momentum)
    assert optimisers[0].param_groups[0]["lr"] == pytest.approx(0.1)
    assert optimisers[1].param_groups[0]["lr"] == pytest.approx(0.05)
    assert "momentum" not in optimisers[1].param_groups[0]
