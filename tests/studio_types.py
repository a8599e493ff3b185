"""A Studio over a workspace as a run leaves it, with models that need no training; also a program that serves it.

    python tests/studio_types.py PORT WORKSPACE

serves the workspace (made first, unless it is there) until its standard input ends.
"""

from __future__ import annotations

import json
import math
import random
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from ownlm.data.message import Message
from ownlm.engine.request import Event, Finished, ModelFacts, SamplingParams, TextDelta, TextScore, Usage
from ownlm.runtime.errors import OwnLMError
from ownlm.serve.app import create_app
from ownlm.serve.models import ModelSet
from ownlm.serve.run import listen
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build, Workspace
from ownlm.studio.app import attach
from ownlm.studio.state import StudioSettings

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> `<b onclick=alert(1)>` **bold**'
CODE = '''Here it is:

```python
def read_lines(path):
    """Return the lines of a file as a list."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    return [line for line in lines if line]  # no empty ones
```
'''
ANSWERS = {
    "base": ' Return the lines of a file.\n\n    :param path: the file.\n    """\n    if not os.path.exists(path):\n'
    "        raise ValueError(path)\n    return self._read(path)\n\ndef read_line(path):\n    return path\n",
    "instructed": "```python\ndef read_lines(path):\n    lines = []\n    for line in path:\n"
    "        lines.append(line)\n    return lines\n```",
    "aligned": CODE,
}
STARTERS = [
    "Write a Python function `def read_lines(path):` Return the lines of a file as a list.",
    "What does `json.dumps` do?",
    "Explain the `with` statement in Python.",
]
FORECAST = {"seconds": 255, "tokens": 6_750_000, "heldout_bits_per_byte": 1.27, "low": 1.2, "high": 1.35}


CLOSED = "closed.txt"
"""A file in the workspace: the prompts whose answers were closed before their end, one a line."""


BROKEN = "broken.txt"
"""While the workspace has a file of this name no model answers."""


class Script:
    """Says its stage's answer word by word.

    A prompt with "hostile" gets HTML, one with "slow" a long answer, and one with "endless" a slow one.
    """

    def __init__(self, stage: str, artifact: Artifact) -> None:
        self.stage, self._artifact = stage, artifact
        self.closed = artifact.path.parent.parent / CLOSED

    @property
    def facts(self) -> ModelFacts:
        return ModelFacts(self._artifact.name, self._artifact.id, 512, 4_930_000, 1.3, self.stage)

    def stream(self, prompt: str | Sequence[int] | Sequence[Message], params: SamplingParams) -> Iterator[Event]:
        asked = prompt if isinstance(prompt, str) else str(getattr(prompt[-1], "text", ""))
        answer = ANSWERS[self.stage]
        if (self.closed.parent / BROKEN).exists():
            raise OwnLMError("It is broken.")
        if "hostile" in asked:
            answer = HOSTILE
        elif "slow" in asked:
            answer = "word " * 2000
        elif params.temperature == 0.9:  # a pair: two answers that differ
            answer += f"\nVariant {params.seed}."
        try:
            for index, word in enumerate(re.findall(r"\s*\S+\s?", answer)):
                time.sleep(0.05 if "endless" in asked else 0.004)
                if index == params.max_tokens:
                    yield Finished("length", Usage(9, index))
                    return
                yield TextDelta(word)
            yield Finished("stop", Usage(9, len(answer.split())))
        except GeneratorExit:  # closed before its end
            with self.closed.open("a", encoding="utf-8") as file:
                file.write(f"{asked}\n")
            raise

    def generate(self, prompts: Sequence[Any], params: SamplingParams) -> list[Any]:
        raise NotImplementedError

    def score(self, texts: Sequence[str]) -> list[TextScore]:
        """Texts with many letters z are strange to it."""
        bits = [6.0 if text.count("z") > 9 else 1.2 for text in texts]
        return [
            TextScore((1,), (-each * len(text.encode()) * math.log(2),), len(text.encode()))
            for each, text in zip(bits, texts, strict=True)
        ]

    def count_tokens(self, prompt: Any) -> int:
        return 9


def curve(steps: int, start: float, end: float, bits: bool) -> list[dict[str, Any]]:
    """Rows as the training loop writes them."""
    rng = random.Random(0)
    rows = []
    for step in range(1, steps + 1):
        share = step / steps
        loss = end + (start - end) * (0.55 * math.exp(-40 * share) + 0.45 * math.exp(-4.5 * share))
        loss += rng.gauss(0, 0.02 * loss)
        row = {"step": step, "steps": steps, "loss": loss, "tokens": step * 16_384, "tokens_per_second": 27_400,
               "utilisation": 0.61, "elapsed": step * 0.6, "remaining": (steps - step) * 0.6}  # fmt: skip
        rows.append({**row, "bits_per_byte": loss} if bits else row)
    return rows


