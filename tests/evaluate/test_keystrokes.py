from collections.abc import Sequence

import pytest

from ownlm.data.document import Document
from ownlm.data.message import TextPart
from ownlm.evaluate.keystrokes import Excerpt, advantage, replay, take_excerpts


def document(name: str, text: str) -> Document:
    return Document(name, "g", "MIT", "code", "py", (TextPart(text),))


class Fixed:
    """Proposes what a table says for the last line of the text before the cursor."""

    def __init__(self, table: dict[str, str], name: str = "fixed") -> None:
        self.table, self.name, self.asked = table, name, 0

    def propose(self, prefixes: Sequence[str]) -> list[str]:
        self.asked += len(prefixes)
        return [self.table.get(prefix.rsplit("\n", 1)[-1], "") for prefix in prefixes]


def keys(table: dict[str, str], text: str) -> int:
    return replay(Fixed(table), [Excerpt("s", "code", "", text)]).keys[0]


def test_without_proposals_every_character_is_a_key() -> None:
    assert keys({}, "return x") == 8


def test_a_right_proposal_costs_one_key() -> None:
    assert keys({"": "return x"}, "return x") == 1


def test_the_right_next_word_costs_one_key_and_the_rest_stays_on_show() -> None:
    assert keys({"": "return self.y"}, "return self.x") == 1 + 1 + 1 + 1  # "return", " self", "." and "x" by hand


def test_wrong_and_short_proposals_cost_nothing_and_save_nothing() -> None:
    assert keys({"": "import os", "r": "e"}, "return") == 6


def test_a_proposal_that_agrees_so_far_is_not_asked_for_again() -> None:
    completer = Fixed({"": "abX"})
    assert replay(completer, [Excerpt("s", "code", "", "abc")]).keys == (3,)
    # Asked at the start, then only once "c" has contradicted what was shown: by then the text is complete.
    assert completer.asked == 1


def test_what_stands_before_is_seen_and_not_counted() -> None:
    result = replay(Fixed({"def f(": "x, y):"}), [Excerpt("s", "code", "a\ndef f(", "x, y):")])
    assert result.keys == (1,) and result.characters == (6,)
    assert result.share.value == pytest.approx(5 / 6)


def test_excerpts_are_seeded_begin_lines_and_come_from_different_documents() -> None:
    documents = [document(f"d{i}", "".join(f"line {j} of {i}\n" for j in range(60))) for i in range(9)]
    taken = take_excerpts(documents, seed=1, excerpts=6, characters=100, before=50)
    assert taken == take_excerpts(documents[::-1], seed=1, excerpts=6, characters=100, before=50)
    assert taken != take_excerpts(documents, seed=2, excerpts=6, characters=100, before=50)
    assert len({excerpt.source for excerpt in taken}) == 6
    for excerpt in taken:
        whole = next(each.text for each in documents if each.source == excerpt.source)
        assert excerpt.before + excerpt.text in whole and len(excerpt.text) == 100
        assert excerpt.text.startswith("line") and (not excerpt.before or excerpt.before.endswith("\n"))


def test_few_or_short_documents() -> None:
    assert len(take_excerpts([document("d", "x = 1\n" * 100)], seed=0, excerpts=5)) == 5
    assert [each.text for each in take_excerpts([document("d", "x = 1")], seed=0, excerpts=1)] == ["x = 1"]
    assert take_excerpts([document("d", "")], seed=0) == []


def test_the_advantage_is_paired() -> None:
    excerpts = [Excerpt("s", "code", "", "return x")] * 4
    good, none = replay(Fixed({"": "return x"}, "good"), excerpts), replay(Fixed({}, "none"), excerpts)
    found = advantage(good, none)
    assert found.value == pytest.approx(7 / 8) and found.excludes(0)
