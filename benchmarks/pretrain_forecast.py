"""How near are the planner's forecasts of held-out bits per byte and time to what pre-training then comes to?

    python benchmarks/pretrain_forecast.py [--quick] [--rounds N] [--points FILE.csv]

For budgets of 2, 5 and 12 minutes on two corpora: this machine's own Python packages, and WikiText-2 (from
$OWNLM_TEST_DATA/text/wikitext2-train.txt and -valid.txt, an article a document). Every run is a process of its own with
an empty workspace: corpus, plan, tokenizer, tokens, base model, all the budget for pre-training. A round takes about 40
minutes; `--quick` is one round of one minute each. `--points` writes the outcomes as a table for `ownlm plan --fit`.
"""

from __future__ import annotations

import csv
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from _harness import Figure, arguments, in_child, median, report, run_child, versions

BUDGETS = (2.0, 5.0, 12.0)
BITS_WITHIN, TIME_WITHIN = 3.0, 15.0
_ARTICLE = re.compile(r"^ = (?!=)", re.MULTILINE)


def write_articles(texts: list[Path], folder: Path) -> str:
    """The articles of WikiText-2 as one file each; returns the folder."""
    folder.mkdir()
    count = 0
    for path in texts:
        text = path.read_text("utf-8")
        starts = [match.start() for match in _ARTICLE.finditer(text)] or [0]
        for begin, end in zip(starts, [*starts[1:], len(text)], strict=True):
            (folder / f"article-{count:04d}.txt").write_text(text[begin:end], "utf-8")
            count += 1
    return str(folder)


def outcome(corpus: str, texts: list[str], minutes: float, seed: int) -> dict[str, Any]:
    """Forecast and outcome of one run: bits per byte, seconds, and what a scaling law is fitted to."""
    from ownlm.recipe.context import RunContext
    from ownlm.recipe.runner import find_sources
    from ownlm.recipe.schema import PYTHON, CorpusPart, Recipe
    from ownlm.recipe.stages import corpus as corpus_stage
    from ownlm.recipe.stages import plan, pretrain, tokenizer, tokens
    from ownlm.runtime.progress import Screen
    from ownlm.runtime.signals import Interruption
    from ownlm.store.workspace import Workspace

    with tempfile.TemporaryDirectory() as place:
        source = PYTHON if corpus == "python" else write_articles([Path(each) for each in texts], Path(place) / "texts")
        # All of WikiText-2, and of Python as much as the same budget would read in the whole chain.
        part = CorpusPart(max_megabytes=20.0) if corpus == "wikitext2" else CorpusPart()
        recipe = Recipe(corpus, (source,), minutes=minutes, seed=seed, corpus=part)
        workspace = Workspace(Path(place) / "workspace")
        context = RunContext(recipe, workspace, Screen(quiet=True), Interruption(), minutes, find_sources(recipe))
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(place) / "inductor"))
        context.artifacts["corpus"], _ = corpus_stage.make(context)
        context.artifacts["plan"], _ = plan.make(context, "cpu", whole_chain=False)
        context.artifacts["tokenizer"], _ = tokenizer.make(context)
        context.artifacts["tokens"], _ = tokens.make(context)
        base, _ = pretrain.make(context)
        found, forecast = base.metrics, context.plan.forecast
        stream = context.artifacts["tokens"].metrics
        return {
            "forecast_bits": forecast.heldout_bits_per_byte, "low": forecast.low, "high": forecast.high,
            "bits": found["heldout_bits_per_byte"], "forecast_seconds": forecast.seconds, "seconds": found["seconds"],
            "parameters": context.plan.config(stream["vocabulary"]).matmul_parameters,
            "bytes": found["tokens"] * stream["bytes_per_token"], "distinct": stream["train_bytes"],
        }  # fmt: skip


def main() -> int:
    """Forecasts against outcomes."""
    asked = arguments(__doc__ or "", points=(str, "", "write the outcomes as a table for `ownlm plan --fit`"))
    if asked.child:
        run_child(asked.child, {"outcome": outcome})
        return 0
    data = Path(os.environ.get("OWNLM_TEST_DATA", str(Path(__file__).resolve().parents[2] / "shared" / "data")))
    texts = [str(data / "text" / f"wikitext2-{part}.txt") for part in ("train", "valid")]
    if missing := [text for text in texts if not Path(text).is_file()]:
        print(f"{missing[0]} is not there: set OWNLM_TEST_DATA to the folder of test data.", file=sys.stderr)
        return 2
    budgets, rounds = ((1.0,), 1) if asked.quick else (BUDGETS, asked.rounds)
    figures, points = [], []
    for corpus in ("python", "wikitext2"):
        for minutes in budgets:
            runs = []
            for seed in range(rounds):
                run = in_child(__file__, "outcome", corpus=corpus, texts=texts, minutes=minutes, seed=seed)
                print(
                    f"{corpus}, {minutes:g} minutes, seed {seed}: {run['bits']:.3f} bits per byte (forecast "
                    f"{run['forecast_bits']:.3f}, {run['low']:.3f} to {run['high']:.3f}) in {run['seconds']:.0f} s "
                    f"(forecast {run['forecast_seconds']:.0f})",
                    flush=True,
                )
                runs.append(run)
                points.append((f"{corpus} {minutes:g} min seed {seed}", run))
            bits = median([100 * abs(run["forecast_bits"] / run["bits"] - 1) for run in runs])
            time = median([100 * abs(run["forecast_seconds"] / run["seconds"] - 1) for run in runs])
            figures.append(
                Figure(f"{corpus}, {minutes:g} min: bits per byte off", bits, "%", BITS_WITHIN, at_most=True)
            )
            figures.append(Figure(f"{corpus}, {minutes:g} min: time off", time, "%", TIME_WITHIN, at_most=True))
    if asked.points:
        with Path(asked.points).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("name", "parameters", "bytes", "distinct", "bits_per_byte"))
            writer.writerows(
                (name, run["parameters"], round(run["bytes"]), run["distinct"], run["bits"]) for name, run in points
            )
    return report("pretrain_forecast", figures, versions("torch"), rounds)


if __name__ == "__main__":
    raise SystemExit(main())
