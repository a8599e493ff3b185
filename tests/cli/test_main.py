"""The command itself: help, errors as one sentence, exit codes, JSON everywhere."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from cli_types import Command, Parrot
from ownlm.cli.main import speak_utf8
from ownlm.cli.verbs import VERBS
from ownlm.runtime.errors import ArtifactNotFound, Interrupted


def failing(error: BaseException) -> object:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


def test_every_verb_has_its_file_and_a_command() -> None:
    for verb, (file, summary) in VERBS.items():
        module = import_module(f"ownlm.cli.{file}")
        assert hasattr(module, "command") or hasattr(module, "app"), verb
        assert len(summary) < 70
        assert summary[0].islower() or summary.startswith("an "), "a phrase, not a sentence"


def test_help_lists_every_verb(ownlm: Command) -> None:
    for option in ("--help", "-h"):
        done = ownlm(option)
        assert done.code == 0
        for verb in VERBS:
            assert f"\n  {verb} " in done.out


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("adapter", "data", "tokenizer")])
def test_every_verb_takes_the_shared_options(ownlm: Command, verb: str) -> None:
    done = ownlm(verb, "--help")
    assert done.code == 0
    for option in ("--json", "--quiet", "--debug", "--help"):
        assert option in done.out


@pytest.mark.parametrize(("group", "inside"), [("adapter", "merge"), ("data", "show"), ("tokenizer", "show")])
def test_groups_pass_the_shared_options_on(ownlm: Command, group: str, inside: str) -> None:
    assert inside in ownlm(group, "--help").out
    assert "--json" in ownlm(group, inside, "--help").out
    assert ownlm(group).code in (0, 2)


@pytest.mark.parametrize("arguments", [["ls"], ["show", "nothing"], ["data", "show"], ["complete", "parrot", "a b"]])
def test_shared_options_may_stand_before_the_command(ownlm: Command, parrot: Parrot, arguments: list[str]) -> None:
    after = ownlm(*arguments, "--json")
    assert ownlm("--json", *arguments) == after
    assert after.json
    assert ownlm("--quiet", *arguments).out == ownlm(*arguments, "--quiet").out
    assert ownlm("-q", "--json", "ls").json == {"artifacts": []}


def test_debug_before_the_command(ownlm: Command) -> None:
    with pytest.raises(ArtifactNotFound):
        ownlm("--debug", "show", "nothing")


def test_version(ownlm: Command) -> None:
    import ownlm as package

    assert ownlm("--version").out.strip() == package.__version__


@pytest.mark.parametrize(("typed", "meant"), [("serv", "serve"), ("complet", "complete"), ("evla", "eval")])
def test_an_unknown_command_tells_the_nearest(ownlm: Command, typed: str, meant: str) -> None:
    done = ownlm(typed)
    assert done.code == 2
    assert f"Error: There is no command '{typed}'. Did you mean '{meant}'?" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"], ["ls", "--colour"], ["complete"], ["complete", "x", "y", "--max-tokens", "many"],
        ["show"], ["show", "nothing"], ["ls", "modle"], ["data", "shwo"], ["run", "missing.yaml"],
        ["eval", "m", "missing.yaml"], ["align", "m", "--pairs", "missing.jsonl"], ["demo", "missing-folder"],
        ["complete", "x", "y", "--temperature", "-1"], ["chat", "x", "--top-p", "2"],
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_two(ownlm: Command, arguments: list[str]) -> None:
    done = ownlm(*arguments)
    assert done.code == 2
    assert done.err.startswith("Error: ")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    assert done.out == ""
    told = ownlm(*arguments, "--json")
    assert told.code == 2
    assert set(told.json["error"]) == {"code", "message"}
    assert f"Error: {told.json['error']['message']}\n" == told.err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (Interrupted(143, "Saved at step 40; the same command goes on."), 143, "Stopped: Saved at step 40"),
        (Interrupted(130, "Saved."), 130, "Stopped: Saved."),
        (KeyboardInterrupt(), 130, "Stopped"),
        (PermissionError(13, "Permission denied", "/there"), 2, "Error: /there: Permission denied."),
        (ZeroDivisionError("division by zero"), 1, "Error: Something unexpected happened: ZeroDivisionError"),
    ],
)
def test_how_a_command_can_end(
    ownlm: Command, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    monkeypatch.setattr("ownlm.store.workspace.Workspace.artifacts", failing(error))
    done = ownlm("ls")
    assert done.code == code
    assert words in done.err
    assert "Traceback" not in done.err
    assert "error" in ownlm("ls", "--json").json


def test_debug_shows_the_traceback(ownlm: Command) -> None:
    done = subprocess.run([sys.executable, "-m", "ownlm", "show", "x", "--debug"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "ArtifactNotFound" in done.stderr


def test_an_option_after_two_dashes_is_text(ownlm: Command, parrot: Parrot) -> None:
    assert ownlm("complete", "parrot", "--", "--json").out == "--json\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no head there")
def test_a_reader_that_has_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "ownlm", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) in (0, 1)


def test_a_pipe_carries_every_letter_whatever_the_system_writes(tmp_path: Path) -> None:
    """As on Windows, where pipes are cp1252."""
    home = tmp_path / "модель ✓"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "OWNLM_HOME": str(home)}
    for command in (["ls"], ["show", "имя"], ["--json", "show", "имя"]):
        done = subprocess.run([sys.executable, "-m", "ownlm", *command], capture_output=True, env=environment)
        assert done.returncode == (0 if command == ["ls"] else 2), done.stderr
        assert "Traceback" not in done.stderr.decode("utf-8")
        assert ("модель ✓" if command == ["ls"] else "имя") in (done.stdout + done.stderr).decode("utf-8")


def test_streams_are_read_and_written_as_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    given, out = io.TextIOWrapper(io.BytesIO("✓".encode()), "cp1252"), io.BytesIO()
    monkeypatch.setattr(sys, "stdin", given)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "cp1252"))
    speak_utf8()
    assert given.read() == "✓"
    print("✓ \ud800", end="", flush=True)
    assert out.getvalue() == "✓ ?".encode()
    speak_utf8()  # it was read from before: it stays as it is


def test_a_terminal_keeps_its_letters_and_shows_a_mark_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", Terminal(out, "cp1252"))
    speak_utf8()
    print("é ✓", end="", flush=True)
    assert out.getvalue() == b"\xe9 ?"


@pytest.mark.parametrize("verb", ["align", "report"])
def test_what_takes_models_of_the_workspace_only_promises_no_others(ownlm: Command, verb: str) -> None:
    told = " ".join(ownlm(verb, "--help").out.split())
    assert "A model of this workspace" in told
    assert "hf:" not in told
    assert "openai:" not in told


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "ownlm", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["next"] == "ownlm demo"
