"""Instruction pairs from Python documents: docs -> function, function -> what it does, "What does X do?" -> docs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ownlm.align.examples import InstructionExample
from ownlm.data.document import Document
from ownlm.recipe.kits.python.functions import Function, documented, functions, module_name, parse
from ownlm.recipe.kits.python.gold import identifiers
from ownlm.recipe.kits.python.verifier import parameters, verify_function
from ownlm.recipe.kits.text import opening, pick

WRITE, SUMMARY, DOCS = "write", "summary", "docs"

LONGEST_CODE = 900
LONGEST_SIGNATURE = 100
MOST_LINES = 25
MOST_PARAMETERS = 6
_MOST_DOC_LINES = 40
_WRITE_DOCS = 240
_ANSWER_DOCS = 300

_WRITE_FUNCTION = (
    "Write a Python function `{signature}` {docs}",
    "Implement `{signature}` {docs}",
    "{docs} Write this as `{signature}`",
)
_WRITE_METHOD = (
    "Write the method `{signature}` of the class {owner}. {docs}",
    "Implement `{signature}` for the class {owner}. {docs}",
)
_SUMMARY = (
    "What does this function do?\n\n{code}",
    "Explain this code.\n\n{code}",
    "Describe this function in a sentence.\n\n{code}",
)
_ASK_FUNCTION = ("What does {name} do?", "What is {name} for?", "Explain {name}.")
_ASK_CLASS = ("What is the class {name}?", "What does the class {name} do?", "Explain the class {name}.")
_ASK_TOPIC = ("What does Python's reference say about {name}?", "Explain {name} in Python.")

_PLAIN_DECORATORS = ("staticmethod", "classmethod", "property", "functools.lru_cache", "lru_cache", "cache")
_UNFIT = re.compile(r"NotImplementedError|warnings\.warn|[Dd]eprecat|\bsuper\(\)\.__init__|setUp|tearDown")
_CAPITALISED = re.compile(r"(?<![`\w.])(?!Python\b)[A-Z][a-z]*\b(?![`.(])")
_UNDERLINE = re.compile(r"([*=\-~^\"])\1{2,}")


def examples(document: Document) -> Iterator[InstructionExample]:
    """All pairs of one document, in the order of the text."""
    if document.format == "py":
        yield from _code_examples(document)
    else:
        yield from _topic_examples(document)


def fence(code: str) -> str:
    """Code as Markdown, as chat pages show it."""
    return f"```python\n{code}\n```"


def _code_examples(document: Document) -> Iterator[InstructionExample]:
    tree = parse(document.text)
    if tree is None:
        return
    source = document.source
    for function in functions(tree, document.text, MOST_LINES + _MOST_DOC_LINES):
        if not _is_fit(function):
            continue
        key = (source, function.qualified)
        docs = opening(function.docs, _WRITE_DOCS)
        if docs and verify_function(function.signature, function.code, finished=True).passed:
            templates = _WRITE_METHOD if function.owner else _WRITE_FUNCTION
            prompt = pick(templates, *key).format(signature=function.signature, docs=docs, owner=function.owner)
            meta = {"signature": function.signature, "body": function.body}
            yield InstructionExample.of(prompt, fence(function.code), source, WRITE, meta)
        if short := opening(function.docs, _ANSWER_DOCS):
            prompt = pick(_SUMMARY, "summary", *key).format(code=fence(function.code))
            yield InstructionExample.of(prompt, short, source, SUMMARY, {"name": function.qualified})
    for entry in documented(tree, module_name(source)):
        answer = opening(entry.docs, _ANSWER_DOCS)
        if len(answer) >= 20:
            templates = _ASK_CLASS if entry.kind == "class" else _ASK_FUNCTION
            prompt = pick(templates, source, entry.qualified).format(name=f"`{entry.qualified}`")
            yield InstructionExample.of(prompt, answer, source, DOCS, {"name": entry.qualified})


def _is_fit(function: Function) -> bool:
    """Whether a function is a good thing to learn to write: short, whole, and said by its docs."""
    lines = function.body.count("\n") + 1
    named = [name for name in parameters(function.node) if name not in ("self", "cls")]
    return (
        3 <= lines <= MOST_LINES
        and len(function.code) <= LONGEST_CODE
        and len(function.signature) <= LONGEST_SIGNATURE
        and len(named) <= MOST_PARAMETERS
        and not (function.name.startswith("__") and function.name.endswith("__"))
        and all(each.partition("(")[0] in _PLAIN_DECORATORS for each in function.decorators)
        and len(function.docs.split()) >= 4
        and not _UNFIT.search(function.code)
        and len(identifiers(function.body) - {function.name, *named}) >= 3
    )


def _topic_examples(document: Document) -> Iterator[InstructionExample]:
    """A title of the language reference -> the paragraph below it."""
    lines = document.text.split("\n")
    for index in range(len(lines) - 1):
        title = lines[index].strip()
        if not title or len(lines[index + 1]) < len(title) or not _UNDERLINE.fullmatch(lines[index + 1].strip()):
            continue
        paragraph = _paragraph(lines[index + 2 :])
        answer = opening(paragraph, _ANSWER_DOCS)
        if len(answer) >= 40 and len(title) <= 60:
            name = re.sub(r'"([^"]+)"', r"`\1`", title)
            name = _CAPITALISED.sub(lambda word: word[0].lower(), name)
            prompt = pick(_ASK_TOPIC, document.source, title).format(name=name)
            yield InstructionExample.of(prompt, answer, document.source, DOCS, {"name": name})


def _paragraph(lines: list[str]) -> str:
    """The first paragraph, if it is plain prose: not indented, not a list, and no heading in between."""
    taken: list[str] = []
    for line in lines:
        if not line.strip():
            if taken:
                break
        elif line[0] in " *-+|." or _UNDERLINE.fullmatch(line.strip()):
            return ""
        else:
            taken.append(line.strip())
    text = re.sub(r'"([^"]{1,60})"', r"`\1`", " ".join(taken))
    return text if text.endswith((".", "!", "?")) else ""
