"""A kit: all that the chain needs to know about one sort of document, and the only place where it may know it.

Other packages add kits through the entry-point group `ownlm.kits`; each entry is an object with these attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from ownlm.align.examples import InstructionExample
from ownlm.data.document import Document
from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.extensions import ExtensionError, extension_names, load_extension
from ownlm.score.verdict import Verdict

GROUP = "ownlm.kits"
BUILT_IN = ("python", "prose")
"""In this order: the first kit that applies to a document is the one that is used."""


@runtime_checkable
class Kit(Protocol):
    """Examples, a verifier, a gold score and prompts for one sort of document.

    A kit may also have a `suite`: the path of a suite in YAML that the evaluation asks unless the recipe names one.
    """

    @property
    def name(self) -> str:
        """As it is called in recipes."""

    def applies(self, document: Document) -> bool:
        """Whether examples can be made from this document."""

    def examples(self, document: Document) -> Iterator[InstructionExample]:
        """The instruction examples of one document, always the same ones in the same order."""

    def verifiable(self, example: InstructionExample) -> bool:
        """Whether `verify` says enough about answers to this example for alignment to use it."""

    def verify(self, example: InstructionExample, answer: str, finished: bool) -> Verdict:
        """Checks an answer without running anything; `finished` says that it ended by itself.

        Whether the answer is copied from the training text is not asked here, since that takes the tokens.
        """

    def gold(self, example: InstructionExample, answer: str) -> float:
        """How near an answer is to the true one, in 0..1, by something that `verify` does not look at."""

    def starters(self) -> list[str]:
        """First messages for the chat page that show what a model trained on such documents can do."""

    def watch_prompts(self) -> list[str]:
        """Three beginnings of a document, to be continued while the model is trained."""


def kits() -> list[Kit]:
    """The built-in kits, then those of other packages by name.

    Raises:
        OwnLMError: one cannot be imported or is no kit; it is named.
    """
    others = [name for name in extension_names(GROUP) if name not in BUILT_IN]
    return [find_kit(name) for name in (*BUILT_IN, *others)]


def find_kit(name: str) -> Kit:
    """The kit of this name.

    Raises:
        OwnLMError: there is none, or it cannot be imported, or it is no kit.
    """
    found = _built_in(name) if name in BUILT_IN else load_extension(GROUP, name)
    if not isinstance(found, Kit):
        raise ExtensionError(f"The extension '{name}' ({GROUP}) is no kit: it lacks {', '.join(_lacks(found))}.")
    return found


def kit_for(document: Document, among: Sequence[Kit]) -> Kit | None:
    """The first kit that applies to this document."""
    return next((kit for kit in among if kit.applies(document)), None)


def main_kit(documents: Sequence[Document], among: Sequence[Kit]) -> Kit:
    """The kit that most bytes of these documents belong to.

    Raises:
        OwnLMError: no kit applies to any of them.
    """
    sizes = [0] * len(among)
    for document in documents:
        for index, kit in enumerate(among):
            if kit.applies(document):
                sizes[index] += document.bytes
                break
    if not any(sizes):
        names = ", ".join(kit.name for kit in among) or "none"
        raise OwnLMError(f"No kit can make instruction examples from these documents (kits: {names}).")
    return among[sizes.index(max(sizes))]


def _built_in(name: str) -> object:
    # Not through the entry points, so that a source tree works before it is installed.
    if name == "python":
        from ownlm.recipe.kits.python import kit as python

        return python
    from ownlm.recipe.kits.prose import kit as prose

    return prose


def _lacks(found: object) -> list[str]:
    wanted = ("name", "applies", "examples", "verifiable", "verify", "gold", "starters", "watch_prompts")
    return [name for name in wanted if not hasattr(found, name)]
