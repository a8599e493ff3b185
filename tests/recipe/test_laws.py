"""From finished runs or a table to a law that is kept, drawn and found again."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from ownlm.cli.main import main
from ownlm.recipe import fitting, laws
from ownlm.recipe.fitting import Point
from ownlm.recipe.laws import DRAWING, LAW, POINTS, find_law, fit_command, forecaster, read_fit
from ownlm.recipe.points import read_points, workspace_points, write_points
from ownlm.recipe.scaling import ScalingLaw
from ownlm.runtime.errors import ArtifactDamaged, ArtifactNotFound, OwnLMError
from ownlm.runtime.progress import Screen
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace

TRUE = ScalingLaw(floor=0.5, a=0.6, alpha=0.4, b=1.3, beta=0.3, spread=0)
QUIET = Screen(quiet=True)


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "DRAWS", 20)


def base(
    workspace: Workspace, corpus: str, parameters: float, text: float, distinct: float = 1e9, **more: Any
) -> Artifact:
    """A finished base model that came out as `TRUE` says: its corpus, its tokens and itself."""
    about = workspace.make(
        "corpus", corpus, lambda build: {"bytes": distinct}, settings={"corpus": corpus, "bytes": distinct}
    )[0]
    metrics = {"train_bytes": distinct, "bytes_per_token": 4.0}
    tokens = workspace.make("tokens", corpus, lambda build: metrics, inputs={"corpus": about.id})[0]
    bits = TRUE.bits_per_byte(parameters, text, distinct)
    outcome = {
        "parameters": parameters, "tokens": text / 4, "heldout_bits_per_byte": bits,
    } | more.pop("metrics", {})  # fmt: skip
    settings = {"stage": "base", "parameters": parameters, "text": text} | more
    return workspace.make(
        "model", f"{corpus}-base", lambda build: outcome, inputs={"tokens": tokens.id}, settings=settings
    )[0]


def nine(workspace: Workspace, corpus: str = "notes") -> list[Artifact]:
    return [base(workspace, corpus, size, text) for size in (1e6, 4e6, 2e7) for text in (2e6, 1e7, 6e7)]


# ---- points


def test_the_points_of_the_workspace(workspace: Workspace) -> None:
    models = nine(workspace)
    strange = base(workspace, "letters", 1e6, 2e6)
    taught = base(workspace, "notes", 1e6, 3e6, teacher="other")
    blind = base(workspace, "notes", 1e6, 4e6, metrics={"heldout_bits_per_byte": None})
    workspace.make("model", "notes-instructed", lambda build: {}, settings={"stage": "instructed"})
    runs = workspace_points(workspace, None)
    assert runs.corpus == "notes"
    assert set(runs.points) == {model.id for model in models}
    first = runs.points[models[0].id]
    assert (first.parameters, first.read, first.distinct) == (1e6, 2e6, 1e9)
    assert dict(runs.left_out) == {
        strange.label: "read the corpus letters",
        taught.label: "it did not learn from its corpus alone (teacher)",
        blind.label: "its metrics lack parameters, tokens or held-out bits per byte",
    }
    assert set(workspace_points(workspace, "letters").points) == {strange.id}


def test_no_points(workspace: Workspace) -> None:
    with pytest.raises(ArtifactNotFound, match="There are no finished base models to fit a scaling law to"):
        workspace_points(workspace, None)
    base(workspace, "notes", 1e6, 2e6)
    with pytest.raises(ArtifactNotFound, match="No base model was trained on the corpus 'letters'. There are: notes."):
        workspace_points(workspace, "letters")


def test_a_run_whose_tokens_are_gone(workspace: Workspace) -> None:
    models = nine(workspace)
    other = base(workspace, "letters", 1e6, 2e6)
    workspace.remove(workspace.by_id(other.inputs["tokens"]))
    runs = workspace_points(workspace, None)
    assert len(runs.points) == len(models)
    assert runs.left_out == ((other.label, "its tokens were removed"),)


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("\ufeffparameters, bytes,bits_per_byte ,distinct\n1e6,2_000_000,1.5,\n2e6,5e6,1.25,1e6\n", "utf-8")
    first, second = read_points(path)
    assert (first.parameters, first.read, first.distinct, first.bits_per_byte) == (1e6, 2e6, 2e6, 1.5)
    assert (second.distinct, second.name) == (1e6, "line 3")
    write_points(path, [first, second])
    assert read_points(path) == [first, second]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no column parameters: it needs parameters, bytes, bits_per_byte"),
        ("parameters,bytes\n1,2\n", "has no column bits_per_byte"),
        ("parameters,bytes,bits_per_byte,loss\n1,2,3,4\n", "has an unknown column 'loss'"),
        ("parameters,bytes,bits_per_byte\n1e6,many,3\n", "line 2: bytes takes a number above zero, not 'many'"),
        ("parameters,bytes,bits_per_byte\n1e6,1e6,1\n1e6,1e6,-3\n", "line 3: bits_per_byte takes a number above zero"),
        ("parameters,bytes,bits_per_byte\n1e6,inf,1\n", "line 2: bytes takes"),
        ("parameters,bytes,bits_per_byte\n1e6\n", "line 2: bytes takes a number above zero, not ''"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(OwnLMError, match=words) as caught:
        read_points(path)
    assert str(path) in str(caught.value)


def test_a_table_of_bytes(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_bytes(b"\xff\xfe\x00parameters")
    with pytest.raises(OwnLMError, match="cannot be read as a table of points"):
        read_points(tmp_path / "runs.csv")
    with pytest.raises(OwnLMError, match="cannot be read as a table of points"):
        read_points(tmp_path / "nothing.csv")


# ---- the artifact


def test_the_law_is_kept_and_found(workspace: Workspace) -> None:
    nine(workspace)
    artifact = fit_command(workspace, QUIET, None, None)
    assert len(artifact.inputs) == 9
    assert {LAW, POINTS, DRAWING} <= set(artifact.files)
    told = forecaster(artifact)
    assert told.bits_per_byte(3e6, 9e6, 1e9) == pytest.approx(TRUE.at(3e6, 9e6), rel=0.005)
    assert told.beyond is not None and len(told.law.draws) == 20
    assert len(read_points(artifact.path / POINTS)) == 9
    found = find_law(workspace, "notes")
    assert found is not None and found.id == artifact.id
    assert find_law(workspace, "letters") is None
    assert fit_command(workspace, QUIET, None, None).id == artifact.id
    base(workspace, "notes", 4e6, 5e8)
    again = fit_command(workspace, QUIET, None, "notes")
    assert again.id != artifact.id
    found = find_law(workspace, "notes")
    assert found is not None and found.id == again.id


def test_a_table_s_law_is_for_any_corpus_without_its_own(workspace: Workspace, tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    points = [Point(size, text, text, TRUE.at(size, text)) for size in (1e6, 4e6, 2e7) for text in (2e6, 1e7, 6e7)]
    write_points(table, points)
    general = fit_command(workspace, QUIET, table, None)
    nine(workspace)
    own = fit_command(workspace, QUIET, None, "notes")
    assert {name: law.id for name in ("notes", "letters", None) if (law := find_law(workspace, name))} == {
        "notes": own.id, "letters": general.id, None: general.id,
    }  # fmt: skip
    workspace.remove(own)
    found = find_law(workspace, "notes")
    assert found is not None and found.id == general.id


def test_the_drawing_is_a_png(workspace: Workspace) -> None:
    nine(workspace)
    data = (fit_command(workspace, QUIET, None, None).path / DRAWING).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > height > 300


def test_like_sizes_share_a_curve() -> None:
    points = [Point(size, text, text, TRUE.at(size, text)) for size in (1e6, 1.1e6, 9e6, 9.5e6) for text in (1e6, 3e7)]
    dots, curves = laws.drawing(fitting.fit(points))
    assert [len(group.x) for group in dots] == [4, 4]
    assert len(curves) == 2
    for curve in curves:
        assert all(low < value < high for low, value, high in zip(curve.low, curve.y, curve.high, strict=True))


def test_the_command_says_how_far_it_may_be_trusted(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    nine(workspace)
    assert main(["plan", "--fit"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Fitted to 9 runs of 1 to 20 million parameters on 2 to 60 MB." in out
    assert "forecast by the others to within 0.0% on average" in out
    assert "90 % interval" in out and DRAWING in out
    assert main(["plan", "--fit", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["points"] == 9 and told["law"]["alpha"] == pytest.approx(0.4, rel=0.01)


def test_too_few_runs_are_a_sentence_and_leave_nothing(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    base(workspace, "notes", 1e6, 2e6)
    assert main(["plan", "--fit"]) == 2
    assert "cannot be fitted to 1 run" in capsys.readouterr().err
    assert find_law(workspace, "notes") is None
    assert not workspace.artifacts("plan")
    assert not workspace.builds()


def test_a_law_that_was_changed(workspace: Workspace) -> None:
    nine(workspace)
    artifact = fit_command(workspace, QUIET, None, None)
    path = artifact.path / LAW
    path.write_text("x" * path.stat().st_size, "utf-8")
    with pytest.raises(ArtifactDamaged, match="law.json cannot be read .* Fit it again"):
        read_fit(artifact)
