"""Which models came before a model, and how the pages reach those that no request may name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ownlm.data.message import Message
from ownlm.engine.request import Event, LanguageModel, SamplingParams, TextDelta
from ownlm.runtime.errors import ArtifactDamaged, ArtifactNotFound, ModelNotFound
from ownlm.serve.context import ServeContext
from ownlm.serve.gateway import Gateway
from ownlm.serve.models import ModelSet
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace

T = TypeVar("T")


def ancestors(workspace: Workspace, model: Artifact) -> list[Artifact]:
    """The model and those that it was made from, the first one first."""
    chain = [model]
    while (key := chain[0].inputs.get("base") or chain[0].inputs.get("reference")) is not None:
        try:
            before = workspace.by_id(key)
        except (ArtifactNotFound, ArtifactDamaged):
            break
        if before.kind != "model" or before.id in {each.id for each in chain}:
            break
        chain.insert(0, before)
    return chain


def three_stages(workspace: Workspace, model: Artifact) -> dict[str, Artifact]:
    """The stages base, instructed and aligned of a model's life, as far as there are; the latest of each."""
    return {str(each.settings.get("stage", "")): each for each in ancestors(workspace, model)}


def heir(workspace: Workspace, model: Artifact) -> Artifact:
    """The model that was made from this one in the end, by the newest artifacts; itself when it is the last."""
    models = workspace.artifacts("model")
    while after := [each for each in models if each.inputs.get("base") == model.id and each.settings.get("stage")]:
        same_run = [each for each in after if each.settings.get("stage") != model.settings.get("stage")]
        if not same_run:
            break
        model = same_run[-1]
    return model


@dataclass
class Shelf:
    """Models by the ids of their artifacts.

    A page shows the ancestors of a model, or one that was trained a minute ago. Visitors cannot name those: the page
    does, and each gets a `ModelSet` of its own here unless the server has it open under a name.
    """

    context: ServeContext
    _own: dict[str, Gateway] = field(default_factory=dict)

    def stream(self, model: str, prompt: str | Sequence[Message], params: SamplingParams) -> AsyncIterator[Event]:
        """The events of the model with this artifact id, or of this served name."""
        gateway, name = self._find(model)
        return gateway.stream(name, prompt, params)

    async def call(self, model: str, function: Callable[[LanguageModel], T]) -> T:
        """`function(model)` in the model's turn, off the event loop."""
        gateway, name = self._find(model)
        return await gateway.call(name, function)

    async def text(self, model: str, prompt: str | Sequence[Message], params: SamplingParams) -> str:
        """A whole answer."""
        async with aclosing(_closable(self.stream(model, prompt, params))) as events:
            return "".join([event.text async for event in events if isinstance(event, TextDelta)])

    def close(self) -> None:
        """Cancels what runs."""
        for gateway in self._own.values():
            gateway.close()

    def _find(self, model: str) -> tuple[Gateway, str]:
        models = self.context.models
        for name in models.names():
            if model == name or self._id(name) == model:
                return self.context.gateway, name
        if model not in self._own:
            beside = ModelSet([model], self.context.workspace, models.opener)
            self._own[model] = Gateway(beside)
        return self._own[model], model

    def _id(self, name: str) -> str | None:
        try:
            return self.context.models.describe(name).artifact_id
        except ModelNotFound:
            return None


def _closable(events: AsyncIterator[Event]) -> Any:
    """`Gateway.stream` is an asynchronous generator, which its type does not tell."""
    return events
