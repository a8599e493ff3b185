"""A whole chain in seconds: a few documents, a recipe for them, and a plan that fits no real machine.

As a program it runs the chain, so that a test can kill it: `python small_run.py DOCUMENTS WORKSPACE [--scale N]`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from ownlm.model.kernels import Kernels
from ownlm.recipe.plan import Forecast, Plan, Seconds
from ownlm.recipe.runner import RunResult, run
from ownlm.recipe.schema import AlignPart, CorpusPart, Recipe
from ownlm.runtime.errors import Interrupted, OwnLMError
from ownlm.runtime.progress import Screen
from ownlm.store.workspace import Workspace
from ownlm.train.optimisers import Rates

NOUNS = ("apple", "boat", "cloud", "door", "engine", "field", "garden", "hill", "island", "jacket", "kite", "lamp")
VERBS = ("count", "find", "join", "mark", "name", "order", "pack", "read", "scale", "trim", "unite", "weigh")
MODULE = '''"""All about the {noun}."""


def {verb}_{noun}(items, {noun}):
    """{Verb} the {noun} in the items."""
    {verb}ed = []
    for item in items:
        {verb}ed.append((item, {noun}))
    return {verb}ed


def last_{noun}(items):
    """Return the last {noun} of the items."""
    {noun} = None
    for each_{noun} in items:
        {noun} = each_{noun}
    return {noun}
'''
NOTE = """# The {noun}

Everybody likes the {noun} near the {other}. People {verb} the {noun} when the {other} is far away and it rains.

## How to {verb}

To {verb} well one needs a {noun}. One begins in the morning, and then one can {verb} it until the evening comes.
"""


def write_documents(folder: Path, modules: int = 12, notes: int = 4) -> Path:
    """Python modules and notes that share no five lines; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(modules):
        noun, verb = NOUNS[index % 12] + "s" * (index // 12), VERBS[index % 12]
        text = MODULE.format(noun=noun, verb=verb, Verb=verb.capitalize())
        (folder / f"{noun}.py").write_text(text, "utf-8")
    for index in range(notes):
        text = NOTE.format(noun=NOUNS[index], verb=VERBS[-1 - index], other=NOUNS[-1 - index])
        (folder / f"{NOUNS[index]}.md").write_text(text, "utf-8")
    return folder


def small_plan(scale: int = 1, context: int = 256) -> Plan:
    """Two layers of 32; `scale` multiplies the training steps."""
    config: dict[str, Any] = {
        "vocabulary": 512, "layers": 2, "width": 32, "heads": 2, "kv_heads": 2, "head_dim": 16, "ffn": 64,
    }  # fmt: skip
    return Plan(
        minutes=2, device="cpu", machine="none", threads=1, kernels=Kernels("float32", "sdpa", False),
        matmul_gflops={"float32": 10.0, "bfloat16": 10.0}, **config, context=context, rows=4, steps=20 * scale,
        parameters=50_000, rates=Rates(), seconds=Seconds(1, 1, 1, 1, 1, 1), sft_steps=10 * scale, align_prompts=6,
        dpo_steps=4 * scale, dpo_rows=2, dpo_length=context, heldout_prompts=4, heldout_bytes=10_000, excerpts=2,
        forecast=Forecast(1.0, 10_000, 4.0, 3.0, 5.0), reasons=(("size", "small", "for tests"),),
    )  # fmt: skip


def small_recipe(documents: Path, **changes: Any) -> Recipe:
    """A recipe for `write_documents`, with room for a held-out part."""
    parts: dict[str, Any] = {"corpus": CorpusPart(heldout=0.2), "align": AlignPart(samples=2), **changes}
    return Recipe("small", (str(documents),), minutes=2, **parts)


def run_small(
    recipe: Recipe,
    workspace: Workspace,
    plan: Plan | None = None,
    make_plan: Callable[..., Plan] | None = None,
    screen: Screen | None = None,
) -> RunResult:
    """`runner.run` with `plan` in place of one that was measured."""
    planner = make_plan or (lambda *_: plan or small_plan())
    with mock.patch("ownlm.recipe.planner.make_plan", planner):
        return run(recipe, workspace, screen or Screen(quiet=True))


def main() -> int:
    """Exit codes as those of the `ownlm` command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("documents", type=Path)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--scale", type=int, default=1)
    given = parser.parse_args()
    try:
        result = run_small(
            small_recipe(given.documents), Workspace(given.workspace), small_plan(given.scale), screen=Screen()
        )
    except Interrupted as stop:
        print(f"Stopped: {stop}", file=sys.stderr)
        return stop.exit_code
    except OwnLMError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{result.built} built, {result.reused} reused, in {result.seconds} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
