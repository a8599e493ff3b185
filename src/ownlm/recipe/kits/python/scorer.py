"""The scorer `python_compiles`, for suites: `python_compiles: true`."""

from __future__ import annotations

from typing import Any

from ownlm.recipe.kits.python.verifier import compiles
from ownlm.score.text import Answer, Scorer


def _score(answer: Answer, target: bool) -> float:
    return float(compiles(answer.text) == target)


def _complaint(target: Any) -> str | None:
    return None if isinstance(target, bool) else "needs true or false"


scorer = Scorer("python_compiles", _score, _complaint)
