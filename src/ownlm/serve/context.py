"""What the API and the Studio share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from ownlm.serve.gateway import Gateway
from ownlm.serve.metrics import Metrics
from ownlm.serve.models import ModelSet
from ownlm.serve.settings import ServeSettings
from ownlm.store.feedback import FeedbackStore, open_feedback
from ownlm.store.workspace import Workspace


@dataclass
class ServeContext:
    """The workspace, the models and the way to them. The feedback database is opened when it is first needed."""

    workspace: Workspace
    models: ModelSet
    gateway: Gateway
    settings: ServeSettings
    metrics: Metrics = field(default_factory=Metrics)

    @cached_property
    def feedback(self) -> FeedbackStore:
        """Where verdicts are kept."""
        return open_feedback(self.workspace)

    def close(self) -> None:
        """Cancels what runs and closes the database."""
        self.gateway.close()
        if "feedback" in self.__dict__:
            self.feedback.close()
