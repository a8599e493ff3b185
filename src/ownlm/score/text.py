"""Scorers of plain text, by name: what a suite's `score:` may ask for.

A scorer looks at an answer and at the target that the suite gives, and returns a number in 0..1 (1 is a pass). More
come from other packages through the entry-point group `ownlm.scorers`, each an instance of `Scorer`.
"""

from __future__ import annotations

import difflib
import json
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.extensions import ExtensionError, extension_names, load_extension
from ownlm.score.verdict import Verdict

GROUP = "ownlm.scorers"


@dataclass(frozen=True)
class Answer:
    """What a model said, and whether it ended by itself (rather than being cut off)."""

    text: str
    finished: bool = True


@dataclass(frozen=True)
class Scorer:
    """`score(answer, target)` gives 0..1; `complaint(target)` says in words why a target makes no sense, or None."""

    name: str
    score: Callable[[Answer, Any], float]
    complaint: Callable[[Any], str | None]


def scorer_names() -> list[str]:
    """The built-in scorers and those of installed packages, which may not replace a built-in one."""
    return sorted({*BUILT_IN, *extension_names(GROUP)})


def find_scorer(name: str) -> Scorer:
    """The scorer of this name.

    Raises:
        OwnLMError: there is none (the message gives the nearest one and the whole list), or it is a package's and
            cannot be loaded or is no `Scorer`.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    known = scorer_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise OwnLMError(f"There is no scorer '{name}'.{hint} There is: {', '.join(known)}.")
    found = load_extension(GROUP, name)
    if not isinstance(found, Scorer):
        raise ExtensionError(f"The extension '{name}' ({GROUP}) is not an ownlm.score.text.Scorer.")
    return found


def judge(answer: Answer, targets: Mapping[str, Any]) -> Verdict:
    """One verdict from several scorers, each with its target: `judge(answer, {"contains": "def", "max_lines": 9})`.

    Raises:
        OwnLMError: an unknown scorer, or a target that it cannot use.
    """
    checks = {}
    for name, target in targets.items():
        scorer = find_scorer(name)
        complaint = scorer.complaint(target)
        if complaint:
            raise OwnLMError(f"The scorer '{name}' {complaint}.")
        checks[name] = scorer.score(answer, target)
    return Verdict.of(checks)


def normalise(text: str) -> str:
    """Lower case, no punctuation, no English articles, single spaces (as SQuAD's evaluation does).

    Source: Rajpurkar et al. (2016), "SQuAD: 100,000+ questions for machine comprehension of text".
    """
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(word for word in text.split() if word not in {"a", "an", "the"})


def word_f1(answer: str, target: str) -> float:
    """Harmonic mean of precision and recall over normalised words, as in SQuAD."""
    said, wanted = Counter(normalise(answer).split()), Counter(normalise(target).split())
    shared = (said & wanted).total()
    if not shared:
        return float(said == wanted)
    precision, recall = shared / said.total(), shared / wanted.total()
    return 2 * precision * recall / (precision + recall)


# ---- what targets may be


def _text(target: Any) -> str | None:
    return None if isinstance(target, str) and target else "needs a text"


def _texts(target: Any) -> str | None:
    good = [target] if isinstance(target, str) else target
    valid = isinstance(good, list) and good and all(isinstance(each, str) and each for each in good)
    return None if valid else "needs a text or a list of texts"


def _pattern(target: Any) -> str | None:
    if not isinstance(target, str):
        return "needs a regular expression"
    try:
        re.compile(target)
    except re.error as error:
        return f"needs a regular expression, and {target!r} is none: {error}"
    return None


def _count(target: Any) -> str | None:
    valid = isinstance(target, int) and not isinstance(target, bool) and target >= 0
    return None if valid else "needs a whole number of 0 or more"


def _flag(target: Any) -> str | None:
    return None if isinstance(target, bool) else "needs true or false"


# ---- the scorers


def _each(target: str | list[str]) -> list[str]:
    return [target] if isinstance(target, str) else target


def _json(answer: Answer, target: bool) -> float:
    try:
        json.loads(answer.text)
    except (ValueError, RecursionError):
        return float(not target)
    return float(target)


def _excludes(answer: Answer, target: str | list[str]) -> float:
    return float(not any(each in answer.text for each in _each(target)))


def _contains(answer: Answer, target: str | list[str]) -> float:
    wanted = _each(target)
    return sum(each in answer.text for each in wanted) / len(wanted)


def _at_most(measure: Callable[[str], int], answer: Answer, target: int) -> float:
    return float(measure(answer.text) <= target)


def _at_least(measure: Callable[[str], int], answer: Answer, target: int) -> float:
    return float(measure(answer.text) >= target)


def _lines(text: str) -> int:
    return len(text.strip().splitlines())


BUILT_IN: dict[str, Scorer] = {
    scorer.name: scorer
    for scorer in (
        Scorer("exact", lambda answer, target: float(answer.text.strip() == target.strip()), _text),
        Scorer("normalised", lambda answer, target: float(normalise(answer.text) == normalise(target)), _text),
        Scorer("f1", lambda answer, target: word_f1(answer.text, target), _text),
        Scorer("contains", _contains, _texts),
        Scorer("excludes", _excludes, _texts),
        Scorer("starts_with", lambda answer, target: float(answer.text.lstrip().startswith(target)), _text),
        Scorer(
            "regex", lambda answer, target: float(re.search(target, answer.text, re.MULTILINE) is not None), _pattern
        ),
        Scorer("min_characters", partial(_at_least, len), _count),
        Scorer("max_characters", partial(_at_most, len), _count),
        Scorer("min_lines", partial(_at_least, _lines), _count),
        Scorer("max_lines", partial(_at_most, _lines), _count),
        Scorer("json", _json, _flag),
        Scorer("finished", lambda answer, target: float(answer.finished == target), _flag),
    )
}
