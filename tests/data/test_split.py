"""Holding out: whole components, near the share, nothing shared with the training part."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np

from ownlm.data.document import Document
from ownlm.data.message import TextPart
from ownlm.data.split import SHARED, join, leaking, split, windows


def document(name: str, text: str, group: str | None = None, kind: str = "code") -> Document:
    return Document(name, group or name, "MIT", kind, "py", (TextPart(text),))


def lines(seed: object, count: int) -> str:
    chance = random.Random(str(seed))
    return "".join(f"value_{chance.random()} = {chance.random()}\n" for _ in range(count))


def corpus(groups: int = 120, files: int = 3) -> list[Document]:
    made = []
    for g in range(groups):
        for f in range(files):
            kind = "prose" if g % 10 == 0 else "code"
            made.append(document(f"g{g}/f{f}", lines((g, f), 30 + 10 * f), f"g{g}", kind))
    return made


def test_windows_ignore_indentation_brackets_and_licence_comments() -> None:
    code = lines(1, 12)
    indented = "".join(f"    {line}\n    )\n" for line in code.splitlines())
    assert np.array_equal(windows(code), windows(indented))
    assert np.array_equal(windows(code), windows("# Licensed to you\n# under terms\n\n" + code))
    assert not np.array_equal(windows(code), windows(lines(2, 12)))
    assert len(windows(code)) == 8
    assert len(windows("one line\nand two\n")) == 1
    assert len(windows("")) == 0


def test_windows_depend_on_the_order_of_lines() -> None:
    forward, backward = "alpha\nbravo\ncharlie\ndelta\necho\n", "echo\ndelta\ncharlie\nbravo\nalpha\n"
    assert windows(forward)[0] != windows(backward)[0]


def test_split_holds_out_whole_groups_of_both_kinds_near_the_share() -> None:
    documents = corpus()
    result = split(documents, 0.05, 0)
    assert result.unit == "group"
    total = sum(d.bytes for d in documents)
    held = sum(documents[i].bytes for i in result.heldout)
    assert 0.04 < held / total < 0.08
    assert {documents[i].kind for i in result.heldout} == {"code", "prose"}
    groups = {documents[i].group for i in result.heldout}
    assert all((d.group in groups) == (i in result.heldout) for i, d in enumerate(documents))


def test_split_depends_on_the_seed_and_on_nothing_else() -> None:
    documents = corpus()
    assert split(documents, 0.05, 1) == split(documents, 0.05, 1)
    assert split(documents, 0.05, 1).heldout != split(documents, 0.05, 2).heldout
    turned = documents[::-1]
    names = {turned[i].source for i in split(turned, 0.05, 1).heldout}
    assert names == {documents[i].source for i in split(documents, 0.05, 1).heldout}


def test_groups_that_share_code_are_held_out_together_or_not_at_all() -> None:
    shared = lines("shared", 20)
    documents = corpus()
    copies = [document(f"c{n}", lines(n, 30) + shared, f"c{n}") for n in range(4)]
    documents += copies
    components = join([d.group for d in documents], [windows(d.text) for d in documents])
    together = next(c for c in components if len(documents) - 1 in c)
    assert set(range(len(documents) - 4, len(documents))) <= set(together)
    for seed in range(8):
        heldout = split(documents, 0.05, seed).heldout
        assert len({index in heldout for index in range(len(documents) - 4, len(documents))}) == 1


def test_no_heldout_document_shares_windows_with_training() -> None:
    chance = random.Random(3)
    passages = [lines(("p", n), 8) for n in range(30)]
    documents = [
        document(f"d{n}", lines(n, 25) + "".join(chance.sample(passages, chance.choice([0, 0, 0, 1]))), f"g{n // 2}")
        for n in range(200)
    ]
    for seed in range(4):
        result = split(documents, 0.05, seed)
        assert result.heldout
        training = [windows(d.text) for i, d in enumerate(documents) if i not in result.heldout | result.dropped]
        seen = np.unique(np.concatenate(training))
        for index in result.heldout:
            assert np.isin(windows(documents[index].text), seen).sum() < SHARED


def test_leaking_finds_what_joining_missed() -> None:
    passage = lines("p", 12)
    sets = [windows(passage), windows(lines(1, 12)), windows(lines(2, 12) + passage)]
    assert leaking(sets, frozenset({0, 1})) == {0}
    assert leaking(sets, frozenset()) == frozenset()


def test_one_big_group_falls_back_to_files() -> None:
    documents = [document(f"src/f{n}", lines(n, 40), "src") for n in range(100)]
    result = split(documents, 0.05, 0)
    assert result.unit == "file"
    assert 3 <= len(result.heldout) <= 8


def test_a_tiny_corpus_holds_out_one_of_its_files() -> None:
    result = split([document("a", lines(1, 30)), document("b", lines(2, 30)), document("c", lines(3, 30))], 0.05, 0)
    assert len(result.heldout) == 1


def test_copies_of_one_text_cannot_be_split() -> None:
    text = lines(1, 40)
    result = split([document(f"d{n}", text + lines(n, 2)) for n in range(9)], 0.05, 0)
    assert not result.heldout


def test_no_group_takes_more_than_its_cap() -> None:
    documents = [*corpus(200), *(document(f"big/{n}", lines(("big", n), 400), "big") for n in range(10))]
    total = sum(d.bytes for d in documents)
    for seed in range(6):
        sizes: dict[str, int] = defaultdict(int)
        for index in split(documents, 0.05, seed).heldout:
            sizes[documents[index].group] += documents[index].bytes
        assert max(sizes.values()) <= 0.03 * total


def test_a_document_that_takes_a_little_from_many_groups_is_dropped() -> None:
    documents = []
    for n in range(40):
        passages = [lines((n, "passage", k), 5) for k in range(3)]
        mixed = "".join(passage + lines((n, "own", k), 9) for k, passage in enumerate(passages))
        documents.append(document(f"mixed{n}", mixed))
        documents += [
            document(f"giver{n}.{k}", lines((n, k), 15) + passages[k] + lines((n, k, 2), 15)) for k in range(3)
        ]
    components = join([d.group for d in documents], [windows(d.text) for d in documents])
    assert len(components) == len(documents)
    results = [split(documents, 0.05, seed) for seed in range(4)]
    assert any(result.dropped for result in results)
    for result in results:
        assert not result.dropped & result.heldout
        assert {documents[i].source[:5] for i in result.dropped} <= {"mixed"}


def test_few_large_files_never_hold_out_most_of_a_kind() -> None:
    counts = {"prose": (400, 380, 200, 30), "code": (300,)}
    documents = [
        document(f"{kind}{n}", lines((kind, n), size), kind=kind)
        for kind, sizes in counts.items()
        for n, size in enumerate(sizes)
    ]
    for seed in range(6):
        heldout = split(documents, 0.05, seed).heldout
        assert 1 <= len(heldout) <= 2
        assert sum(documents[i].bytes for i in heldout) < 0.3 * sum(d.bytes for d in documents)
        assert all(documents[i].kind == "prose" for i in heldout)


def test_two_files_of_two_kinds() -> None:
    documents = [document("a", lines(1, 30)), document("b", lines(2, 20), kind="prose")]
    assert split(documents, 0.05, 0).heldout == {1}
    assert not split(documents[:1], 0.05, 0).heldout
    assert not split([], 0.05, 0).heldout
