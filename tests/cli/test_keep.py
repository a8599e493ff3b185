"""What is here: the overview, `ls`, `show`, `lineage`, `verify`, `rm`, `data`, `doctor`."""

from __future__ import annotations

import io
import json
import os
from typing import Any

import pytest

from cli_types import Command
from ownlm.runtime.errors import PortInUse
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build, Workspace


def make(workspace: Workspace, kind: str, name: str, inputs: dict[str, str] | None = None, **metrics: Any) -> Artifact:
    def build(job: Build) -> dict[str, Any]:
        (job.folder / "file.txt").write_text(f"{kind} {name}", "utf-8")
        return metrics

    return workspace.make(kind, name, build, inputs=inputs, settings={"stage": "base"})[0]


@pytest.fixture
def chain(workspace: Workspace) -> dict[str, Artifact]:
    """corpus -> tokenizer, tokens -> model, with an alias."""
    corpus = make(workspace, "corpus", "demo", documents=3, bytes=1200, licences={"MIT": 1200}, kinds={"code": 1200})
    tokenizer = make(workspace, "tokenizer", "demo", {"corpus": corpus.id})
    tokens = make(workspace, "tokens", "demo", {"corpus": corpus.id, "tokenizer": tokenizer.id})
    model = make(workspace, "model", "demo-base", {"tokens": tokens.id}, parameters=1000, heldout_bits_per_byte=1.234)
    workspace.point("first-model", model)
    return {"corpus": corpus, "tokenizer": tokenizer, "tokens": tokens, "model": model}


def test_an_empty_place_sends_to_the_demo(ownlm: Command) -> None:
    done = ownlm()
    assert done.code == 0
    assert "nothing built yet" in done.out
    assert "Next: ownlm demo" in done.out


def test_the_overview_names_models_and_the_next_step(ownlm: Command, chain: dict[str, Artifact]) -> None:
    done = ownlm()
    assert "demo-base (first-model)" in done.out
    assert "1.23" in done.out
    assert "Next: ownlm chat first-model" in done.out
    assert ownlm("--json").json["aliases"] == {"first-model": chain["model"].id}


def test_the_overview_shows_what_is_running(ownlm: Command, workspace: Workspace) -> None:
    workspace.root.mkdir()
    stages = [
        {"name": "corpus", "state": "done", "sentence": "3 documents", "seconds": 2.5},
        {"name": "pretrain", "state": "running", "sentence": "", "seconds": None},
    ]
    progress = {"recipe": "demo", "pid": os.getpid(), "stage": "pretrain", "stages": stages, "minutes": 8}
    (workspace.root / "progress.json").write_text(json.dumps(progress), "utf-8")
    done = ownlm()
    assert "Running now\ndemo: pretrain\n" in done.out
    assert "✓ corpus: 3 documents (2.5 s)" in done.out
    (workspace.root / "progress.json").write_text(json.dumps({**progress, "pid": 2**22 + 1}), "utf-8")
    assert "Running now" not in ownlm().out
    (workspace.root / "progress.json").write_text("[]", "utf-8")
    assert ownlm().code == 0


def test_the_overview_tells_of_what_was_cut_off(ownlm: Command, workspace: Workspace) -> None:
    folder = workspace.root / ".building" / "model-first-0123" / "run-state"
    folder.mkdir(parents=True)
    build = {"kind": "model", "name": "first", "id": "0123", "pid": 2**22 + 1, "started": "2001-01-01T00:00:00+00:00"}
    (folder / "build.json").write_text(json.dumps(build), "utf-8")
    done = ownlm()
    assert "Cut off\nmodel first-0123" in done.out
    assert "goes on where it stopped" in done.out
    progress = {"recipe": "notes", "command": ["demo", "notes", "--minutes", "30"], "pid": 2**22 + 1, "stage": None,
                "stages": [{"name": "Pre-training", "state": "running"}], "minutes": 30}  # fmt: skip
    (workspace.root / "progress.json").write_text(json.dumps(progress), "utf-8")
    assert "Next: ownlm demo notes --minutes 30  (goes on where it stopped)" in ownlm().out
    assert ownlm("--json").json["cut_off"][0]["id"] == "0123"
    make(workspace, "model", "later")
    done = ownlm()
    assert "Cut off" not in done.out, "it was given up"
    assert "Next: ownlm chat later" in done.out


