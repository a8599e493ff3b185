"""Three completers behind one protocol: the model, an n-gram model, and a list of words.

All see the same text before the cursor and answer with one proposal, the likeliest that they have, or with nothing.

Healing: a text that ends inside a word splits into tokens as no training text does. So the piece being typed is taken
off the context, and only continuations that begin with its characters are proposed. `heal` is the same for all.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ownlm.engine.request import Completion, LanguageModel, SamplingParams
from ownlm.evaluate.ngram import NgramModel

MAX_TOKENS = 6
"""The longest proposal of the model and of the n-gram model."""

LONGEST_PIECE = 24
"""Tokens that a followed first piece may come to when it is encoded again after the text before it."""

_TAIL = re.compile(
    r"""(?: (?:[^\r\n\w]|_)?[^\W\d_]+        # letters, with the one sign before them that their token may include
          | [ ]?(?:[^\s\w]|_)+(?:[\r\n]\s*)? # signs, with the line break and the indentation that follow
          | \s+ )\Z""",
    re.VERBOSE,
)
_LINE = re.compile(r"\s*[^\r\n]*")


class Completer(Protocol):
    """`propose` gets the texts before several cursors and gives, for each, the text that would follow, or ""."""

    @property
    def name(self) -> str: ...

    def propose(self, prefixes: Sequence[str]) -> list[str]: ...


def heal(prefix: str) -> tuple[str, str]:
    """(what is complete, the piece being typed at the end); joined they are `prefix`."""
    # The last pieces are short: searching the whole text would cost more than the proposal itself.
    window = max(0, len(prefix) - 200)
    tail = _TAIL.search(prefix, window)
    cut = tail.start() if tail else len(prefix)
    return prefix[:cut], prefix[cut:]


def one_line(text: str) -> str:
    """Up to the end of the first line that holds something; leading line breaks and indentation stay."""
    match = _LINE.match(text)
    return match.group().rstrip() if match else ""


# ---- words


@dataclass(frozen=True)
class WordCompleter:
    """The most frequent training word that begins with the letters before the cursor."""

    best: dict[str, str]
    name: str = "word list"

    @classmethod
    def train(cls, texts: Iterable[str], words: int = 50_000) -> WordCompleter:
        """Counts words of three characters or more and keeps the `words` most frequent."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(re.findall(r"\w{3,}", text))
        best: dict[str, str] = {}
        for word, _ in counts.most_common(words):
            for end in range(len(word)):
                best.setdefault(word[:end], word)
        return cls(best)

    def propose(self, prefixes: Sequence[str]) -> list[str]:
        """The rest of the word; at the start of a word, the most frequent one of all."""
        proposals = []
        for prefix in prefixes:
            typed = prefix[len(prefix.rstrip(_WORD_SIGNS)) :] if prefix.isascii() else _word_before(prefix)
            proposals.append(self.best.get(typed, typed)[len(typed) :])
        return proposals


_WORD_SIGNS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"


def _word_before(prefix: str) -> str:
    match = re.search(r"\w*\Z", prefix[-100:])
    return match.group() if match else ""


# ---- n-grams


