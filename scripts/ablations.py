"""Tries ideas for pre-training one by one, each for the same wall time as the default, over several seeds.

    python scripts/ablations.py CORPUS [--steps 120] [--seeds 3] [--first-seed 0] [--only NAME,...] [--out FILE.jsonl]

CORPUS is the name or id of a corpus in the workspace. Each idea changes one thing of the default recipe. Steps of both
are timed in turns first, so that slower ideas make fewer steps; the quickest quarter of them counts, since others' work
on the machine only ever slows a step. The table shows held-out bits per byte, and how far these are from the default's
with the 95 % interval of a paired t-test over the seeds. Figures belong into docs/experiments.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from ownlm.data.corpus import read_documents
from ownlm.data.document import Document
from ownlm.data.shards import TokenStream, read_shards, write_shards
from ownlm.data.tokenizer import Tokenizer
from ownlm.engine.scoring import token_logprobs
from ownlm.model.config import DecoderConfig
from ownlm.model.decoder import Decoder, initialise
from ownlm.model.kernels import Kernels, eager, use
from ownlm.recipe.measure import measure_machine
from ownlm.runtime.signals import Interruption
from ownlm.runtime.threads import thread_budget
from ownlm.store.workspace import Workspace
from ownlm.train import loop
from ownlm.train.batching import BatchRamp
from ownlm.train.loop import TrainSettings, train
from ownlm.train.optimisers import Rates
from ownlm.train.pretrain import NATS_PER_BIT, PretrainObjective
from ownlm.train.schedule import Schedule

HELDOUT_BYTES = 200_000


@dataclass(frozen=True)
class Idea:
    """What is changed: of the shape, the rates, the schedule; `objective` may depend on the number of steps."""

    shape: dict[str, Any] = field(default_factory=dict)
    rates: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    objective: Callable[[int], dict[str, Any]] = lambda steps: {}
    vocabulary: int = 2048
    adamw: bool = False
    initial: Callable[[Decoder], None] = lambda decoder: None

    @property
    def free(self) -> bool:
        """Whether a step takes as long as the default's by construction."""
        same = not self.shape and not self.adamw and self.vocabulary == Idea.vocabulary and not self.objective(9)
        return same and "neuron_beta" not in self.rates


def usual_deviation(decoder: Decoder) -> None:
    """Embeddings as GPT-2's."""
    torch.nn.init.normal_(decoder.embed_tokens.weight, 0.0, 0.02)


