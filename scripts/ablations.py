"""Tries ideas for pre-training one by one, each for the same wall time as the default, over several seeds.

    python scripts/ablations.py CORPUS [--seconds 45] [--seeds 3] [--only NAME,...] [--out FILE.jsonl]

CORPUS is the name or id of a corpus in the workspace. Each idea changes one thing of the default recipe. A few steps of
each are timed first, so that slower ideas make fewer steps. The table shows held-out bits per byte, and how far these
are from the default's with the 95 % interval of a paired t-test over the seeds. Figures belong into docs/experiments.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
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
from ownlm.train.optimisers import Rates, parameter_groups
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
    "context 128 at first": Idea(objective=lambda steps: {"short_context": (steps // 3, 128)}),
    "vocabulary 1,024": Idea(vocabulary=1024),
    "vocabulary 4,096": Idea(vocabulary=4096),
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
    """AdamW for everything, at the rate that is usual for matrices of this size."""
    groups = parameter_groups(decoder)
    peaks = {"matrices": 4e-3, "embeddings": 4e-3, "head": 4e-3, "vectors": 4e-3}
    optimiser = torch.optim.AdamW(
        [{"params": groups[name], "lr": rate, "peak": rate} for name, rate in peaks.items() if groups[name]],
        betas=(0.9, 0.95), weight_decay=0.1, fused=True,
    )  # fmt: skip
    return [optimiser]


def run(idea: Idea, given: Texts, seconds: float, seed: int, kernels: Kernels, steps: int | None) -> dict[str, Any]:
    """Trains for `steps` (None: as many as fit into `seconds`, timed first) and measures held-out text."""
    config = DecoderConfig(given.tokenizer.vocab_size, 4, 192, 3, 1, 64, 512, 512).with_(**idea.shape)
    rates = dataclasses.replace(Rates(), **idea.rates)
    loop.build_optimisers = all_adamw if idea.adamw else BUILD  # type: ignore[assignment]

    def trained(count: int) -> tuple[Decoder, float, list[float]]:
        decoder = use(Decoder(config), kernels)
        initialise(decoder, seed)
        idea.initial(decoder)
        objective = PretrainObjective(
            given.stream.ids, "ablation", 512, 8, seed=seed, bytes_per_token=given.bytes_per_token,
            starts=given.stream.starts,
        )  # fmt: skip
        objective = dataclasses.replace(objective, **idea.objective(count))
        settings = TrainSettings(Schedule(count, **idea.schedule), rates, checkpoint_seconds=1e9)
        times = [0.0]
        with tempfile.TemporaryDirectory() as name:
            result = train(
                decoder, objective, settings, Path(name), Path(name) / "state", Interruption(),
                on_metrics=lambda row: times.append(row["elapsed"]),
            )  # fmt: skip
        return decoder, result.seconds, [after - before for before, after in pairwise(times)]

    if steps is None:
        paces = sorted(trained(24)[2][6:])
        steps = int(seconds / (sum(paces[2:-4]) / len(paces[2:-4])))
    decoder, taken, _ = trained(steps)
    with eager(decoder):
        found = token_logprobs(decoder, [given.tokenizer.encode(each.text) for each in given.heldout],
                               given.tokenizer.end_of_text)  # fmt: skip
    bits = -sum(float(values.sum(dtype="float64")) for values in found) / NATS_PER_BIT
    return {
        "steps": steps,
        "seconds": round(taken, 1),
        "bits_per_byte": bits / sum(each.bytes for each in given.heldout),
    }


BUILD = loop.build_optimisers


def main() -> None:
    """All ideas, and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--seeds", type=int, default=3)
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
    paces: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        made: dict[int, Texts] = {}
        for seed in range(asked.seeds):
            for each in chosen:
                idea = IDEAS[each]
                if idea.vocabulary not in made:
                    made[idea.vocabulary] = texts(corpus, idea.vocabulary, Path(name))
                begun = time.monotonic()
                row = run(idea, made[idea.vocabulary], asked.seconds, seed, kernels, paces.get(each))
                paces[each] = row["steps"]
                results[each].append(row)
                line = {"idea": each, "seed": seed, **row, "wall": round(time.monotonic() - begun, 1)}
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