def test_ls(ownlm: Command, chain: dict[str, Artifact]) -> None:
    done = ownlm("ls")
    assert all(artifact.id in done.out for artifact in chain.values())
    assert [each["kind"] for each in ownlm("ls", "models", "--json").json["artifacts"]] == ["model"]
    assert "There is no report" in ownlm("ls", "report").out


def test_show(ownlm: Command, chain: dict[str, Artifact]) -> None:
    done = ownlm("show", "first-model")
    assert chain["tokens"].id in done.out
    assert "file.txt" in done.out
    assert ownlm("show", "first-model", "--json").json["metrics"]["parameters"] == 1000


def test_lineage(ownlm: Command, chain: dict[str, Artifact], workspace: Workspace) -> None:
    done = ownlm("lineage", "first-model")
    expected = [
        f"model {chain['model'].label}",
        f"└─ tokens: tokens {chain['tokens'].label}",
        f"   ├─ corpus: corpus {chain['corpus'].label}",
        f"   └─ tokenizer: tokenizer {chain['tokenizer'].label}",
        f"      └─ corpus: corpus {chain['corpus'].label}",
    ]
    assert done.out.splitlines()[:5] == expected
    workspace.remove(chain["corpus"])
    assert f"{chain['corpus'].id} (no longer here)" in ownlm("lineage", "first-model").out


def test_verify(ownlm: Command, chain: dict[str, Artifact]) -> None:
    assert "is whole: 1 files" in ownlm("verify", "first-model").out
    (chain["model"].path / "file.txt").write_text("model demo-basE", "utf-8")
    done = ownlm("verify", "first-model", "--json")
    assert done.code == 2
    assert done.json["error"]["code"] == "artifact_damaged"


def test_rm_refuses_while_others_need_it(ownlm: Command, chain: dict[str, Artifact]) -> None:
    done = ownlm("rm", chain["tokens"].id, "--yes")
    assert done.code == 2
    assert chain["model"].label in done.err
    assert chain["tokens"].path.exists()
    assert ownlm("rm", chain["tokens"].id, "--yes", "--force").code == 0
    assert not chain["tokens"].path.exists()


def test_rm_asks(ownlm: Command, chain: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert "add --yes" in ownlm("rm", "first-model").err
    assert chain["model"].path.exists()

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    for answer, gone in ((False, False), (True, True)):
        monkeypatch.setattr("typer.confirm", lambda *_, answer=answer, **__: answer)
        assert ownlm("rm", "first-model").code == 0
        assert chain["model"].path.exists() is not gone


def test_data_show(ownlm: Command, chain: dict[str, Artifact]) -> None:
    done = ownlm("data", "show")
    assert "3 documents, 1.2 kB" in done.out
    assert "MIT" in done.out
    assert ownlm("data", "show", "demo", "--json").json["id"] == chain["corpus"].id
    assert ownlm("data", "show", "first-model").code == 2


def test_data_show_without_any(ownlm: Command) -> None:
    done = ownlm("data", "show")
    assert done.code == 2
    assert "There is no corpus" in done.err


def test_doctor(ownlm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownlm.cli.doctor.matmul_gflops", lambda *_: 50.0)
    done = ownlm("doctor", "--json")
    assert done.code == 0
    found = {each["name"]: each for each in done.json["findings"]}
    assert set(found) >= {
        "system", "cores", "device", "matmul float32", "matmul bfloat16", "compiler", "browser", "port", "workspace",
        "disk", "versions",
    }  # fmt: skip
    assert found["matmul float32"]["figures"] == {"gflops": 50.0}


def test_the_doctor_measures() -> None:
    import torch

    from ownlm.cli.doctor import matmul_gflops

    assert 0.01 < matmul_gflops("cpu", torch.float32, seconds=0.05) < 1e6


def test_the_doctor_finds_a_taken_port() -> None:
    import socket

    from ownlm.cli.doctor import port

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        [finding] = port(taken.getsockname()[1])
    assert finding.good is False
    assert "ownlm serve --port" in finding.value


def test_the_doctor_asks_for_the_port_as_the_server_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows a port is asked for in another way: one function knows which."""
    from ownlm.cli.doctor import port

    def listen(host: str, number: int) -> None:
        raise PortInUse(f"{host}:{number} is taken.")

    monkeypatch.setattr("ownlm.serve.run.listen", listen)
    [finding] = port(0)
    assert (finding.good, finding.value) == (False, "127.0.0.1:0 is taken.")
