"""Bad input gets one clear sentence and exit code 2, and no traceback: each case through the command or over HTTP.

| bad input                                | tested here                      | and inside the rooms             |
|------------------------------------------|----------------------------------|----------------------------------|
| an empty corpus                          | `test_an_empty_folder`           | data/test_corpus                 |
| an unreadable corpus                     | `test_nothing_readable`          | data/test_corpus                 |
| undecodable bytes: counted, not fatal    | `test_undecodable_bytes`         | data/test_corpus                 |
| a Python without its library's sources   | `test_no_library_sources`        | recipe/kits/python/test_sources  |
| a recipe with a misspelt key             | `test_a_misspelt_key`            | recipe/test_schema               |
| a budget too small for anything          | `test_a_budget_too_small`        | recipe/test_planner              |
| a full disk                              | `test_a_full_disk`               | store/test_workspace             |
| an artifact that another run is building | `test_another_run_builds_it`     | store/test_workspace             |
| a truncated or tampered artifact         | `test_a_damaged_artifact`        | store/test_artifact              |
| a port in use                            | `test_a_port_in_use`             | serve/test_run                   |
| a prompt longer than the context         | `test_a_prompt_that_is_too_long` | serve/test_errors, cli/test_use  |
| an unknown model name                    | `test_an_unknown_model`          | engine/test_open                 |
"""

from __future__ import annotations

import errno
import functools
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import tiny
from cli_types import Done
from ownlm.cli.main import main
from ownlm.data.corpus import SKIPPED
from ownlm.model.files import save_model
from ownlm.runtime.errors import BudgetError
from ownlm.serve.app import create_app
from ownlm.serve.models import ModelSet
from ownlm.serve.settings import ServeSettings
from ownlm.store.workspace import Build, Workspace
from server_types import serving
from small_run import write_documents

Ownlm = Callable[..., Done]


@pytest.fixture
def ownlm(capsys: pytest.CaptureFixture[str]) -> Ownlm:
    """Calls `ownlm ARGUMENTS...` in this process."""

    def call(*arguments: object) -> Done:
        capsys.readouterr()
        code = main([str(each) for each in arguments])
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    return write_documents(tmp_path / "documents")


@pytest.fixture(autouse=True)
def _nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that comes as far as its plan stops there, with a sentence of its own."""

    def make_plan(*_: Any) -> None:
        raise BudgetError("The plan was reached.")

    monkeypatch.setattr("ownlm.recipe.planner.make_plan", make_plan)


def one_sentence(done: Done, *words: str) -> None:
    """Exit code 2, one line that holds the words, and no traceback."""
    assert done.code == 2, done.err
    assert done.err.startswith("Error: ")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err + done.out
    for word in words:
        assert word in done.err


def save_tiny(job: Build) -> dict[str, Any]:
    save_model(job.folder, tiny.decoder(), tiny.tokenizer())
    return {"context": 64}


# ---- the corpus


def test_an_empty_folder(ownlm: Ownlm, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    one_sentence(ownlm("demo", tmp_path / "empty", "--yes"), "There is nothing readable in", "empty", "Name a folder")
    one_sentence(ownlm("demo", tmp_path / "missing", "--yes"), "missing is not a folder")


def test_nothing_readable(ownlm: Ownlm, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"\xff\xd8" * 99)
    (folder / "b.py").write_bytes(b"\x00\x01" * 99)
    (folder / "c.md").write_bytes("Grüße ".encode("latin-1") * 99)
    done = ownlm("demo", folder, "--yes")
    one_sentence(done, "There is nothing readable in", "What was left out", "binary: 1", "not UTF-8")


def test_undecodable_bytes(ownlm: Ownlm, documents: Path, workspace: Workspace) -> None:
    (documents / "latin.md").write_bytes("Grüße ".encode("latin-1") * 99)
    done = ownlm("demo", documents, "--yes")
    one_sentence(done, "The plan was reached.")
    assert "Read 16 documents" in done.out
    assert "1 files were left out, each with its reason" in done.out
    corpus = workspace.resolve("first-model", ("corpus",))
    assert corpus.metrics["undecodable"] == 1
    listed = [json.loads(line) for line in (corpus.path / SKIPPED).read_text("utf-8").splitlines()]
    assert [each["source"] for each in listed] == ["documents:latin.md"]
    assert "not UTF-8" in listed[0]["reason"]


def test_no_library_sources(ownlm: Ownlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ownlm.recipe.kits.python import sources

    bare = functools.partial(sources.library_sources, tmp_path / "lib")
    monkeypatch.setattr(sources, "library_sources", bare)
    one_sentence(ownlm("demo", "--yes"), "no sources of its standard library", "ownlm demo DIR")


# ---- what to do with it


def test_a_misspelt_key(ownlm: Ownlm, documents: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"sources: {documents}\ncorpus:\n  heldotu: 0.1\n", "utf-8")
    one_sentence(ownlm("run", recipe), f"{recipe}, line 3: unknown key 'heldotu'; did you mean 'heldout'?")


@pytest.mark.parametrize("minutes", ["0.5", "0", "-1", "nan", "inf"])
def test_a_budget_too_small(ownlm: Ownlm, documents: Path, workspace: Workspace, minutes: str) -> None:
    one_sentence(ownlm("demo", documents, "--yes", "--minutes", minutes), "minutes are no budget", "Try --minutes 2")
    assert not workspace.root.exists()


# ---- the disk


@pytest.mark.parametrize("function", ["os.fsync", "pyarrow.parquet.ParquetWriter.write_table"])
def test_a_full_disk(
    ownlm: Ownlm, documents: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(function, full)
        one_sentence(ownlm("demo", documents, "--yes"), "is full", "Free some space and run the same command again")
    assert workspace.artifacts() == []
    one_sentence(ownlm("demo", documents, "--yes"), "The plan was reached.")
    assert [each.kind for each in workspace.artifacts()] == ["corpus"]


def test_another_run_builds_it(ownlm: Ownlm, documents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While this process makes the plan, another one comes to the same."""
    others: list[Done] = []

    def make_plan(*_: Any) -> None:
        command = [sys.executable, "-m", "ownlm", "demo", str(documents), "--yes"]
        done = subprocess.run(command, capture_output=True, text=True)
        others.append(Done(done.returncode, done.stdout, done.stderr))
        raise BudgetError("The plan was reached.")

    monkeypatch.setattr("ownlm.recipe.planner.make_plan", make_plan)
    one_sentence(ownlm("demo", documents, "--yes"), "The plan was reached.")
    one_sentence(others[0], "Another process is building the plan first-model-", "Wait for it, or stop it")


