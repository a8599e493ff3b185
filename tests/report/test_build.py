import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from ownlm.report.build import build_report
from ownlm.report.charts import charts
from ownlm.report.facts import collect
from ownlm.runtime.errors import ArtifactDamaged
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build, Workspace
from report.fake import HOSTILE, _make, evaluation, interval, models


class Page(HTMLParser):
    """Ids of the sections, tags, and everything that would load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if tag == "section" and name == "id":
                self.sections.append(str(value))
            if name in ("src", "srcset", "action", "data") or (
                name.endswith("href") and not str(value).startswith("#")
            ):
                self.loads.append(f"{tag} {name}={value}")


def page(report: Artifact) -> str:
    return report.file("index.html").read_text("utf-8")


def overflowing(loss: float) -> list[dict[str, object]]:
    """A curve whose fifth loss is not finite."""
    return [{"step": i, "loss": loss if i == 5 else 2.0 - i / 9, "tokens": i} for i in range(9)]


@pytest.fixture
def whole(workspace: Workspace) -> Artifact:
    model = models(workspace)
    evaluation(workspace, model)
    return build_report(model, workspace)


def test_a_whole_run_has_all_chapters_and_loads_nothing(whole: Artifact) -> None:
    read = Page(page(whole))
    assert read.sections == [
        "lineage", "yardsticks", "keystrokes", "growth", "curves", "forecast", "alignment", "answers", "data", "limits",
        "fine-print",
    ]  # fmt: skip
    assert read.tags.count("svg") == 7
    assert read.loads == [] and "@import" not in page(whole) and not re.search(r"url\((?!#)", page(whole))


def test_texts_of_others_are_escaped(whole: Artifact) -> None:
    html = page(whole)
    assert "script" not in Page(html).tags
    assert HOSTILE not in html and html.count("&lt;script&gt;") > 8
    assert "\x00" not in html and "\x1b" not in html and "\u202e" not in html
    card = whole.file("model-card.md").read_text("utf-8")
    outside = re.sub(r"^(`{3,}).*?^\1$", "", card, flags=re.MULTILINE | re.DOTALL)
    assert "<script" in card and "<script" not in outside


def test_figures_stand_on_the_page(whole: Artifact) -> None:
    html = page(whole)
    for figure in ("4.9 M", "22.5 MB", "1.259", "39.1 %", "+27.0 %", "1.270", "PSF-2.0", "48.4 %", "+0.6 %"):
        assert figure in html, figure


def test_the_card_opens_with_metadata_that_claims_no_licence(whole: Artifact) -> None:
    card = whole.file("model-card.md").read_text("utf-8")
    assert card.startswith("---\n")
    data = yaml.safe_load(card.split("---\n")[1])
    assert data["license"] == "other" and data["pipeline_tag"] == "text-generation"
    assert data["model-index"][0]["results"][0]["metrics"][0]["value"] == 1.259
    assert "| PSF-2.0 | 10.9 MB | 48.4 % |" in card and "## What it cannot do" in card


def test_the_same_artifacts_give_the_same_report_and_a_new_evaluation_a_new_one(workspace: Workspace) -> None:
    model = models(workspace)
    first = build_report(model, workspace)
    assert build_report(model, workspace).id == first.id
    evaluation(workspace, model)
    assert build_report(model, workspace).id != first.id


def test_absent_stages_leave_their_chapters_out(workspace: Workspace) -> None:
    def build(target: Build) -> dict[str, object]:
        (target.folder / "config.json").write_text("{}")
        return {}

    lone = workspace.make("model", "imported", build, inputs={"base": "0123456789ab"}, settings={})[0]
    report = build_report(lone, workspace)
    assert Page(page(report)).sections == ["lineage", "limits", "fine-print"]
    assert "no longer here" in page(report)
    assert "Not recorded." in report.file("model-card.md").read_text("utf-8")


def test_facts_of_an_unaligned_model(workspace: Workspace) -> None:
    models(workspace)
    facts = collect(workspace.resolve("first-model-instructed"), workspace)
    assert set(facts.stages) == {"base", "instructed"} and facts.alignment == {} and facts.pairs == []
    assert facts.plan["minutes"] == 8 and len(facts.skipped) == 2


def test_damage_is_told(workspace: Workspace) -> None:
    model = models(workspace)
    path: Path = model.path / "metrics.jsonl"
    length = path.stat().st_size
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ArtifactDamaged, match=r"metrics\.jsonl"):
        build_report(model, workspace)
    path.write_text("{" * length)
    with pytest.raises(ArtifactDamaged, match="is no JSON"):
        build_report(model, workspace)
    assert not list(workspace.root.glob("report/*"))


def test_numbers_that_json_cannot_hold_do_not_break_the_page(workspace: Workspace) -> None:
    def build(target: Build) -> dict[str, object]:
        rows = [{"step": i, "loss": float("nan") if i % 2 else 1.0, "tokens": i} for i in range(9)]
        (target.folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return {"parameters": 10, "heldout_bits_per_byte": float("nan")}

    model = workspace.make("model", "odd", build, settings={"stage": "base"})[0]
    assert "curves" in Page(page(build_report(model, workspace))).sections


def test_a_suite_of_ones_own_keeps_its_answers_to_itself(workspace: Workspace) -> None:
    model = models(workspace)
    evaluation(workspace, model)
    mine = {"suite": {"name": "my questions", "pass_rate": interval(0.25, 0.2, 8), "by_tag": {}}}
    asked = [{"id": "1", "prompt": "mine", "answer": "MY ANSWER", "passed": False, "reasons": [], "value": 0.0}]
    _make(
        workspace,
        "evaluation",
        "mine",
        {"model": model},
        {},
        {"results.json": mine, "samples.jsonl": asked},
        stage="mine",
    )
    text = page(build_report(model, workspace))
    assert "60" in text and "first steps" in text and "task_1" in text
    assert "MY ANSWER" not in text
    assert "Of the suite “my questions” it passes" in text


def test_held_out_text_is_not_counted_as_learned(whole: Artifact) -> None:
    text, card = page(whole), whole.file("model-card.md").read_text("utf-8")
    assert "2,002 documents to learn from" in text and "111 held out" in " ".join(text.split())
    assert "2,002 documents" in card and "111 more held out" in card


def test_a_corpus_says_itself_what_is_learned_from(workspace: Workspace) -> None:
    facts = collect(models(workspace), workspace)
    assert facts.corpus is not None
    assert facts.learned == (2002, 21_320_000)
    told = {**facts.corpus.metrics, "train_documents": 7, "train_bytes": 70}
    assert dataclasses.replace(facts, corpus=dataclasses.replace(facts.corpus, metrics=told)).learned == (7, 70)
    assert dataclasses.replace(facts, corpus=None).learned == (0, 0)


def test_a_suite_is_listed_where_the_held_out_text_has_no_answers(workspace: Workspace) -> None:
    model = models(workspace)
    heldout = {"bits_per_byte": {"model": interval(1.259, 0.04, 111), "ngram": interval(1.4, 0.05, 111)}}
    _make(workspace, "evaluation", "heldout", {"model": model}, {}, {"results.json": heldout})
    mine = {"suite": {"name": "my questions", "pass_rate": interval(0.25, 0.2, 8), "by_tag": {}}}
    _make(workspace, "evaluation", "mine", {"model": model}, {}, {"results.json": mine}, suite="mine")
    assert "Of the suite “my questions” it passes" in page(build_report(model, workspace))


@pytest.mark.parametrize("odd", [float("inf"), float("-inf"), float("nan")])
def test_a_loss_that_is_not_finite_is_not_drawn(workspace: Workspace, odd: float) -> None:
    model = _make(
        workspace, "model", "odd", {}, {"parameters": 10, "heldout_bits_per_byte": odd},
        {"metrics.jsonl": overflowing(odd)}, stage="base",
    )  # fmt: skip
    drawn = charts(collect(model, workspace))["pretraining"]
    assert drawn is not None and not re.search(r"\b(nan|inf)\b", drawn)
    assert "curves" in Page(page(build_report(model, workspace))).sections