class Tokens(Protocol):
    """What is needed of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def decode_bytes(self, ids: list[int]) -> bytes: ...


@dataclass(frozen=True)
class NgramCompleter:
    """Greedy continuation by an n-gram model, every token of the vocabulary weighed against the piece being typed."""

    model: NgramModel
    tokenizer: Tokens
    name: str = "n-gram"
    _pieces: list[bytes] = field(init=False, repr=False)
    _sorted: list[tuple[bytes, int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        special = {self.model.start}
        pieces = [b"" if t in special else self.tokenizer.decode_bytes([t]) for t in range(self.tokenizer.vocab_size)]
        object.__setattr__(self, "_pieces", pieces)
        object.__setattr__(self, "_sorted", sorted((piece, token) for token, piece in enumerate(pieces) if piece))

    def propose(self, prefixes: Sequence[str]) -> list[str]:
        """At most `MAX_TOKENS` tokens beyond the piece being typed, up to the end of the line."""
        return [self._propose(prefix) for prefix in prefixes]

    def _propose(self, prefix: str) -> str:
        head, typed = heal(prefix)
        context = self.tokenizer.encode(head[-100:])[-len(self.model.orders) :]
        left = typed.encode("utf-8")
        made = b""
        for _ in range(MAX_TOKENS + len(left)):
            token = self._best(context, left)
            if token is None or token == self.model.start:
                break
            piece = self._pieces[token]
            made += piece[len(left) :]
            left = left[len(piece) :]
            context = [*context, token]
            if b"\n" in made.lstrip():
                break
        # A character cut off at the end is left out; bytes that are no text at all stop the proposal before them.
        return "" if left else one_line(made.decode("utf-8", errors="ignore"))

    def _best(self, context: list[int], typed: bytes) -> int | None:
        """The likeliest token that begins with `typed` or that `typed` begins with."""
        chance = self.model.distribution(context)
        if not typed:
            return int(chance.argmax())
        first = bisect_left(self._sorted, (typed, -1))
        last = bisect_left(self._sorted, (typed + b"\xff" * 8, -1))
        fitting = [token for _, token in self._sorted[first:last]]
        for end in range(1, len(typed)):
            at = bisect_left(self._sorted, (typed[:end], -1))
            if at < len(self._sorted) and self._sorted[at][0] == typed[:end]:
                fitting.append(self._sorted[at][1])
        return fitting[int(np.argmax(chance[fitting]))] if fitting else None


# ---- the model


@dataclass
class _Known:
    """What the model said after one context: its best first pieces, and the whole texts of those followed so far."""

    first: list[str]
    texts: dict[str, str]


@dataclass
class ModelCompleter:
    """Greedy continuation by a language model.

    The piece being typed is weighed against the model's `ALTERNATIVES` best first tokens: the likeliest that fits is
    followed. Each ask costs at most two batched calls of `generate`; what was generated is remembered.
    """

    model: LanguageModel
    context: int = 1_000
    """Characters before the cursor that the model sees, fewer where they are more tokens than it can read."""
    name: str = "model"
    _known: dict[str, _Known] = field(default_factory=dict, repr=False)

    ALTERNATIVES = 20

    def propose(self, prefixes: Sequence[str]) -> list[str]:
        """At most `MAX_TOKENS` tokens, up to the end of the line."""
        healed = [heal(prefix) for prefix in prefixes]
        asks = [(self._readable(head), typed) for head, typed in healed]
        new = [head for head in dict.fromkeys(head for head, _ in asks) if head not in self._known]
        for head, completion in zip(new, self._generate(new), strict=True):
            self._known[head] = _first_pieces(completion)
        followed = [(head, piece) for head, typed in asks if (piece := self._to_follow(head, typed)) is not None]
        followed = list(dict.fromkeys(followed))
        completions = self._generate([head + piece for head, piece in followed])
        for (head, piece), completion in zip(followed, completions, strict=True):
            self._known[head].texts[piece] = piece + completion.text
        return [self._proposal(head, typed) for head, typed in asks]

    def _readable(self, head: str) -> str:
        """The end of the text that leaves the model room for a proposal."""
        head = head[-self.context :]
        room = self.model.facts.context - MAX_TOKENS - LONGEST_PIECE
        while head and self.model.count_tokens(head) > room:
            head = head[len(head) // 8 + 1 :]
        return head

    def _generate(self, prompts: list[str]) -> list[Completion]:
        if not prompts:
            return []
        params = SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0, logprobs=self.ALTERNATIVES)
        # An empty text has no tokens to continue; a line break is how every document might begin.
        return self.model.generate([prompt or "\n" for prompt in prompts], params)

    def _fitting(self, head: str, typed: str) -> list[str]:
        return [piece for piece in self._known[head].first if piece.startswith(typed) or typed.startswith(piece)]

    def _to_follow(self, head: str, typed: str) -> str | None:
        """The likeliest fitting first piece, unless what came of it is known already."""
        texts = self._known[head].texts
        for piece in self._fitting(head, typed):
            if piece not in texts:
                return piece
            if texts[piece].startswith(typed):
                return None
        return None

    def _proposal(self, head: str, typed: str) -> str:
        texts = self._known[head].texts
        for piece in self._fitting(head, typed):
            text = texts.get(piece, "")
            if text.startswith(typed):
                return one_line(text[len(typed) :])
        return ""


def _first_pieces(completion: Completion) -> _Known:
    """The first token and its alternatives, likeliest first; the text that follows the first is known already."""
    if not completion.logprobs:
        return _Known([], {})
    chosen = completion.logprobs[0]
    pieces = [chosen.token_bytes, *(piece for _, piece, _ in chosen.top)]
    first = list(dict.fromkeys(text for piece in pieces if (text := _strict(piece))))
    return _Known(first, {first[0]: completion.text} if first and completion.text.startswith(first[0]) else {})


def _strict(piece: bytes) -> str:
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return ""
