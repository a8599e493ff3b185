"""A workspace as a finished run leaves it, with hostile texts in all places where texts of others come."""

import json
import math
import random
from pathlib import Path
from typing import Any

from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build, Workspace

HOSTILE = "<script>alert('x')</script>"


def interval(value: float, half: float, n: int) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half, "n": n}


def outcome(pass_rate: float, gold: float, bits_per_byte: float) -> dict[str, Any]:
    """One side of an alignment's metrics."""
    rates = {"pass_rate": interval(pass_rate, 0.065, 200), "gold": interval(gold, 0.02, 200)}
    return {**rates, "heldout_bits_per_byte": bits_per_byte}


def _write(folder: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        lines = content if isinstance(content, list) else [content]
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def _make(
    workspace: Workspace, kind: str, name: str, inputs: dict[str, Artifact], metrics: dict[str, Any],
    files: dict[str, Any], **settings: Any,
) -> Artifact:  # fmt: skip
    def build(target: Build) -> dict[str, Any]:
        _write(target.folder, files)
        return metrics

    ids = {role: artifact.id for role, artifact in inputs.items()}
    return workspace.make(kind, name, build, inputs=ids, settings=settings)[0]


def curve(steps: int, start: float, end: float, tokens: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(0)
    rows = []
    for step in range(1, steps + 1):
        loss = end + (start - end) * math.exp(-6 * step / steps) + rng.gauss(0, 0.05 * end)
        bits = loss / math.log(2) / 3.4 if tokens else None
        rows.append({"step": step, "steps": steps, "loss": loss, "bits_per_byte": bits, "tokens": step * tokens})
    return rows


def corpus(workspace: Workspace) -> Artifact:
    licences = {"PSF-2.0": 10_900_000, "MIT": 6_100_000, "BSD-3-Clause": 4_800_000, f"x {HOSTILE}": 700_000}
    metrics = {
        "documents": 2113, "bytes": 22_500_000, "heldout_documents": 111, "heldout_bytes": 1_180_000, "duplicates": 34,
        "skipped": 2, "groups": 61, "heldout_groups": 9, "licences": licences,
        "kinds": {"code": 20_400_000, "prose": 2_100_000},
    }  # fmt: skip
    skipped = [{"source": f"bad/{HOSTILE}.py", "reason": "not UTF-8"}, {"source": "big.py", "reason": "too large"}]
    return _make(workspace, "corpus", "python", {}, metrics, {"documents.parquet": "x", "skipped.jsonl": skipped})


def plan(workspace: Workspace, made_from: Artifact) -> Artifact:
    data = {
        "minutes": 8, "device": "cpu", "precision": "bfloat16", "threads": 2, "vocabulary": 4096, "layers": 6,
        "width": 256, "heads": 4, "batch_tokens": 16_384, "steps": 412, "parameters": 4_930_000,
        "forecast": {"seconds": 255, "tokens": 6_750_000, "heldout_bits_per_byte": 1.27, "low": 1.2, "high": 1.35},
        "reasons": [["precision", "bfloat16", "measured 2.1 times as fast as float32"],
                    ["width", "256", "the largest that sees the text once within the budget"]],
    }  # fmt: skip
    return _make(workspace, "plan", "first-model", {"corpus": made_from}, {}, {"plan.json": data})


def models(workspace: Workspace) -> Artifact:
    documents = corpus(workspace)
    tokenizer = _make(workspace, "tokenizer", "python", {"corpus": documents}, {"vocabulary": 4096}, {"t.json": 1})
    tokens = _make(
        workspace,
        "tokens",
        "python",
        {"corpus": documents, "tokenizer": tokenizer},
        {"tokens": 6_602_113},
        {"s.bin": 1},
    )
    chosen = plan(workspace, documents)
    samples = [
        {"step": step, "prompt": prompt, "text": text + HOSTILE if step == 10 else text}
        for prompt in ("def read_lines(path):", "class Stack:\n", "The function returns")
        for step, text in (
            (0, "\ufffd}%qz\x00 ion Lx\u202e 9\x1b[31m tab__ //"), (10, " the the  , self self )"),
            (100, "\n    self.x = x\n    return self\n    return"),
            (412, '\n    """Return the lines of a file."""\n    with open(path) as file:\n        return list(file)\n'),
        )
    ]  # fmt: skip
    base = _make(
        workspace, "model", "first-model-base", {"tokens": tokens, "tokenizer": tokenizer, "plan": chosen},
        {"parameters": 4_930_000, "context": 512, "steps": 412, "tokens": 6_750_208, "train_bits_per_byte": 1.19,
         "heldout_bits_per_byte": 1.244, "seconds": 262.0, "tokens_per_second": 25_700, "utilisation": 0.61},
        {"metrics.jsonl": curve(412, 8.2, 2.7, 16_384), "samples.jsonl": samples}, stage="base",
    )  # fmt: skip
    instructed = _make(
        workspace, "model", "first-model-instructed", {"base": base, "corpus": documents},
        {"examples": 3120, "tokens": 402_113, "validation_loss_before": 3.1, "validation_loss_after": 1.9},
        {"metrics.jsonl": curve(90, 3.1, 1.9)}, stage="instructed",
    )  # fmt: skip
    pair = {
        "prompt": [],
        "chosen": "def f(x):\n    y = x + 1\n    print(y)\n    return y",
        "rejected": f"def f(:{HOSTILE}",
    }
    pairs = _make(
        workspace, "preferences", "first-model", {"model": instructed}, {"pairs": 214}, {"pairs.jsonl": [pair]}
    )
    metrics = {
        "before": outcome(0.31, 0.22, 1.251), "after": outcome(0.58, 0.23, 1.259),
        "gain": {"pass_rate": interval(0.27, 0.07, 200), "gold": interval(0.01, 0.015, 200)},
        "bits_per_byte_change": 0.0064, "pairs": 214,
        "reasons": {"compiles": [41, 18], "signature": [22, 9], "stub": [38, 20], "ends": [37, 37]},
    }  # fmt: skip
    return _make(
        workspace, "model", "first-model", {"model": instructed, "preferences": pairs}, metrics,
        {"metrics.jsonl": curve(60, 0.69, 0.31)}, stage="aligned",
    )  # fmt: skip


def evaluation(workspace: Workspace, model: Artifact) -> Artifact:
    results = {
        "bits_per_byte": {
            "model": interval(1.259, 0.04, 111) | {"bytes": 1_180_000}, "ngram": interval(1.432, 0.05, 111),
            "xz_cold": 1.507, "xz_primed": 1.23, "model_minus_ngram": interval(-0.17, 0.01, 111), "ngram_order": 5,
        },
        "by_kind": {"code": {"model": interval(1.21, 0.04, 95), "ngram": interval(1.39, 0.05, 95)},
                    f"prose {HOSTILE}": {"model": interval(1.83, 0.11, 16), "ngram": interval(1.97, 0.12, 16)}},
        "keystrokes": {"model": interval(0.391, 0.05, 40), "ngram": interval(0.273, 0.05, 40),
                       "words": interval(0.168, 0.016, 40), "excerpts": 40, "characters": 8000, "rule": "The rule."},
        "suite": {"name": "first steps", "pass_rate": interval(0.6, 0.2, 5), "by_tag": {}},
        "notes": ["What was measured.", f"And how {HOSTILE}."],
    }  # fmt: skip
    said = f"\n    ```\n    return value{HOSTILE}"
    asked = [
        {"id": str(i), "prompt": f"def task_{i}(value):", "answer": said, "passed": i % 3 > 0,
         "reasons": [] if i % 3 else ["contains"], "finished": True, "value": 1.0}
        for i in range(5)
    ]  # fmt: skip
    return _make(
        workspace, "evaluation", "heldout", {"model": model}, {}, {"results.json": results, "samples.jsonl": asked}
    )
