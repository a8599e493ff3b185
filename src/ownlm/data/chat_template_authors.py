"""Who wrote which characters of a rendered conversation: the template, or the people whose messages stand in it.

A message may hold the characters of a special token. Templates trim, split and escape messages, so their text cannot
simply be searched for. Instead the conversation is rendered twice: once as it is, and once with stand-ins of the same
length for the messages' characters. Where the second text differs from the first, a message's character stands.

Left as they are: white space and what JSON escapes (templates trim and quote), and the strings that the template itself
holds (it may look for them). If a template then still makes another text, because it looks into messages in some other
way, stand-ins take the place of special tokens alone; if it makes another text even so, it acts on them, and the
conversation is refused rather than rendered in another way than the model's makers meant.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ownlm.data.message import ROLES
from ownlm.data.tokenizer_protocol import Span
from ownlm.runtime.errors import OwnLMError

STAND_IN = 0xF0000
"""A character c of the first 65,534 becomes the private one at this distance; others stay."""

Values = Mapping[str, Any]
"""A template's variables, without those that the tokenizer names."""


def peoples(
    render: Callable[[Values], str], values: Values, text: str, special: Iterable[str], constants: Iterable[str]
) -> list[Span]:
    """The spans of `text` = `render(values)` whose characters come from `values`, as far as they could be part of a
    special token; none where nobody wrote the first or last character of one.

    Args:
        special: the special tokens.
        constants: the strings in the template.

    Raises:
        OwnLMError: a message holds a special token, and the template's text depends on that.
    """
    rules = _rules(frozenset(special), frozenset(constants))
    if not rules.ends or not _holds(values, lambda string: not rules.ends.isdisjoint(_flat(string))):
        return []
    for change in (rules.almost_all, rules.tokens_alone):
        try:
            other = render({name: _replaced(value, change, rules.tokens_alone) for name, value in values.items()})
        except OwnLMError:
            continue
        spans = _differences(text, other)
        if spans is not None:
            return spans
    if _holds(values, lambda string: bool(rules.tokens.search(_flat(string)))):
        raise OwnLMError(
            "A message holds the characters of one of the model's special tokens, and the chat template does something "
            "else because of it: take them out of the message."
        )
    return []


@dataclass(frozen=True)
class _Rules:
    """What to look for in messages."""

    ends: frozenset[str]
    """First and last characters of special tokens."""
    tokens: re.Pattern[str]
    kept: re.Pattern[str]

    def almost_all(self, string: str) -> str:
        codes = _codes(string).copy()
        changed = _replaceable()[np.minimum(codes, 0xFFFF)]
        for pattern, change in ((self.kept, False), (self.tokens, True)):
            for match in pattern.finditer(string):
                changed[match.start() : match.end()] = change
        codes[changed & (codes < 0xFFFE)] += STAND_IN
        return codes.tobytes().decode("utf-32-le", "surrogatepass")

    def tokens_alone(self, string: str) -> str:
        return self.tokens.sub(
            lambda match: "".join(chr(ord(c) + STAND_IN) if ord(c) < 0xFFFE else c for c in match[0]), string
        )


@lru_cache(maxsize=16)
def _rules(special: frozenset[str], constants: frozenset[str]) -> _Rules:
    tokens = _any_of(special)
    kept = _any_of(each for each in constants if not tokens.search(each))
    return _Rules(frozenset(end for each in special if each for end in (each[0], each[-1])), tokens, kept)


def _any_of(strings: Iterable[str]) -> re.Pattern[str]:
    """The longest first; a pattern that matches nothing where there are none."""
    return re.compile("|".join(map(re.escape, sorted(filter(None, strings), key=len, reverse=True))) or "(?!)")


@cache
def _replaceable() -> NDArray[np.bool_]:
    """For each code up to U+FFFF, whether no template trims or escapes it."""
    return np.array(
        [not (chr(c).isspace() or c < 0x20 or c in (0x22, 0x5C, 0x7F) or c > 0xFFFD) for c in range(1 << 16)]
    )


def _flat(string: str) -> str:
    """As a tokenizer's normalizer may see it: "＜" is "<" then."""
    return string if string.isascii() else string + unicodedata.normalize("NFKC", string)


def _holds(value: Any, test: Callable[[str], bool]) -> bool:
    if isinstance(value, str):
        return test(value)
    if isinstance(value, Mapping):
        return any(_holds(key, test) or _holds(item, test) for key, item in value.items())
    return isinstance(value, (list, tuple)) and any(_holds(item, test) for item in value)


def _replaced(value: Any, change: Callable[[str], str], change_name: Callable[[str], str]) -> Any:
    """`value` with other strings; the names in objects, by which templates find things, change as little as can be."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {
            change_name(name): item if name == "role" and item in ROLES else _replaced(item, change, change_name)
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_replaced(item, change, change_name) for item in value]
    return value


def _differences(text: str, other: str) -> list[Span] | None:
    """Where `other` has stand-ins; None if it differs elsewhere, or is longer or shorter."""
    one, two = _codes(text), _codes(other)
    if len(one) != len(two):
        return None
    changed = one != two
    if (two[changed] < STAND_IN).any():
        return None
    edges = np.flatnonzero(np.diff(np.concatenate(([0], changed.view(np.int8), [0]))))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
