"""What the stages of one run share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ownlm.data.sources import Source
from ownlm.recipe.kit import Kit, find_kit, main_kit
from ownlm.recipe.plan import PLAN, Plan
from ownlm.recipe.schema import Recipe
from ownlm.runtime.progress import Screen
from ownlm.runtime.signals import Interruption
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace


@dataclass
class RunContext:
    """The recipe, where it writes, and the artifacts that earlier stages made, by role."""

    recipe: Recipe
    workspace: Workspace
    screen: Screen
    interruption: Interruption
    minutes: float
    sources: Sequence[Source] = ()
    artifacts: dict[str, Artifact] = field(default_factory=dict)

    @cached_property
    def plan(self) -> Plan:
        """The plan artifact's content."""
        return Plan.read(self.artifacts["plan"].file(PLAN))

    @cached_property
    def kits(self) -> list[Kit]:
        """The recipe's kits, in its order."""
        return [find_kit(name) for name in self.recipe.kits]

    @cached_property
    def main_kit(self) -> Kit:
        """The kit that most of the corpus belongs to: its prompts are shown, and its suite is asked."""
        from ownlm.data.corpus import read_documents

        return main_kit(read_documents(self.path("corpus"), "train"), self.kits)

    def inputs(self, *roles: str) -> dict[str, str]:
        """Role -> id of the artifacts that a stage was given."""
        return {role: self.artifacts[role].id for role in roles}

    def path(self, role: str) -> Path:
        """The folder of an artifact."""
        return self.artifacts[role].path
