"""What the kits share: sentences out of documentation, and checks of an answer in plain words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ownlm.runtime.seeds import derive_seed
from ownlm.score.text import word_f1
from ownlm.score.verdict import Verdict

_SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"')\]]))\s+(?=[\"'(`A-Z])")
_ENDED = re.compile(r"[.!?][\"')\]`*]*$")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|Mr|Mrs|Dr|No|approx|resp)\.)$")
_WORD = re.compile(r"[^\W\d_]{3,}")
_LOOP_WORDS = 8
_LOOP_TIMES = 3

_COMMON = (
    "the and for are but not you all any can had her was one our out day get has him his how man new now old see two "
    "way who its did yes let put say she too use with this that have from they will would there their what about which "
    "when make like time just know take into your some could them than then look only come over also after first "
    "because these give most does doing done been being were where while each other such should must may might more "
    "very same here those through during before between both few own off again once under until down why tell explain "
    "continue describe notes write function python"
)
COMMON_WORDS = frozenset(_COMMON.split())
"""Words that say nothing about a topic."""


def pick(options: Sequence[str], *key: object) -> str:
    """One of the options, always the same for the same key."""
    return options[derive_seed(*key) % len(options)]


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph whose white space is collapsed."""
    found: list[str] = []
    for part in _SENTENCE_END.split(" ".join(text.split())):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] = f"{found[-1]} {part}"
        else:
            found.append(part)
    return [sentence for sentence in found if sentence]


def opening(text: str, limit: int) -> str:
    """As many whole sentences from the start as fit into `limit` characters; "" if not even one does.

    It stops before a sentence without an end ("For example:").
    """
    taken = ""
    for sentence in sentences(text):
        longer = f"{taken} {sentence}".strip()
        if len(longer) > limit or not _ENDED.search(sentence):
            break
        taken = longer
    return taken


def content_words(text: str) -> set[str]:
    """Words of three letters or more, in lower case, that say something about the topic."""
    return {word.lower() for word in _WORD.findall(text)} - COMMON_WORDS


def loops(text: str) -> bool:
    """Whether some run of eight words stands three times in the text, or one word makes up most of a long text."""
    words = text.lower().split()
    runs = Counter(tuple(words[i : i + _LOOP_WORDS]) for i in range(len(words) - _LOOP_WORDS + 1))
    if runs and max(runs.values()) >= _LOOP_TIMES:
        return True
    return len(words) >= 12 and Counter(words).most_common(1)[0][1] > len(words) / 2


def verify_words(prompt: str, answer: str, finished: bool) -> Verdict:
    """The checks of an answer in prose: "ends", "length" (five words), "on_topic" (a content word of the prompt, or of
    a name in it, comes back) and "no_loop"."""
    answer = answer[:20_000]
    asked = content_words(re.sub(r"([a-z])([A-Z])|_", r"\1 \2", prompt))
    said = content_words(re.sub(r"([a-z])([A-Z])|_", r"\1 \2", answer))
    related = any(a == b or (len(a) > 3 and len(b) > 3 and (a[:5] == b[:5])) for a in asked for b in said)
    return Verdict.of({
        "ends": finished,
        "length": len(answer.split()) >= 5,
        "on_topic": related or not asked,
        "no_loop": not loops(answer),
    })  # fmt: skip


def gold_words(truth: str, answer: str) -> float:
    """F1 of the content words of an answer and of the truth."""
    return word_f1(" ".join(sorted(content_words(answer[:20_000]))), " ".join(sorted(content_words(truth))))