@pytest.mark.parametrize("damage", ["cut", "change"])
def test_a_damaged_artifact(ownlm: Ownlm, documents: Path, workspace: Workspace, damage: str) -> None:
    ownlm("demo", documents, "--yes")
    corpus = workspace.resolve("first-model", ("corpus",))
    model = workspace.make("model", "small", save_tiny)[0]
    for file in (corpus.path / "documents.parquet", model.path / "model.safetensors"):
        content = file.read_bytes()
        file.write_bytes(content[:-9] if damage == "cut" else content[:-9] + b"tampered!")
    said = "cut short or changed" if damage == "cut" else "its SHA-256 differs"
    one_sentence(ownlm("demo", documents, "--yes"), "documents.parquet", said, f"ownlm rm {corpus.id}")
    one_sentence(ownlm("verify", model.id), "model.safetensors", said, f"ownlm rm {model.id}")
    one_sentence(ownlm("complete", "small", "def"), "model.safetensors", said)


# ---- using a model


def test_a_port_in_use(ownlm: Ownlm, workspace: Workspace) -> None:
    workspace.make("model", "small", save_tiny)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        one_sentence(ownlm("serve", "small", "--no-studio", "--port", port), f"Port {port} is in use", "Try a free one")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_a_prompt_that_is_too_long(workspace: Workspace, path: str, stream: bool) -> None:
    model = tiny.model()
    app = create_app(
        ModelSet(["tiny"], workspace, lambda *_: model), workspace, ServeSettings(host="127.0.0.1", port=0)
    )
    long = "The quick brown fox jumps over the lazy dog. " * 20
    asked = {"prompt": long} if path == "completions" else {"messages": [{"role": "user", "content": long}]}
    count = model.count_tokens(long) if path == "completions" else None
    with serving(app) as url:
        answer = httpx.post(f"{url}/v1/{path}", json={"model": "tiny", "stream": stream, **asked}, timeout=20)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert f"The prompt has {count or ''}" in error["message"]
    assert "context holds 64" in error["message"]


@pytest.mark.parametrize(
    "command",
    [
        ("complete", "smal", "def"), ("chat", "smal"), ("serve", "smal"), ("report", "smal"), ("show", "smal"),
        ("lineage", "smal"), ("verify", "smal"), ("complete", "no/such/folder", "def"),
    ],
)  # fmt: skip
def test_an_unknown_model(
    ownlm: Ownlm, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello"))
    workspace.make("model", "small", save_tiny)
    one_sentence(ownlm(*command), f"'{command[1]}' is not known", "small")
