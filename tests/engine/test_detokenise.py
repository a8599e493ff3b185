import random

import pytest

from ownlm.data.foreign_tokenizer_decoder import Utf8Decoder
from ownlm.engine.detokenise import TextAssembler

TEXT = "naïve 🙂👩‍🚀 日本語 STOP and on\n"


def assemble(data: bytes, size: int, stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    """The pieces from tokens of `size` bytes, and whether a stop string was met."""
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    assembler, pieces = TextAssembler(Utf8Decoder(chunks.__getitem__), stop), []
    for token in range(len(chunks)):
        pieces.append(assembler.add(token))
        if assembler.stopped:
            break
    pieces.append(assembler.finish())
    return pieces, assembler.stopped


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_no_piece_ends_inside_a_character(size: int) -> None:
    pieces, stopped = assemble(TEXT.encode(), size)
    assert "".join(pieces) == TEXT and not stopped
    assert not any("\ufffd" in piece for piece in pieces)


def test_broken_bytes_become_replacement_characters() -> None:
    data = random.Random(0).randbytes(300) + "é".encode()[:1]
    for size in (1, 7):
        assert "".join(assemble(data, size)[0]) == data.decode("utf-8", "replace")


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("stop", "answer"),
    [
        (("STOP",), "naïve 🙂👩‍🚀 日本語 "),
        (("nowhere",), TEXT),
        (("on\n", "STOP and"), "naïve 🙂👩‍🚀 日本語 "),
        (("🙂👩",), "naïve "),
        (("\n",), TEXT[:-1]),
        (("\n!",), TEXT),
        ((TEXT,), ""),
    ],
)
def test_a_stop_string_is_not_in_the_answer(size: int, stop: tuple[str, ...], answer: str) -> None:
    pieces, stopped = assemble(TEXT.encode(), size, stop)
    assert "".join(pieces) == answer
    assert stopped == (answer != TEXT)


def test_only_what_may_begin_a_stop_string_is_held_back() -> None:
    assembler = TextAssembler(Utf8Decoder(lambda token: bytes([token])), ("ab!", "bc"))
    assert [assembler.add(ord(c)) for c in "xaab?b"] == ["x", "", "a", "", "ab?", ""]
    assert assembler.finish() == "b"


def test_stop_strings_equal_a_search_in_the_whole_text() -> None:
    chance = random.Random(3)
    for _ in range(500):
        text = "".join(chance.choices("abc", k=chance.randrange(1, 12)))
        stop = tuple("".join(chance.choices("abc", k=chance.randrange(1, 4))) for _ in range(2))
        pieces, stopped = assemble(text.encode(), 1, stop)
        # One character at a time: the stop string that ends first ends the answer.
        ends = [(text.find(each) + len(each), text.find(each)) for each in stop if each in text]
        end = min(ends)[0] if ends else None
        begin = min((start for finish, start in ends if finish == end), default=None)
        assert "".join(pieces) == text[:begin]
        assert stopped == bool(ends)