GROWTH = {
    "def read(self, size=-1):\n": [
        (0, "\ufffd}%qz ion Lx 9 tab__ //ðŒ"),
        (10, "      the   self  ,  , self )  the"),
        (100, "    self.x = x\n    return self.x = None\n    return"),
        (412, '    """Read up to size bytes."""\n    if self.closed:\n        raise ValueError("closed")\n'
              "    return self.raw.read(size)\n"),
    ],
    "import os\nimport sys\n": [
        (0, "ß9 Qq~~ vvo xx\\\\ 4"), (10, "s  s  import  e self"),
        (100, "import sys\nimport self\n\nclass _self(self):\n"),
        (412, "import tempfile\nfrom pathlib import Path\n\n__all__ = ['main']\n\n\ndef main(argv=None):\n"),
    ],
    "The ": [
        (0, "##pPq zzz*** ~0"), (10, "e t  the the a"), (100, "function the module is the value of the object"),
        (412, "function returns the first element of the list, or None if the list is empty.\n"),
    ],
}  # fmt: skip


def samples(upto: int) -> list[dict[str, Any]]:
    """Rows as a run appends them: all prompts of a step, then those of the next."""
    found = [
        {"step": step, "prompt": prompt, "text": text}
        for prompt, texts in GROWTH.items()
        for step, text in texts
        if step <= upto
    ]
    return sorted(found, key=lambda row: int(str(row["step"])))


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def make_models(workspace: Workspace) -> dict[str, Artifact]:
    """A plan and the three stages of one model, with their aliases."""

    def make(kind: str, name: str, inputs: dict[str, str], metrics: dict[str, Any], stage: str) -> Artifact:
        def build(target: Build) -> dict[str, Any]:
            if kind == "plan":
                (target.folder / "plan.json").write_text(json.dumps({"forecast": FORECAST, "steps": 412}), "utf-8")
                return metrics
            base = stage == "base"
            write_lines(target.folder / "metrics.jsonl", curve(412 if base else 80, 8.2 if base else 2.4, 1.21, base))
            if base:
                write_lines(target.folder / "samples.jsonl", samples(412))
            (target.folder / "starters.json").write_text(json.dumps(STARTERS), "utf-8")
            return metrics

        settings = {"stage": stage} if stage else {}
        artifact = workspace.make(kind, name, build, inputs=inputs, settings=settings)[0]
        if kind == "model":
            workspace.point(name, artifact)
        return artifact

    plan = make("plan", "first-model", {}, {}, "")
    facts = {"parameters": 4_930_000, "context": 512, "heldout_bits_per_byte": 1.254, "seconds": 247.0,
             "tokens_per_second": 27_400, "utilisation": 0.61}  # fmt: skip
    base = make("model", "first-model-base", {"plan": plan.id}, facts, "base")
    instructed = make("model", "first-model-instructed", {"base": base.id}, {**facts, "heldout_bits_per_byte": 1.262},
                      "instructed")  # fmt: skip
    facts["heldout_bits_per_byte"] = 1.268
    aligned = make("model", "first-model", {"base": instructed.id}, facts, "aligned")
    return {"base": base, "instructed": instructed, "aligned": aligned}


def make_report(workspace: Workspace, model: Artifact) -> Artifact:
    """One page of HTML."""

    def build(target: Build) -> dict[str, Any]:
        (target.folder / "index.html").write_text("<!doctype html><title>r</title><h1>The report</h1>", "utf-8")
        return {}

    return workspace.make("report", "first-model", build, inputs={"model": model.id})[0]


def opener(name: str, workspace: Workspace) -> Script:
    artifact = workspace.resolve(name, ("model",))
    return Script(str(artifact.settings["stage"]), artifact)


FAKE_ALIGN = """
import json, os, sys, time
from pathlib import Path
from ownlm.store.workspace import Workspace
arguments = sys.argv[1:]
workspace = Workspace()
pairs = [json.loads(line) for line in Path(arguments[arguments.index("--pairs") + 1]).read_text().splitlines()]
assert all(set(pair) == {"prompt", "chosen", "rejected"} for pair in pairs) and pairs
def build(target):
    with (target.folder / "metrics.jsonl").open("w") as file:
        for step in range(1, 6):
            file.write(json.dumps({"step": step, "steps": 5}) + "\\n")
            file.flush()
            time.sleep(0.15)
    return {}
made, _ = workspace.make("model", "yours", build, inputs={"base": arguments[0]},
                         settings={"stage": "aligned", "pairs": pairs})
workspace.point("yours", made)
def interval(value, half):
    return {"value": value, "low": value - half, "high": value + half, "n": 200}
verdict = {"metric": "answers that pass the verifier", "before": interval(0.41, 0.07), "after": interval(0.43, 0.07),
           "difference": interval(0.02, 0.06), "conclusion": "too few to tell"}
print("trained")
metrics = {"verdict": verdict, "pairs": len(pairs)}
print(json.dumps({"kind": "model", "name": "yours", "id": made.id, "metrics": metrics}))
"""


def main(port: int, root: Path) -> None:
    workspace = Workspace(root)
    align = root.parent / "fake_align.py"
    align.write_text(FAKE_ALIGN, "utf-8")
    app = create_app(ModelSet([], workspace, opener), workspace)
    attach(app, app.state.context, StudioSettings(align=(sys.executable, str(align))))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))

    def stop_at_end() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=stop_at_end, daemon=True).start()
    with listen("127.0.0.1", port) as listener:
        server.run(sockets=[listener])


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