IDEAS: dict[str, Idea] = {
    "default": Idea(),
    "AdamW for matrices": Idea(adamw=True),
    "NorMuon": Idea(rates={"neuron_beta": 0.95}),
    "decay 0.1": Idea(rates={"weight_decay": 0.1}),
    "cautious decay 0.1": Idea(rates={"weight_decay": 0.1, "cautious": True}),
    "momentum warm-up": Idea(rates={"momentum_warmup": 100}),
    "matrices x 2": Idea(rates={"matrices": 0.02}),
    "matrices x 0.5": Idea(rates={"matrices": 0.005}),
    "embeddings x 0.5": Idea(rates={"embeddings": 0.02, "vectors": 0.02}),
    "cosine": Idea(schedule={"kind": "cosine"}),
    "linear": Idea(schedule={"kind": "linear"}),
    "decay over 0.8": Idea(schedule={"decay": 0.8}),
    "decay over 0.3": Idea(schedule={"decay": 0.3}),
    "documents apart": Idea(objective=lambda steps: {"mask_documents": True}),
    "z-loss 1e-4": Idea(objective=lambda steps: {"z_loss": 1e-4}),
    "batch ramp": Idea(objective=lambda steps: {"ramp": BatchRamp(steps // 3, 1)}),
    "half the batch": Idea(objective=lambda steps: {"rows": 4}),
    "half the batch and momentum warm-up": Idea(objective=lambda steps: {"rows": 4}, rates={"momentum_warmup": 100}),
    "context 128 at first": Idea(objective=lambda steps: {"short_context": (steps // 3, 128)}),
    "vocabulary 1024": Idea(vocabulary=1024),
    "vocabulary 4096": Idea(vocabulary=4096),
    "untied head": Idea(shape={"tied_embeddings": False}),
    "two layers more": Idea(shape={"layers": 6}),
    "no QK-norm": Idea(shape={"qk_norm": None}),
    "embeddings at 0.02": Idea(initial=usual_deviation),
}  # fmt: skip


@dataclass(frozen=True)
class Texts:
    """The corpus in one vocabulary."""

    tokenizer: Tokenizer
    stream: TokenStream
    bytes_per_token: float
    heldout: list[Document]


def texts(corpus: Path, vocabulary: int, folder: Path) -> Texts:
    """Trains a tokenizer and writes the shards."""
    documents = read_documents(corpus)
    tokenizer = Tokenizer.train((each.text for each in documents if each.split == "train"), vocabulary)
    place = folder / str(vocabulary)
    place.mkdir()
    metrics = write_shards(documents, tokenizer, place, thread_budget())
    stream = read_shards(place, "train", tokenizer.vocab_size)
    heldout, size = [], 0
    for document in sorted((each for each in documents if each.split == "heldout"), key=lambda each: each.sha256):
        if size < HELDOUT_BYTES:
            heldout.append(document)
            size += document.bytes
    return Texts(tokenizer, stream, metrics["bytes_per_token"], heldout)


def all_adamw(decoder: Decoder, rates: Rates) -> list[torch.optim.Optimizer]:
    """AdamW for the matrices too, at the rate that is usual for matrices of this size; the rest as always."""
    muon, *others = BUILD(decoder, rates)
    groups = [{"params": group["params"], "lr": ADAMW, "peak": ADAMW} for group in muon.param_groups]
    return [torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.1, fused=True), *others]


def trained(idea: Idea, given: Texts, steps: int, seed: int, kernels: Kernels) -> tuple[Decoder, list[float]]:
    """The decoder after `steps`, and the seconds that each of them took."""
    config = DecoderConfig(given.tokenizer.vocab_size, 4, 192, 3, 1, 64, 512, 512).with_(**idea.shape)
    loop.build_optimisers = all_adamw if idea.adamw else BUILD  # type: ignore[assignment]
    decoder = use(Decoder(config), kernels)
    initialise(decoder, seed)
    idea.initial(decoder)
    objective = PretrainObjective(
        given.stream.ids, "ablation", 512, 8, seed=seed, bytes_per_token=given.bytes_per_token,
        starts=given.stream.starts,
    )  # fmt: skip
    objective = dataclasses.replace(objective, **idea.objective(steps))
    rates = dataclasses.replace(Rates(), **idea.rates)
    settings = TrainSettings(Schedule(steps, **idea.schedule), rates, checkpoint_seconds=1e9)
    times = [0.0]
    with tempfile.TemporaryDirectory() as name:
        train(
            decoder, objective, settings, Path(name), Path(name) / "state", Interruption(),
            on_metrics=lambda row: times.append(row["elapsed"]),
        )  # fmt: skip
    return decoder, [after - before for before, after in pairwise(times)]


def cost(idea: Idea, given: Texts, usual: Texts, kernels: Kernels) -> float:
    """How long a run of the idea takes, as a multiple of the default's with as many steps."""
    if idea.free:
        return 1.0
    times: tuple[list[float], list[float]] = [], []
    for turn in range(4):
        for place, (each, text) in enumerate(((IDEAS["default"], usual), (idea, given))):
            found = trained(each, text, 15, 0, kernels)[1]
            times[place].extend(found[3:] if turn else [])
    # Steps of a run that changes its shape on the way differ: each keeps its place.
    thirds = [[np.quantile(each[part::12], 0.25) for part in range(12)] for each in times]
    return float(np.sum(thirds[1]) / np.sum(thirds[0]))


def run(idea: Idea, given: Texts, seed: int, kernels: Kernels, steps: int) -> dict[str, Any]:
    """Trains and measures held-out text."""
    decoder, times = trained(idea, given, steps, seed, kernels)
    with eager(decoder):
        found = token_logprobs(decoder, [given.tokenizer.encode(each.text) for each in given.heldout],
                               given.tokenizer.end_of_text)  # fmt: skip
    bits = -sum(float(values.sum(dtype="float64")) for values in found) / NATS_PER_BIT
    return {
        "steps": steps,
        "seconds": round(sum(times), 1),
        "bits_per_byte": bits / sum(each.bytes for each in given.heldout),
    }


BUILD = loop.build_optimisers
ADAMW = 1e-3


def main() -> None:
    """All ideas, and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--steps", type=int, default=120, help="of the default recipe")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    torch.set_num_threads(thread_budget())
    torch.set_flush_denormal(True)
    workspace = Workspace()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(workspace.root / ".cache" / "inductor"))
    corpus = workspace.resolve(asked.corpus, ("corpus",)).path
    chosen = ["default", *(name for name in asked.only.split(",") if name)] if asked.only else list(IDEAS)
    machine = measure_machine()
    kernels = Kernels(machine.precision, "tiled", machine.compiler is not None)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    costs: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        made: dict[int, Texts] = {}
        for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
            for each in chosen:
                idea = IDEAS[each]
                if idea.vocabulary not in made:
                    made[idea.vocabulary] = texts(corpus, idea.vocabulary, Path(name))
                if each not in costs:
                    costs[each] = cost(idea, made[idea.vocabulary], made[Idea.vocabulary], kernels)
                row = run(idea, made[idea.vocabulary], seed, kernels, round(asked.steps / costs[each]))
                results[each].append(row)
                line = {"idea": each, "seed": seed, "cost": round(costs[each], 3), **row}
                print(json.dumps(line), flush=True)
                if asked.out is not None:
                    with asked.out.open("a") as file:
                        file.write(json.dumps(line) + "\n")
    base = np.array([row["bits_per_byte"] for row in results["default"]])
    print("\n| idea | steps | bits per byte | difference, 95 % |\n|---|---|---|---|")
    for each, rows in results.items():
        values = np.array([row["bits_per_byte"] for row in rows])
        apart = values - base
        half = stats.t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / len(apart) ** 0.5 if len(apart) > 1 else np.nan
        shown = (
            ""
            if each == "default"
            else f"{apart.mean():+.3f} ({apart.mean() - half:+.3f} to {apart.mean() + half:+.3f})"
        )
        print(f"| {each} | {rows[0]['steps']} | {values.mean():.3f} | {shown} |")


if __name__ == "__main__":
    main()
