"""What the Studio's pages share on one server."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from ownlm.runtime.errors import ArtifactDamaged, ArtifactNotFound
from ownlm.serve.context import ServeContext
from ownlm.store.artifact import Artifact
from ownlm.studio.base_runs import BaseRuns
from ownlm.studio.jsonl import read_json
from ownlm.studio.lineage import Shelf
from ownlm.studio.run_state import RunReader
from ownlm.studio.training import Trainer


@dataclass(frozen=True)
class StudioSettings:
    """`pairs` blind choices make a round; `align` is the command that learns from them, `minutes` its budget."""

    pairs: int = 10
    minutes: float = 1
    answer_tokens: int = 160
    align: tuple[str, ...] = (sys.executable, "-m", "ownlm", "align")


@dataclass
class Studio:
    """The server's context, and what the pages add to it."""

    context: ServeContext
    settings: StudioSettings = field(default_factory=StudioSettings)

    def __post_init__(self) -> None:
        self.shelf = Shelf(self.context)
        self.runs = RunReader(self.context.workspace)
        self.base_runs = BaseRuns(self.context.workspace)
        self.trainer = Trainer(self.context.workspace, self.settings.align, self.settings.minutes)

    def artifact(self, name: str) -> Artifact | None:
        """The model artifact that a served name stands for; None for a remote model or a bare folder."""
        try:
            return self.context.workspace.resolve(name, ("model",))
        except (ArtifactNotFound, ArtifactDamaged):
            return None

    def chosen(self, wanted: str) -> str | None:
        """`wanted` where it is served, else the first model; None where there is none."""
        names = self.context.models.names()
        return wanted if wanted in names else next(iter(names), None)

    def starters(self, name: str) -> list[str]:
        """First messages that show what a model can do, as its folder tells."""
        artifact = self.artifact(name)
        found = read_json(artifact.path / "starters.json") if artifact else None
        return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []

    def close(self) -> None:
        """Stops what runs."""
        self.trainer.close()
        self.shelf.close()
