"""`complete` and `chat`: streams, pipes, histories, interruptions."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import pytest

from cli_types import Command, Parrot


class Terminal(io.StringIO):
    """Standard input that somebody types into."""

    def isatty(self) -> bool:
        return True


def pipe(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str | type[BaseException]) -> None:
    """What a person types, line by line; then Ctrl-D."""
    script: Iterator[str | type[BaseException]] = iter(lines)

    def ask(prompt: str = "") -> str:
        line = next(script, EOFError)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", ask)


# ---- complete


def test_complete_prints_the_continuation_alone_into_a_pipe(ownlm: Command, parrot: Parrot) -> None:
    done = ownlm("complete", "parrot", "one two three")
    assert (done.code, done.out, done.err) == (0, "three two one\n", "")


def test_complete_hands_every_parameter_on(ownlm: Command, parrot: Parrot) -> None:
    arguments = "--max-tokens=2 --temperature=0 --top-p=0.5 --top-k=3 --min-p=0.1 --seed=7 --stop=a --stop=b"
    done = ownlm("complete", "parrot", "one two three", *arguments.split(" "))
    assert done.out == "three two\n"
    params = parrot.params[0]
    assert (params.max_tokens, params.temperature, params.top_p, params.top_k) == (2, 0, 0.5, 3)
    assert (params.min_p, params.seed, params.stop) == (0.1, 7, ("a", "b"))


@pytest.mark.parametrize("arguments", [["-"], []])
def test_complete_reads_a_pipe(
    ownlm: Command, parrot: Parrot, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    pipe(monkeypatch, "def f():\n    pass")
    assert ownlm("complete", "parrot", *arguments).code == 0
    assert parrot.asked == ["def f():\n    pass"]


def test_complete_without_a_text(ownlm: Command, parrot: Parrot, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch)
    done = ownlm("complete", "parrot")
    assert done.code == 2
    assert "no text to continue" in done.err


def test_complete_for_programs(ownlm: Command, parrot: Parrot) -> None:
    done = ownlm("complete", "parrot", "one two three", "--max-tokens", 2, "--json")
    assert done.json == {
        "prompt": "one two three", "model": "parrot", "text": "three two", "finish_reason": "length",
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }  # fmt: skip
    assert done.out.count("\n") == 1


def test_a_prompt_that_does_not_fit_names_both_lengths(ownlm: Command, parrot: Parrot) -> None:
    done = ownlm("complete", "parrot", "word " * 65, "--json")
    assert done.code == 2
    assert done.json["error"]["code"] == "context_length_exceeded"
    assert "65 tokens" in done.err
    assert "holds 64" in done.err


def test_an_unknown_model_lists_what_there_is(ownlm: Command, parrot: Parrot) -> None:
    done = ownlm("complete", "parot", "x")
    assert done.code == 2
    assert "'parot' is not known. There is: parrot" in done.err


def test_ctrl_c_keeps_what_there_is(ownlm: Command, parrot: Parrot) -> None:
    parrot.interrupt_after = 1
    done = ownlm("complete", "parrot", "one two three", "--json")
    assert done.code == 0
    assert (done.json["text"], done.json["finish_reason"]) == ("three", "cancelled")
    assert parrot.closed


# ---- chat


def test_chat_answers_one_question_from_a_pipe(ownlm: Command, parrot: Parrot, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, "hello there\n")
    done = ownlm("chat", "parrot", "--system", "Be brief.")
    assert (done.code, done.out) == (0, "there hello\n")
    assert [(each.role, each.text) for each in parrot.asked[0]] == [("system", "Be brief."), ("user", "hello there")]


def test_chat_with_an_empty_pipe(ownlm: Command, parrot: Parrot, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, " \n")
    assert ownlm("chat", "parrot").code == 2


def test_chat_remembers_and_forgets(ownlm: Command, parrot: Parrot, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "one two", "", "three", "/help", "/new", "four", "/exit", "never")
    done = ownlm("chat", "parrot", "--json")
    assert done.code == 0
    assert [len(each) for each in parrot.asked] == [1, 3, 1]
    assert [(each.role, each.text) for each in parrot.asked[1]] == [
        ("user", "one two"), ("assistant", "two one"), ("user", "three"),
    ]  # fmt: skip
    assert [turn["question"] for turn in done.json["turns"]] == ["one two", "three", "four"]


def test_chat_goes_on_after_a_prompt_that_is_too_long(
    ownlm: Command, parrot: Parrot, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "word " * 65, "short")
    done = ownlm("chat", "parrot")
    assert done.code == 0
    assert "65 tokens" in done.err
    assert [len(each) for each in parrot.asked] == [1, 1], "the one that failed is not remembered"


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
def test_chat_ends_quietly(
    ownlm: Command, parrot: Parrot, monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    typed(monkeypatch, "one", end)
    done = ownlm("chat", "parrot")
    assert (done.code, done.err) == (0, "")
