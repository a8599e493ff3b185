"""Fine-tuning a frozen model through an adapter: the adapter learns, the base stays, a stopped run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import tiny
from ownlm.align.examples import InstructionExample
from ownlm.align.packing import pack
from ownlm.align.sft import SftObjective, encode_examples
from ownlm.data.chat_format import ChatFormat
from ownlm.model.adapters import AdapterConfig, Adapters, fresh_adapter
from ownlm.model.decoder import Decoder
from ownlm.model.families.qwen3 import family
from ownlm.model.quantised import QuantisedEmbedding, Scheme, quantise
from ownlm.runtime.errors import Interrupted, OwnLMError
from ownlm.runtime.signals import Interruption
from ownlm.train.loop import TrainSettings, train
from ownlm.train.muon import Muon
from ownlm.train.optimisers import Rates, build_optimisers, parameter_groups
from ownlm.train.schedule import Schedule

STEPS = 12
EXAMPLES = [InstructionExample.of(f"Question {n}?", answer, f"doc{n}", "ask")
            for n, answer in enumerate(("return first", "The dog sleeps.", "read(self)", "range(10)"))]  # fmt: skip
PAD = tiny.tokenizer().end_of_text
OBJECTIVE = SftObjective(pack(encode_examples(EXAMPLES, tiny.tokenizer(), ChatFormat()), 64, PAD, seed=0), "p", 2, PAD)
CONFIGS = {
    "lora": AdapterConfig(rank=4, alpha=8),
    "dora with dropout": AdapterConfig(rank=4, alpha=8, dora=True, dropout=0.2),
    "head and embedding": AdapterConfig(rank=4, alpha=8, target_modules=("lm_head", "embed_tokens", "q_proj")),
}


class Run:
    """Fine-tuning of one adapter in a folder of its own, which can be stopped and gone on with."""

    def __init__(self, folder: Path, config: AdapterConfig) -> None:
        self.folder, self.state, self.config = folder, folder / "run-state", config
        self.state.mkdir(parents=True)
        self.go_on()

    def go_on(self) -> None:
        """As a new process does: the base as it is stored, an adapter from its seed."""
        self.decoder: Decoder = tiny.decoder()
        self.adapters = Adapters(self.decoder)
        self.adapters.add("new", fresh_adapter(self.decoder, family, self.config, seed=5))
        self.adapters.train("new")

    def go(self, stop_at: int | None = None) -> list[float]:
        torch.manual_seed(7)
        interruption = Interruption()

        def watch(row: dict[str, Any]) -> None:
            interruption.requested = row["step"] == stop_at

        def look(step: int, decoder: Decoder) -> None:
            decoder.eval()  # somebody asks the model questions: training must not notice

        settings = TrainSettings(Schedule(STEPS), Rates(adapters=0.02), peak_flops=1e9)
        train(self.decoder, OBJECTIVE, settings, self.folder, self.state, interruption, look, watch)
        return [json.loads(line)["loss"] for line in (self.folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", CONFIGS)
def test_the_adapter_learns_the_base_stays_and_a_stopped_run_goes_on_bit_for_bit(case: str, tmp_path: Path) -> None:
    whole, broken = Run(tmp_path / "whole", CONFIGS[case]), Run(tmp_path / "broken", CONFIGS[case])
    losses = whole.go()
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    with pytest.raises(Interrupted):
        broken.go(stop_at=5)
    (checkpoint,) = broken.state.iterdir()
    with safe_open(checkpoint, framework="pt") as file:
        names = {name for name in file.keys() if name.startswith("weights/")}  # noqa: SIM118
    assert len(names) == len(broken.adapters["new"].parameters()), "the base is not in it"
    assert all("adapter" in name for name in names)
    broken.go_on()
    assert broken.go() == losses
    for one, other in zip(whole.adapters["new"].parameters(), broken.adapters["new"].parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.count_nonzero() > 0
    base, original = whole.adapters.detach(), tiny.decoder()
    for (name, one), (_, two) in zip(base.named_parameters(), original.named_parameters(), strict=True):
        assert torch.equal(one, two), name


def test_only_the_adapter_is_trained_and_by_adamw_alone() -> None:
    decoder = tiny.decoder()
    adapters = Adapters(decoder)
    adapters.add("new", fresh_adapter(decoder, family, AdapterConfig(rank=2, dora=True), seed=0))
    before = sum(len(group) for group in parameter_groups(decoder).values())
    assert before == len(list(tiny.decoder().parameters()))
    learning = adapters.train("new")
    groups = parameter_groups(decoder)
    assert {name: len(group) for name, group in groups.items()} == {
        "matrices": 0, "embeddings": 0, "head": 0, "vectors": 0, "adapters": len(learning)
    }  # fmt: skip
    (optimiser,) = build_optimisers(decoder, Rates(adapters=0.25))
    assert not isinstance(optimiser, Muon)
    assert [group["peak"] for group in optimiser.param_groups] == [0.25]
    adapters.activate(None)
    with pytest.raises(OwnLMError, match="nothing to train"):
        build_optimisers(decoder, Rates())


def test_a_frozen_model_costs_fewer_operations(tmp_path: Path) -> None:
    from ownlm.train.loop import _flops_per_token

    run = Run(tmp_path / "run", CONFIGS["lora"])
    config = tiny.config()
    frozen, free = (_flops_per_token(decoder, OBJECTIVE) for decoder in (run.decoder, tiny.decoder()))
    assert free == config.training_flops_per_token(64)
    assert frozen == free - 2 * config.matmul_parameters


@pytest.mark.parametrize("scheme", ["int4:32", "int8"])
def test_a_quantised_base_can_be_trained_on(scheme: str, tmp_path: Path) -> None:
    """QLoRA (Dettmers et al. 2023, arXiv 2305.14314): the gradient goes through the frozen quantised matrices."""
    run = Run(tmp_path / "run", CONFIGS["dora with dropout"])
    decoder = run.adapters.detach()
    quantise(decoder, Scheme.parse(scheme))
    assert isinstance(decoder.embed_tokens, QuantisedEmbedding)
    levels = {name: buffer.clone() for name, buffer in decoder.named_buffers()}
    run.adapters.add("new", fresh_adapter(decoder, family, CONFIGS["dora with dropout"], seed=5))
    run.adapters.train("new")
    losses = run.go()
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    after = dict(run.adapters.detach().named_buffers())
    assert len(levels) >= 14
    assert all(torch.equal(after[name], buffer) for name, buffer in levels.items())
