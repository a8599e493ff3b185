from pathlib import Path

import torch

import tiny
from ownlm.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from ownlm.train.optimisers import Rates, build_optimisers


def test_weights_optimisers_random_state_and_progress_come_back(tmp_path: Path) -> None:
    decoder = tiny.decoder()
    optimisers = build_optimisers(decoder, Rates())
    decoder(tiny.random_ids(2, 9)).square().mean().backward()
    for optimiser in optimisers:
        optimiser.step()
    progress = Progress(step=2, tokens=36, seconds=1.5, skipped=1)
    save_checkpoint(tmp_path, decoder, optimisers, progress)
    expected = torch.rand(3)

    other = tiny.decoder(seed=1)
    fresh = build_optimisers(other, Rates())
    assert load_checkpoint(tmp_path, other, fresh) == progress
    assert torch.equal(torch.rand(3), expected)
    for one, two in zip(decoder.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        old = [value for optimiser in optimisers for value in optimiser.state.get(one, {}).values()]
        new = [value for optimiser in fresh for value in optimiser.state.get(two, {}).values()]
        assert len(old) >= 1 and len(old) == len(new)
        assert {tuple(value.flatten().tolist()) for value in old} == {tuple(value.flatten().tolist()) for value in new}


def test_a_folder_without_a_readable_checkpoint(tmp_path: Path) -> None:
    decoder = tiny.decoder()
    optimisers = build_optimisers(decoder, Rates())
    assert load_checkpoint(tmp_path, decoder, optimisers) is None
    (tmp_path / "checkpoint-00000001.safetensors").write_bytes(b"rubbish")
    assert load_checkpoint(tmp_path, decoder, optimisers) is None


def test_frozen_weights_are_not_in_a_checkpoint(tmp_path: Path) -> None:
    decoder, other = tiny.decoder(), tiny.decoder(seed=1)
    for each in (decoder, other):
        each.layers.requires_grad_(False)
    path = save_checkpoint(tmp_path, decoder, build_optimisers(decoder, Rates()), Progress(step=1))
    assert path.stat().st_size < sum(p.nbytes for p in decoder.layers.parameters())
    assert load_checkpoint(tmp_path, other, build_optimisers(other, Rates())) == Progress(step=1)
    assert torch.equal(other.head, decoder.head)
    assert torch.equal(other.layers[0].mlp.up_proj.weight, tiny.decoder(seed=1).layers[0].mlp.up_proj.weight)  # type: ignore[union-attr]
