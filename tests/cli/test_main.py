"""The command itself: help, errors as one sentence, exit codes, JSON everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import pytest

from cli_types import Command, Parrot
from ownlm.cli.verbs import VERBS
from ownlm.runtime.errors import Interrupted


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


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("data", "tokenizer")])
def test_every_verb_takes_the_shared_options(ownlm: Command, verb: str) -> None:
    done = ownlm(verb, "--help")
    assert done.code == 0
    for option in ("--json", "--quiet", "--debug", "--help"):
        assert option in done.out


@pytest.mark.parametrize("group", ["data", "tokenizer"])
def test_groups_pass_the_shared_options_on(ownlm: Command, group: str) -> None:
    assert "show" in ownlm(group, "--help").out
    assert "--json" in ownlm(group, "show", "--help").out
    assert ownlm(group).code in (0, 2)


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


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "ownlm", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["next"] == "ownlm demo"
