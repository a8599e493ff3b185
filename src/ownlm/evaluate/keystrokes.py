"""Keystrokes saved: held-out files are typed again in a simulated editor that proposes how to go on.

The rule, the same for every completer:

1. At the cursor the editor shows one proposal, at most the rest of one line. It stays as long as what is typed agrees
   with it; when it no longer does, the completer is asked again.
2. If the whole proposal is what the file says next, one key accepts it. Else, if its next word is (letters, digits and
   underscores, or a run of signs, with the space before), one key accepts that word and the rest stays on show.
   Nothing of fewer than two characters is accepted.
3. Else the user types one character, one key. Wrong proposals cost nothing and save nothing.

Saved is (characters - keys) / characters. The user never takes back anything, so this is what the completer is worth
to somebody who reads every proposal: an upper bound for real typing. Nothing is tuned on the held-out files. The
interval resamples excerpts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ownlm.data.document import Document
from ownlm.evaluate.completers import Completer
from ownlm.runtime.seeds import derive_seed
from ownlm.score.intervals import Interval, bootstrap_ratio

SHORTEST = 2
"""Characters that a proposal must spare to be worth the accepting key."""

_WORD = re.compile(r"\s*(?:\w+|[^\w\s]+)")


@dataclass(frozen=True)
class Excerpt:
    """A piece of a held-out file to be typed (`text`) with what stands before it (`before`)."""

    source: str
    kind: str
    before: str
    text: str


@dataclass(frozen=True)
class KeystrokesSaved:
    """`share` is the part of all keystrokes saved; `keys` and `characters` hold one entry an excerpt."""

    name: str
    share: Interval
    keys: tuple[int, ...]
    characters: tuple[int, ...]

    def to_json(self) -> dict[str, object]:
        """Without the entries of single excerpts."""
        return {"name": self.name, **self.share.to_json(), "characters": sum(self.characters)}


@dataclass
class _Typing:
    """One excerpt being typed: where the cursor is, the keys pressed, the proposal on show (None: ask for one)."""

    excerpt: Excerpt
    at: int = 0
    keys: int = 0
    shown: str | None = field(default=None)

    @property
    def prefix(self) -> str:
        return self.excerpt.before + self.excerpt.text[: self.at]

    @property
    def done(self) -> bool:
        return self.at >= len(self.excerpt.text)

    def go_on(self) -> None:
        """Presses keys until the excerpt is typed or a new proposal is needed."""
        while not self.done and self.shown is not None:
            rest = self.excerpt.text[self.at :]
            word = _WORD.match(self.shown)
            if len(self.shown) >= SHORTEST and rest.startswith(self.shown):
                self._insert(len(self.shown))
            elif word and len(word.group()) >= SHORTEST and rest.startswith(word.group()):
                self._insert(len(word.group()))
            else:
                agrees = self.shown.startswith(rest[0])
                self._insert(1)
                if not agrees:
                    self.shown = None

    def _insert(self, characters: int) -> None:
        self.keys += 1
        self.at += characters
        self.shown = (self.shown or "")[characters:] or None


def take_excerpts(
    documents: Sequence[Document], seed: int, excerpts: int = 60, characters: int = 130, before: int = 1_000
) -> list[Excerpt]:
    """A seeded sample of held-out text: one excerpt from each of `excerpts` documents (several where there are fewer).

    Each begins at the start of a line. Documents shorter than `characters` are left out unless there is nothing else.
    """
    rng = random.Random(derive_seed(seed, "keystrokes"))
    long_enough = [document for document in documents if len(document.text) >= characters]
    pool = sorted(long_enough or [document for document in documents if document.text], key=lambda each: each.source)
    if not pool:
        return []
    chosen = rng.sample(pool, min(excerpts, len(pool)))
    chosen += rng.choices(pool, k=excerpts - len(chosen)) if len(chosen) < excerpts else []
    taken = []
    for document in chosen:
        text = document.text
        start = text.rfind("\n", 0, rng.randrange(max(1, len(text) - characters + 1)) + 1) + 1
        source, kind = document.source, document.kind
        taken.append(Excerpt(source, kind, text[max(0, start - before) : start], text[start : start + characters]))
    return [excerpt for excerpt in taken if excerpt.text]


def replay(completer: Completer, excerpts: Sequence[Excerpt], seed: int = 0) -> KeystrokesSaved:
    """Types all excerpts side by side, so that every round asks the completer once for all that need a proposal.

    Raises:
        ValueError: there are no excerpts.
    """
    typings = [_Typing(excerpt) for excerpt in excerpts]
    while waiting := [typing for typing in typings if not typing.done]:
        for typing, shown in zip(waiting, completer.propose([each.prefix for each in waiting]), strict=True):
            typing.shown = shown
            typing.go_on()
    keys = [typing.keys for typing in typings]
    characters = [len(excerpt.text) for excerpt in excerpts]
    share = bootstrap_ratio(np.subtract(characters, keys), characters, seed)
    return KeystrokesSaved(completer.name, share, tuple(keys), tuple(characters))


def advantage(model: KeystrokesSaved, other: KeystrokesSaved, seed: int = 0) -> Interval:
    """How much more `model` saves than `other` on the same excerpts, as a difference of shares."""
    return bootstrap_ratio(np.subtract(other.keys, model.keys), model.characters, seed)
