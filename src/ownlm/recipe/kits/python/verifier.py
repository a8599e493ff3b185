"""Verifies a Python function that a model wrote by reading it. Nothing of it is ever run."""

from __future__ import annotations

import ast
import re
import warnings

from ownlm.recipe.kits.python.functions import FunctionNode, parse
from ownlm.score.verdict import Verdict

LONGEST = 20_000
"""Characters; a longer answer is not looked at. It also bounds how deep hostile code can be nested."""
LEAST_STATEMENTS = 3
CHECKS = ("compiles", "signature", "uses_parameters", "no_stub", "ends")

_FENCE = re.compile(r"```[\w+-]*[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL)


def verify_function(signature: str, answer: str, finished: bool) -> Verdict:
    """Five checks; the value is the share that holds.

    "compiles": it is valid Python. "signature": it defines the function asked for, with the same parameters in the same
    order, kinds and defaults (annotations may differ). "uses_parameters": the body reads each of them, save `self`,
    `cls` and those that begin with an underscore. "no_stub": three statements or more besides docstrings, `pass` and
    `...`. "ends": the model ended the answer itself.
    """
    code = extract(answer)
    tree = parse(code) if len(code) <= LONGEST else None
    wanted = _first_function(parse(f"{signature}\n    pass"), None)
    try:
        found = _first_function(tree, wanted.name if wanted else None)
        checks = {
            "compiles": tree is not None and _compiles(tree),
            "signature": found is not None and wanted is not None and _same_signature(found, wanted),
            "uses_parameters": found is not None and _uses_parameters(found),
            "no_stub": found is not None and count_statements(found) >= LEAST_STATEMENTS,
        }
    except (RecursionError, MemoryError):
        checks = dict.fromkeys(CHECKS[:-1], False)
    return Verdict.of({**checks, "ends": finished})


def compiles(code: str) -> bool:
    """Whether this (or what stands in its first ``` fence) is valid Python."""
    code = extract(code)
    tree = parse(code) if len(code) <= LONGEST else None
    return tree is not None and bool(tree.body) and _compiles(tree)


def extract(answer: str) -> str:
    """The code of an answer: what stands in its first ``` fence, closed or not; else all of it."""
    fence = _FENCE.search(answer)
    return fence[1] if fence else answer


def count_statements(function: FunctionNode) -> int:
    """Statements in the body at any depth, without docstrings, `pass` and `...`."""
    nodes = (node for statement in function.body for node in ast.walk(statement))
    return sum(isinstance(node, ast.stmt) and not _is_empty(node) for node in nodes)


def parameters(function: FunctionNode) -> list[str]:
    """The names of all parameters, in order."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, arguments.vararg, *arguments.kwonlyargs, arguments.kwarg]
    return [each.arg for each in named if each is not None]


def _first_function(tree: ast.Module | None, name: str | None) -> FunctionNode | None:
    for node in tree.body if tree else []:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and name in (None, node.name):
            return node
    return None


def _same_signature(found: FunctionNode, wanted: FunctionNode) -> bool:
    return type(found) is type(wanted) and found.name == wanted.name and _shape(found.args) == _shape(wanted.args)


def _shape(arguments: ast.arguments) -> tuple[object, ...]:
    def names(group: list[ast.arg]) -> tuple[str, ...]:
        return tuple(each.arg for each in group)

    def values(group: list[ast.expr] | list[ast.expr | None]) -> tuple[str | None, ...]:
        return tuple(None if each is None else ast.dump(each) for each in group)

    return (
        names(arguments.posonlyargs), names(arguments.args), arguments.vararg and arguments.vararg.arg,
        names(arguments.kwonlyargs), arguments.kwarg and arguments.kwarg.arg,
        values(arguments.defaults), values(arguments.kw_defaults),
    )  # fmt: skip


def _uses_parameters(function: FunctionNode) -> bool:
    read = {
        node.id
        for statement in function.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    needed = {name for name in parameters(function) if name not in ("self", "cls") and not name.startswith("_")}
    return needed <= read


def _is_empty(node: ast.stmt) -> bool:
    return isinstance(node, ast.Pass) or (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and (node.value.value is ... or isinstance(node.value.value, str))
    )


def _compiles(tree: ast.Module) -> bool:
    """Finds what the parser lets through, such as `return` outside a function; compiling runs no code."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(tree, "<answer>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    return True
