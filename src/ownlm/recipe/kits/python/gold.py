"""The gold score of a written function: how well the identifiers of the true body were predicted."""

from __future__ import annotations

import ast
import keyword
import re

from ownlm.recipe.kits.python.functions import parse
from ownlm.recipe.kits.python.verifier import LONGEST, extract, parameters

# Strings and comments first, so that words inside them are not taken for names. Strings may be left open at the end.
_TOKEN = re.compile(
    r"""(?:"{3}.*?(?:"{3}|\Z)|'{3}.*?(?:'{3}|\Z)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?|\#[^\n]*)"""
    r"""|(?<![\w])([^\W\d]\w*)""",
    re.DOTALL,
)
_SIGNATURE = re.compile(r"\A\s*(?:@[^\n]*\n\s*)*(?:async\s+)?def\s+\w+\s*\((?:[^()]|\([^()]*\))*\)[^:\n]*:", re.DOTALL)


def identifiers(code: str) -> set[str]:
    """The names and attributes that a piece of code mentions, without keywords; works on code that does not parse."""
    names = {match[1] for match in _TOKEN.finditer(code[:LONGEST]) if match[1]}
    return {name for name in names if not keyword.iskeyword(name) and name not in ("self", "cls")}


def gold_function(signature: str, true_body: str, answer: str) -> float:
    """F1 in 0..1 between the sets of identifiers in the answer's body and in the true one.

    The parameters and the function's own name stand in the prompt, and the verifier rewards their use: they do not
    count. Built-ins do: choosing `isinstance` or `sorted` is a part of the solution. Sets, so that repeating a name
    gains nothing.
    """
    given = _given(signature)
    wanted = identifiers(true_body) - given
    said = identifiers(_SIGNATURE.sub("", extract(answer)[:LONGEST], count=1)) - given
    shared = len(wanted & said)
    return 2 * shared / (len(wanted) + len(said)) if shared else 0.0


def _given(signature: str) -> set[str]:
    tree = parse(f"{signature}\n    pass")
    function = tree.body[0] if tree and tree.body else None
    if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
        return identifiers(signature)
    return {function.name, *parameters(function)}
