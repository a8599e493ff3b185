"""Functions and classes of a Python file, with their documentation, read by `ast` and never run."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

_ROLE = re.compile(r":[a-z:+-]+:`[~!]?([^`<]+?)(?:\s*<[^`>]*>)?`")
_FRAGILE = re.compile(r"\"{3}|'{3}|\\\n")
"""Strings over several lines: moving the code to the left may have changed them."""
_NO_DESCRIPTION = re.compile(r"(See|Do not|Override|Overrid|Same as|Like|Deprecat|Internal|Private|Ditto|Note)\b")
_LITERAL = re.compile(r"``([^`]+)``")


@dataclass(frozen=True)
class Function:
    """A function with `docs` (its first paragraph in one line) and `code` without docstring and decorators.

    `signature` is the one line from `def` to the colon; `owner` the class it is a method of, or "".
    """

    name: str
    qualified: str
    owner: str
    signature: str
    docs: str
    code: str
    decorators: tuple[str, ...]
    node: FunctionNode

    @property
    def body(self) -> str:
        """The code below the signature."""
        return self.code.partition("\n")[2]


@dataclass(frozen=True)
class Documented:
    """A function or class with its first paragraph of documentation."""

    kind: str
    qualified: str
    docs: str


def parse(text: str) -> ast.Module | None:
    """The syntax tree, or None: other versions' syntax, templates, nesting too deep for the parser."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def module_name(source: str) -> str:
    """ "stdlib:json/decoder.py" -> "json.decoder"."""
    path = source.partition(":")[2].removesuffix(".py").removesuffix("/__init__")
    return path.removeprefix("src/").removeprefix("lib/").replace("/", ".")


def definitions(tree: ast.Module) -> Iterator[tuple[FunctionNode | ast.ClassDef, str, str]]:
    """(node, qualified name, owner) of the functions and classes in a module and its classes, but not in functions."""
    stack: list[tuple[list[ast.stmt], str, str]] = [(tree.body, "", "")]
    while stack:
        body, prefix, owner = stack.pop(0)
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node, prefix + node.name, owner
            elif isinstance(node, ast.ClassDef):
                yield node, prefix + node.name, owner
                stack.append((node.body, f"{prefix}{node.name}.", node.name))


def functions(tree: ast.Module, text: str, most_lines: int) -> Iterator[Function]:
    """The documented functions of at most so many lines, docstring included, whose code can be cut out cleanly."""
    lines = text.split("\n")
    for node, qualified, owner in definitions(tree):
        if isinstance(node, ast.ClassDef) or (node.end_lineno or 0) - node.lineno > most_lines:
            continue
        docs = first_paragraph(ast.get_docstring(node, clean=False))
        code = _code(node, lines) if docs else None
        if code is not None:
            decorators = tuple(ast.unparse(each) for each in node.decorator_list)
            yield Function(node.name, qualified, owner, signature(node), docs, code, decorators, node)


def documented(tree: ast.Module, module: str) -> Iterator[Documented]:
    """The public functions and classes with documentation."""
    for node, qualified, _ in definitions(tree):
        if any(part.startswith("_") for part in f"{module}.{qualified}".split(".")):
            continue
        docs = first_paragraph(ast.get_docstring(node, clean=False))
        if docs:
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            yield Documented(kind, f"{module}.{qualified}", docs)


def signature(node: FunctionNode) -> str:
    """`def name(parameters):` in one line, in the spelling of `ast.unparse`."""
    start = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{start} {node.name}({ast.unparse(node.args)}){returns}:"


def first_paragraph(docstring: str | None) -> str:
    """The first paragraph in one line, its markup made plain; "" where it is no plain prose."""
    if not docstring:
        return ""
    text = inspect.cleandoc(docstring).partition("\n\n")[0]
    text = _LITERAL.sub(r"`\1`", _ROLE.sub(r"`\1`", text))
    text = " ".join(text.split())
    if not text or not (text[0].isalpha() or text[0] in "`\"'") or text[0].islower():
        return ""
    if _NO_DESCRIPTION.match(text) or any(
        mark in text for mark in (">>>", ":param", "@param", "::", "----", "====", "Parameters ", "http", "TODO")
    ):
        return ""
    return text if text.endswith((".", "!", "?")) else text.rstrip(":;, ") + "."


def _code(node: FunctionNode, lines: list[str]) -> str | None:
    """The function in its author's words: signature in one line, no docstring, no decorators, not indented."""
    docstring, *rest = node.body
    if not rest or rest[0].lineno <= (docstring.end_lineno or 0) or docstring.lineno <= node.lineno:
        return None
    body = lines[docstring.end_lineno or 0 : node.end_lineno]
    while body and not body[0].strip():
        body.pop(0)
    indented = "\n".join(body)
    if rest[0].col_offset != 4:
        indented = textwrap.indent(textwrap.dedent(indented), "    ")
    code = f"{signature(node)}\n{indented}"
    again = parse(code)
    if again is None or len(again.body) != 1 or not isinstance(again.body[0], type(node)):
        return None
    if not _FRAGILE.search(indented):
        return code
    same = [ast.dump(statement) for statement in again.body[0].body] == [ast.dump(statement) for statement in rest]
    return code if same else None
