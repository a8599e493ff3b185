"""A whole chain in seconds: a few documents, a recipe for them, and a plan that fits no real machine.

As a program it runs an `ownlm` command with that plan, so that a test can kill it:
`python small_run.py [--scale N] [--checkpoint-seconds S] [--refuse-network] -- run RECIPE.yaml`.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from ownlm.model.kernels import Kernels
from ownlm.recipe.plan import Forecast, Plan, Seconds
from ownlm.recipe.runner import RunResult, run
from ownlm.recipe.schema import AlignPart, CorpusPart, Recipe
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


@dataclass(frozen=True)
class Chain:
    """A finished run: the recipe, the workspace and what lies in it."""

    recipe: Recipe
    workspace: Workspace
    result: RunResult

    def weights(self, role: str) -> bytes:
        """The weights of a model of the run."""
        return (self.result.artifacts[role].path / "model.safetensors").read_bytes()


def recipe_file(path: Path, documents: Path) -> Path:
    """`small_recipe(documents)` as a file."""
    text = f"name: small\nsources: {documents}\nminutes: 2\ncorpus: {{heldout: 0.2}}\nalign: {{samples: 2}}\n"
    path.write_text(text, "utf-8")
    return path


CALLED_OUT = 97
"""The exit code of a process that was about to talk to another machine."""


def refuse_network() -> None:
    """Ends this process at once when anything in it wants to reach another machine; nothing can swallow that."""

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            host = arguments[1][0] if isinstance(arguments[1], tuple) else None
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            host = arguments[0]
        else:
            return
        name = host.decode() if isinstance(host, bytes) else host
        if name is not None and name not in ("", "localhost", "::1", "0.0.0.0") and not name.startswith("127."):
            os.write(2, f"{event}: {name}\n".encode())
            os._exit(CALLED_OUT)

    sys.addaudithook(watch)


def main() -> int:
    """Runs an `ownlm` command with the small plan; exits as it does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=int, default=1)
    parser.add_argument("--checkpoint-seconds", type=float, default=20.0)
    parser.add_argument("--refuse-network", action="store_true")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    if given.refuse_network:
        refuse_network()
    from ownlm.cli.main import main as ownlm
    from ownlm.train.loop import TrainSettings

    settings = functools.partial(TrainSettings, checkpoint_seconds=given.checkpoint_seconds)
    with (
        mock.patch("ownlm.recipe.planner.make_plan", lambda *_: small_plan(given.scale)),
        mock.patch("ownlm.train.loop.TrainSettings", settings),
    ):
        return ownlm(given.command)


if __name__ == "__main__":
    sys.exit(main())
