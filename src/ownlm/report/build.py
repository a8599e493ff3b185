"""Writes the report of a model: one HTML page without outside resources, and a Markdown model card."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import yaml
from markupsafe import Markup

from ownlm.render.html import count, decimal, duration, percent, render, size
from ownlm.report.charts import charts
from ownlm.report.facts import Facts, collect, dig
from ownlm.report.limits import limits
from ownlm.report.lineage import render_text
from ownlm.runtime import atomic
from ownlm.runtime.progress import Screen
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build, Workspace

CODE_VERSION = 2
"""Goes into the report's id: raised whenever the same facts would give other pages."""
ANSWERS, PAIRS, SKIPPED = 8, 3, 12
"""How many of each the page shows."""


def build_report(model_artifact: Artifact, workspace: Workspace, screen: Screen | None = None) -> Artifact:
    """The report of a model as an artifact of kind "report": `index.html` and `model-card.md`.

    It is read from artifacts alone, so the same model with the same evaluations gives the report that exists already.

    Raises:
        ArtifactDamaged: a file that the report is read from was cut short or is gone.
    """
    facts = collect(model_artifact, workspace)

    def build(target: Build) -> dict[str, Any]:
        values = context(facts)
        atomic.write_text(target.folder / "index.html", render("ownlm.report", "report.html.j2", **values))
        atomic.write_text(target.folder / "model-card.md", render("ownlm.report", "model-card.md.j2", **values))
        return {"evaluations": len(facts.evaluations)}

    report, _ = workspace.make("report", model_artifact.name, build, inputs=facts.used(), code_version=CODE_VERSION)
    if screen:
        screen.say(f"The report stands in {report.path / 'index.html'}, the model card beside it.")
    return report


def context(facts: Facts) -> dict[str, Any]:
    """What the templates may use."""
    drawings = {name: Markup(svg) if svg else None for name, svg in charts(facts).items()}
    return {
        "facts": facts,
        "dig": dig,
        "charts": drawings,
        "tiles": tiles(facts),
        "chain": [_link(artifact) for artifact in facts.chain],
        "tree": render_text(facts.tree),
        "licences": shares(dig(facts.corpus.metrics if facts.corpus else {}, "licences")),
        "kinds": shares(dig(facts.corpus.metrics if facts.corpus else {}, "kinds")),
        "growth": growth(facts.samples),
        "limits": limits(facts),
        "answers": facts.answers[:ANSWERS],
        "pairs": facts.pairs[:PAIRS],
        "skipped": facts.skipped[:SKIPPED],
        "front_matter": front_matter(facts),
    }


def tiles(facts: Facts) -> list[tuple[str, str, str]]:
    """(figure, what it is, beside it), the first things that a reader sees."""
    base, heldout = facts.base, facts.heldout
    bits = dig(heldout, "bits_per_byte", "model", "value") or base.get("heldout_bits_per_byte")
    saved = dig(heldout, "keystrokes", "model")
    gain = dig(facts.alignment, "gain", "pass_rate")
    found: list[tuple[str, str, str]] = []
    if base.get("parameters"):
        found.append((count(base["parameters"]), "parameters", f"context of {base.get('context', 0):,} tokens"))
    if facts.corpus:
        documents, learned = facts.learned
        found.append((size(learned), "of text to learn from", f"{documents:,} documents"))
    if facts.seconds >= 1:
        found.append((duration(facts.seconds), "to make all of it", f"{count(base.get('tokens'))} tokens trained on"))
    if bits:
        found.append((decimal(bits), "bits per byte", "on text it never saw; less is better"))
    if saved:
        found.append((percent(saved["value"], 0), "of keystrokes saved", "typing held-out files again"))
    if gain:
        found.append((f"{round(100 * gain['value']):+d}", "points by alignment", "more answers pass the checks"))
    return found


def shares(amounts: Any) -> list[tuple[str, int, float]]:
    """(name, bytes, share of all), the largest first."""
    if not isinstance(amounts, dict) or not amounts:
        return []
    total = sum(amounts.values()) or 1
    return sorted(((name, n, n / total) for name, n in amounts.items()), key=lambda row: -row[1])


def growth(samples: list[dict[str, Any]]) -> list[tuple[str, list[tuple[int, str]]]]:
    """(prompt, [(step, text)]) in the order of the steps: language appearing."""
    by_prompt: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for sample in samples:
        by_prompt[str(sample.get("prompt", ""))].append((int(sample.get("step", 0)), str(sample.get("text", ""))))
    return [(prompt, sorted(texts)) for prompt, texts in by_prompt.items()]


def _link(artifact: Artifact) -> dict[str, Any]:
    """One box of the drawn chain."""
    metrics, stage = artifact.metrics, str(artifact.settings.get("stage", ""))
    sentence = {
        "corpus": f"{metrics.get('documents', 0):,} documents, {size(metrics.get('bytes'))}",
        "tokenizer": f"{count(metrics.get('vocabulary') or artifact.settings.get('vocabulary'))} pieces",
        "tokens": f"{count(metrics.get('tokens'))} tokens",
        "plan": "measured this machine, chose the size",
        "preferences": f"{metrics.get('pairs', 0):,} pairs of answers",
        "model": {
            "base": f"{count(metrics.get('steps'))} steps, {count(metrics.get('tokens'))} tokens",
            "instructed": f"{metrics.get('examples', 0):,} examples",
            "aligned": f"{metrics.get('pairs', 0):,} preference pairs",
        }.get(stage, ""),
    }.get(artifact.kind, "")
    title = {"base": "pre-trained", "instructed": "instructed", "aligned": "aligned"}.get(stage, artifact.kind)
    time = duration(artifact.seconds) if artifact.seconds >= 1 else ""
    return {"title": title, "name": artifact.name, "id": artifact.id, "sentence": sentence, "time": time}


def front_matter(facts: Facts) -> str:
    """The metadata block of a Hugging Face model card, as YAML.

    The licence of a model trained on texts of many licences is not settled, so it is not claimed.
    Source of the fields: https://huggingface.co/docs/hub/model-cards
    """
    bits = dig(facts.heldout, "bits_per_byte", "model", "value") or facts.base.get("heldout_bits_per_byte")
    data: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": "other",
        "license_name": "see-licences-of-the-training-text",
        "tags": ["ownlm", *facts.stages],
    }
    if bits:
        task = {"type": "text-generation"}
        metric = {"type": "bits_per_byte", "name": "bits per byte (held out)", "value": round(float(bits), 4)}
        dataset = {"type": "held-out-documents", "name": "held-out documents of the same corpus"}
        result = {"task": task, "dataset": dataset, "metrics": [metric]}
        data["model-index"] = [{"name": facts.model.name, "results": [result]}]
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip()
