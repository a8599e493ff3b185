"""The kit for notes and for any other text: sections to recall, passages to go on with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ownlm.align.examples import InstructionExample
from ownlm.data.document import Document
from ownlm.recipe.kits.text import content_words, gold_words, opening, pick, sentences, verify_words
from ownlm.score.verdict import Verdict

SECTION, CONTINUE = "section", "continue"
LONGEST_ANSWER = 500
LONGEST_BLOCK = 900
MOST_LINES = 25

_ASK = ("What do the notes say about {heading}?", "Tell me about {heading}.", "Explain {heading}.")
_GO_ON = ("Continue: {start}", "Go on from here: {start}")
_GO_ON_CODE = ("Continue this code:\n\n{start}", "How does this code go on?\n\n{start}")
_HASHES = re.compile(r"#{1,6}\s+(.{2,80}?)\s*#*$")
_UNDERLINE = re.compile(r"([=\-~^*\"+])\1{2,}\s*$")
_FENCE = re.compile(r"^\s*(```|~~~)")
_NO_PROSE = re.compile(r"\s*([|>*+#<!\[]|-\s|\d+[.)]\s|\.\. |={3}|-{3})|\s{4}|\t")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_EMPHASIS = re.compile(r"(\*{1,3})(?=\S)([^*]+)(?<=\S)\1")


@dataclass(frozen=True)
class Section:
    """A heading ("" before the first one) and the plain paragraphs below it, each in one line."""

    heading: str
    paragraphs: tuple[str, ...]


def sections(text: str) -> list[Section]:
    """Splits at Markdown's `#` headings and at titles with a line of signs below.

    Code, lists and tables are left out.
    """
    found: list[tuple[str, list[str]]] = [("", [])]
    paragraph: list[str] = []
    in_code = False
    lines = text.split("\n")

    def close() -> None:
        if paragraph:
            found[-1][1].append(_plain(" ".join(paragraph)))
            paragraph.clear()

    for index, line in enumerate(lines):
        below = lines[index + 1] if index + 1 < len(lines) else ""
        if _FENCE.match(line):
            close()
            in_code = not in_code
        elif in_code:
            continue
        elif heading := _HASHES.match(line):
            close()
            found.append((_plain(heading[1]), []))
        elif line.strip() and not line.startswith(" ") and _UNDERLINE.match(below) and len(below) + 2 >= len(line) > 1:
            close()
            found.append((_plain(line.strip()), []))
        elif not line.strip() or _UNDERLINE.match(line) or (not paragraph and _NO_PROSE.match(line)):
            close()
        else:
            paragraph.append(line.strip())
    close()
    return [Section(heading, tuple(p for p in paragraphs if p)) for heading, paragraphs in found]


def blocks(text: str) -> list[list[str]]:
    """The runs of lines between blank ones that are neither too short nor too long to learn from."""
    found = [block.split("\n") for block in re.split(r"\n\s*\n", text.strip("\n"))]
    return [block for block in found if 4 <= len(block) <= MOST_LINES and len("\n".join(block)) <= LONGEST_BLOCK]


class ProseKit:
    """See `ownlm.recipe.kit.Kit`."""

    name = "prose"

    def applies(self, document: Document) -> bool:
        """Every document; so it comes after the kits that know more about theirs."""
        return True

    def examples(self, document: Document) -> Iterator[InstructionExample]:
        """Heading -> section, and the beginning of a paragraph (or of a block of code) -> how it goes on."""
        if document.kind != "prose":
            yield from _code_examples(document)
            return
        for number, section in enumerate(sections(document.text)):
            key = (document.source, number, section.heading)
            answer = opening(" ".join(section.paragraphs[:3]), LONGEST_ANSWER)
            if section.heading and len(answer.split()) >= 8 and content_words(section.heading) & content_words(answer):
                prompt = pick(_ASK, *key).format(heading=section.heading)
                yield InstructionExample.of(prompt, answer, document.source, SECTION)
            for place, paragraph in enumerate(section.paragraphs):
                start, *rest = sentences(paragraph)
                answer = opening(" ".join(rest), LONGEST_ANSWER)
                if 4 <= len(start.split()) <= 60 and not start[0].islower() and len(answer.split()) >= 8:
                    prompt = pick(_GO_ON, *key, place).format(start=start)
                    yield InstructionExample.of(prompt, answer, document.source, CONTINUE)

    def verifiable(self, example: InstructionExample) -> bool:
        """All of them."""
        return True

    def verify(self, example: InstructionExample, answer: str, finished: bool) -> Verdict:
        """See `verify_words`."""
        return verify_words(example.prompt[-1].text, answer, finished)

    def gold(self, example: InstructionExample, answer: str) -> float:
        """F1 of the content words of the answer and of the true passage."""
        return gold_words(example.answer, answer)

    def starters(self) -> list[str]:
        """In the words of the instruction examples, about nothing in particular."""
        return [
            "Continue: The first thing to know is this.",
            "Continue: At the beginning there was a question.",
            "Go on from here: It is important to remember why.",
        ]

    def watch_prompts(self) -> list[str]:
        """Three ways to begin."""
        return ["The ", "In the beginning, ", "# "]


def _code_examples(document: Document) -> Iterator[InstructionExample]:
    """The first two lines of a block -> the others, in a language that no kit knows."""
    for number, block in enumerate(blocks(document.text)):
        start, answer = "\n".join(block[:2]), "\n".join(block[2:])
        if len(answer.split()) >= 5 and content_words(start) & content_words(answer):
            prompt = pick(_GO_ON_CODE, document.source, number).format(start=f"```\n{start}\n```")
            yield InstructionExample.of(prompt, f"```\n{answer}\n```", document.source, CONTINUE)


def _plain(text: str) -> str:
    """Links by their text, no emphasis, single spaces."""
    return " ".join(_EMPHASIS.sub(r"\2", _LINK.sub(r"\1", text)).split())


kit = ProseKit()
