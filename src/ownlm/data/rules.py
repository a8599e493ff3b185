"""Rules of other packages that a document must pass to be learned from: the entry points of `ownlm.rules`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from ownlm.data.document import Document
from ownlm.runtime.extensions import load_extension


class Rule(Protocol):
    """Gives the reason why a document is left out, or None. The reason is counted and listed with the document."""

    def __call__(self, document: Document) -> str | None: ...


def load_rules(names: Sequence[str]) -> list[Rule]:
    """The rules of these names, in this order.

    Raises:
        ExtensionError: a name that no package provides, or one that cannot be imported.
    """
    return [cast(Rule, load_extension("ownlm.rules", name)) for name in names]


def first_fault(document: Document, rules: Sequence[Rule]) -> str | None:
    """What the first rule that the document breaks says."""
    return next((fault for rule in rules if (fault := rule(document)) is not None), None)
