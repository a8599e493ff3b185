"""Files of preference pairs: read back as written; a bad line is named by its number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from ownlm.align.preferences import PreferencePair, encode_pairs, read_pairs
from ownlm.data.chat_format import ChatFormat
from ownlm.data.message import Message
from ownlm.runtime.errors import OwnLMError

PROMPT = [{"role": "user", "content": "Which?"}]
GOOD = {"prompt": PROMPT, "chosen": "this", "rejected": "that"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pairs.jsonl"


def write(path: Path, *lines: Any) -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)) + "\n" for line in lines)
    path.write_text(text, "utf-8")
    return path


def test_what_is_written_is_read_back(path: Path) -> None:
    pair = PreferencePair(
        (Message.of("system", "Be short."), Message.of("user", "Which?")), "this", "that", {"session": 3, "seed": 1}
    )
    assert read_pairs(write(path, pair.to_json(), "", "   ", pair.to_json())) == [pair, pair]


def test_every_sort_of_line_break_inside_an_answer(path: Path) -> None:
    """JSON may hold U+2028 and U+0085 as they are; only a newline ends a line of the file."""
    answer = "one\u2028two\u0085three\nfour\x0c"
    assert read_pairs(write(path, {**GOOD, "chosen": answer}))[0].chosen == answer


def test_windows_line_ends(path: Path) -> None:
    path.write_bytes((json.dumps(GOOD) + "\r\n").encode() * 2)
    assert len(read_pairs(path)) == 2


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{not json", "Expecting property name"),
        ("[1, 2]", "a pair is a JSON object"),
        ("5", "a pair is a JSON object"),
        ("null", "a pair is a JSON object"),
        ("[" * 100_000, "recursion"),
        ({"prompt": PROMPT, "chosen": "this"}, "a pair needs prompt"),
        ({**GOOD, "prompt": "Which?"}, "a pair needs prompt"),
        ({**GOOD, "prompt": []}, "the prompt is empty"),
        ({**GOOD, "prompt": ["Which?"]}, "a pair needs prompt"),
        ({**GOOD, "prompt": [{"role": "robot", "content": "x"}]}, "role must be one of"),
        ({**GOOD, "rejected": 3}, "a pair needs prompt"),
        ({**GOOD, "rejected": ""}, "an answer is empty"),
        ({**GOOD, "chosen": " \n"}, "an answer is empty"),
        ({**GOOD, "rejected": "this"}, "both answers are the same"),
    ],
)
def test_a_bad_line_is_named_by_its_number(path: Path, line: Any, fault: str) -> None:
    with pytest.raises(OwnLMError, match=fault) as caught:
        read_pairs(write(path, GOOD, "", line, GOOD))
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert caught.value.exit_code == 2


def test_files_without_any_pair(path: Path) -> None:
    with pytest.raises(OwnLMError, match="cannot be read"):
        read_pairs(path)
    with pytest.raises(OwnLMError, match="holds no preference pair"):
        read_pairs(write(path, "", "  "))
    path.write_bytes(b'{"prompt": "\xff"}\n')
    with pytest.raises(OwnLMError, match="is not UTF-8 text"):
        read_pairs(path)


def test_both_sides_are_encoded_with_their_answers_marked() -> None:
    pair = PreferencePair((Message.of("user", "Which?"),), "return first", "no")
    encoded, left_out = encode_pairs([pair], tiny.tokenizer(), ChatFormat(), 64)
    assert left_out == 0
    for side, answer in ((encoded[0].chosen, "return first"), (encoded[0].rejected, "no")):
        marked = [token for token, learnt in zip(side.ids, side.learnt, strict=True) if learnt]
        assert tiny.tokenizer().decode(marked) == answer + "<|im_end|>"
    prompt = ChatFormat().encode(tiny.tokenizer(), pair.prompt, add_generation_prompt=True)[0]
    assert encoded[0].chosen.ids[: len(prompt)] == encoded[0].rejected.ids[: len(prompt)] == prompt


def test_a_pair_with_one_long_side_is_left_out_and_counted() -> None:
    short = PreferencePair((Message.of("user", "Which?"),), "this", "that")
    long = [PreferencePair(short.prompt, *sides) for sides in (("this", "that " * 60), ("this " * 60, "that"))]
    encoded, left_out = encode_pairs([long[0], short, long[1]], tiny.tokenizer(), ChatFormat(), 64)
    assert (len(encoded), left_out) == (1, 2)
