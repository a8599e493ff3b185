"""Holding out documents that share no code with the training part.

Two documents share code when they share windows of five consecutive lines. Groups that share some are joined, whole
joined groups are held out, and what still shares windows afterwards is dropped.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ownlm.data.document import Document

WINDOW = 5
SHARED = 3
"""Two groups that share this many windows are one."""

_MULTIPLIER = 0x9E3779B97F4A7C15
_COMMENT = re.compile(r"\s*(#|//|/\*|\*|--|;|%|<!--|$)")
_SHORTEST_LINE = 4
_FLOOR = 64_000
_CAPS = (0.015, 0.03, 0.1, 0.25, 0.5)
"""How much of all bytes a group that is held out may have: the first that reaches the target is used."""

Windows = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Split:
    """Indices into the documents; `unit` says what was held out as a whole: "group" or "file"."""

    heldout: frozenset[int]
    dropped: frozenset[int]
    unit: str
    components: int
    heldout_components: int


def windows(text: str) -> Windows:
    """The sorted distinct hashes of a text's windows of five lines, shape (n,).

    Lines are compared without the blanks around them; lines of fewer than four characters (brackets) do not count, nor
    does a comment at the very top, which is where licences stand: sharing a licence is not sharing code. A text of
    fewer than five lines is one window.
    """
    lines = text.split("\n")
    start = 0
    while start < len(lines) and _COMMENT.match(lines[start]):
        start += 1
    stripped = [line.strip() for line in lines[start:]]
    crc = zlib.crc32
    codes = [crc(line.encode()) for line in stripped if len(line) >= _SHORTEST_LINE]
    if not codes:
        return np.empty(0, np.uint64)
    hashes = np.array(codes, np.uint64)
    if len(hashes) < WINDOW:
        hashes = np.pad(hashes, (0, WINDOW - len(hashes)))
    count = len(hashes) - WINDOW + 1
    rolled = np.zeros(count, np.uint64)
    for offset in range(WINDOW):
        rolled = (rolled ^ hashes[offset : offset + count]) * np.uint64(_MULTIPLIER)
        rolled ^= rolled >> np.uint64(29)
    return np.unique(rolled)


def split(documents: Sequence[Document], share: float, seed: int) -> Split:
    """Chooses about `share` of the bytes of every kind, in whole groups, by a seeded hash.

    A held-out group has at most 1.5 % of all bytes, else 3 %. Where groups are too coarse for that (one folder holds
    everything), single files are held out instead, and where the corpus is tiny the cap grows.
    """
    sets = [windows(document.text) for document in documents]
    components: list[list[int]] = []
    best: tuple[float, frozenset[int], str, int, int] | None = None
    for unit in ("group", "file"):
        names = [d.group if unit == "group" else str(i) for i, d in enumerate(documents)]
        components = join(names, sets)
        for cap in _CAPS[:2] if unit == "group" else _CAPS:
            chosen, reached, count = _choose(documents, components, share, seed, cap)
            if best is None or reached > best[0]:
                best = (reached, chosen, unit, len(components), count)
            if reached >= 0.7:
                break
        if best is not None and best[0] >= 0.7:
            break
    if best is None or (not best[1] and len(components) < 2):
        return Split(frozenset(), frozenset(), "file", 0, 0)
    _, chosen, unit, total, count = best
    if not chosen:  # two files of two kinds, say
        chosen = frozenset(min(components, key=lambda members: sum(documents[i].bytes for i in members)))
        unit, total, count = "file", len(components), 1
    dropped = leaking(sets, chosen)
    return Split(chosen - dropped, dropped, unit, total, count)


def join(names: Sequence[str], sets: Sequence[Windows]) -> list[list[int]]:
    """Joins the groups that share at least `SHARED` windows; returns the documents' indices, a list a component."""
    groups = {name: number for number, name in enumerate(dict.fromkeys(names))}
    numbers = np.array([groups[name] for name in names], np.int64)
    parent = list(range(len(groups)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in _neighbours(numbers, sets):
        parent[root(a)] = root(b)
    members: dict[int, list[int]] = defaultdict(list)
    for index, number in enumerate(numbers.tolist()):
        members[root(number)].append(index)
    return list(members.values())


def leaking(sets: Sequence[Windows], heldout: frozenset[int]) -> frozenset[int]:
    """The held-out documents that share at least `SHARED` windows with the training documents."""
    if not heldout:
        return frozenset()
    training = [each for index, each in enumerate(sets) if index not in heldout]
    if not training:
        return frozenset()
    seen = np.unique(np.concatenate(training))
    return frozenset(i for i in heldout if np.isin(sets[i], seen, assume_unique=True).sum() >= SHARED)


def _neighbours(numbers: npt.NDArray[np.int64], sets: Sequence[Windows]) -> list[tuple[int, int]]:
    """Pairs of groups that share enough windows. A window of k groups counts for k-1 of their pairs only, which is
    enough to join them when they share a passage; what slips through is found by `leaking`."""
    if not sets:
        return []
    hashes = np.concatenate(sets)
    owners = np.repeat(numbers, [len(each) for each in sets])
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    shared = (hashes[1:] == hashes[:-1]) & (owners[1:] != owners[:-1])
    pairs = np.stack((owners[:-1][shared], owners[1:][shared]), axis=1)
    if not len(pairs):
        return []
    unique, counts = np.unique(pairs, axis=0, return_counts=True)
    return [(int(a), int(b)) for a, b in unique[counts >= SHARED]]


def _choose(
    documents: Sequence[Document], components: list[list[int]], share: float, seed: int, cap: float
) -> tuple[frozenset[int], float, int]:
    """(held-out indices, the least share of its target that a kind reached, how many components were taken)."""
    sizes = [document.bytes for document in documents]
    totals: dict[str, int] = defaultdict(int)
    for document, size in zip(documents, sizes, strict=True):
        totals[document.kind] += size
    # The smaller slice is measured alone too, so it needs some bytes: 64 kB, if that is not too much of its kind.
    targets = {kind: share * total for kind, total in totals.items()}
    for kind in totals.keys() - {max(totals, key=lambda kind: totals[kind], default="")}:
        targets[kind] = max(targets[kind], min(_FLOOR, 0.15 * totals[kind]))
    largest = cap * sum(sizes)
    keyed = sorted(components, key=lambda members: _chance(seed, min(documents[i].source for i in members)))
    held: dict[str, int] = defaultdict(int)
    chosen: set[int] = set()
    count = 0
    for members in keyed:
        by_kind = _by_kind(documents, sizes, members)
        room = max(1.25, cap / share)
        too_much = any(held[k] + size > min(room * targets[k], 0.5 * totals[k]) for k, size in by_kind.items())
        main = max(by_kind, key=lambda kind: by_kind[kind])
        if too_much or sum(by_kind.values()) > largest or held[main] >= targets[main]:
            continue
        for kind, size in by_kind.items():
            held[kind] += size
        chosen.update(members)
        count += 1
    # A kind of next to nothing (one README), or in one piece, does not decide whether the split is good.
    pieces = [_by_kind(documents, sizes, members) for members in components]
    counted = [
        kind
        for kind, total in totals.items()
        if total >= 0.02 * sum(sizes) and any(0 < each.get(kind, 0) <= 0.5 * total for each in pieces)
    ]
    reached = min((held[kind] / targets[kind] for kind in counted), default=0.0)
    return frozenset(chosen), reached, count


def _by_kind(documents: Sequence[Document], sizes: Sequence[int], members: Sequence[int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for index in members:
        found[documents[index].kind] = found.get(documents[index].kind, 0) + sizes[index]
    return found


def _chance(seed: int, name: str) -> bytes:
    return hashlib.blake2b(name.encode(), key=str(seed).encode()[:64], digest_size=8).digest()
