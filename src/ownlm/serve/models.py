"""The models that a server may be asked for, opened when they are first needed."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock

from ownlm.engine.request import LanguageModel
from ownlm.runtime.errors import ArtifactDamaged, ArtifactNotFound, ModelNotFound, OwnLMError
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace

Opener = Callable[[str, Workspace], LanguageModel]
FIRST = "first-model"
KINDS = ("model", "adapter")
"""The artifacts that answer: an adapter does so on its base."""
FILES = ("config.json", "adapter_config.json")
"""What tells a model's or an adapter's folder."""
ELSEWHERE = ("hf:", "openai:")
"""Names that no workspace knows: the Hub's and remote endpoints'."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedModel:
    """What is known of a model without opening it. None: not known (yet)."""

    name: str
    artifact_id: str | None = None
    stage: str = ""
    context: int | None = None
    parameters: int | None = None
    heldout_bits_per_byte: float | None = None
    created: int = 0


class ModelSet:
    """Only the names given here can be asked for; without any, every alias that stands for a model can.

    A model is opened on first use, once, also when two threads ask. An alias is looked up at each request: when it
    has moved (a promotion), the next request gets the new model. One model is kept in memory for each artifact.
    """

    def __init__(self, names: Sequence[str], workspace: Workspace, opener: Opener | None = None) -> None:
        self._names = tuple(dict.fromkeys(names))
        self._workspace = workspace
        self.opener = opener or _open_model
        self._opened: dict[str, LanguageModel] = {}
        self._in_use: dict[str, str] = {}
        self._locks: defaultdict[str, Lock] = defaultdict(Lock)
        self._guard = Lock()

    # ---- what there is

    def names(self) -> list[str]:
        """The names that requests may use, as they were given."""
        if self._names:
            return list(self._names)
        models = {artifact.id for kind in KINDS for artifact in self._workspace.artifacts(kind)}
        found = [alias for alias, identifier in self._workspace.aliases().items() if identifier in models]
        return sorted(found, key=lambda name: (name != FIRST, name))

    def check(self, name: str) -> str:
        """`name`, when it is served.

        Raises:
            ModelNotFound: it is not; the message lists what is.
        """
        names = self.names()
        if name in names:
            return name
        listed = ", ".join(names) if names else "no model yet; `ownlm demo` builds a first one"
        raise ModelNotFound(f"The model '{name[:100]}' is not served here. There is: {listed}.")

    def check_all(self) -> None:
        """Looks every name up without opening a model, so that a misspelt one is told before the server starts.

        Raises:
            ModelNotFound: a name stands for nothing; the message lists what there is.
        """
        for name in self._names:
            if not name.startswith(ELSEWHERE) and not any((Path(name) / file).is_file() for file in FILES):
                self._artifact(name)

    def describe(self, name: str) -> ServedModel:
        """What the manifest tells, or the model itself where it is open; loads nothing.

        Raises:
            ModelNotFound: the name is not served, or what it stood for is gone.
        """
        self.check(name)
        opened = self._opened.get(self._in_use.get(name, ""))
        try:
            artifact = None if name.startswith(ELSEWHERE) else self._artifact(name)
        except (ModelNotFound, ArtifactDamaged):
            artifact = None
        if artifact is not None:
            return _described(name, artifact)
        if opened is not None:
            facts = opened.facts
            return ServedModel(
                name, facts.id, facts.stage, facts.context or None, facts.parameters, facts.heldout_bits_per_byte
            )
        return ServedModel(name)

    def is_open(self, name: str) -> bool:
        """Whether the model is in memory."""
        return self._in_use.get(name) in self._opened

    # ---- opening

    def open(self, name: str) -> LanguageModel:
        """The model behind a name; blocks while it is read.

        Where a promoted model cannot be opened, the one before goes on answering and a warning is logged.

        Raises:
            ModelNotFound: the name is not served.
            OwnLMError: the model cannot be opened.
        """
        self.check(name)
        key = self._key(name)
        with self._guard:
            lock = self._locks[key]
        with lock:
            model = self._opened.get(key)
            if model is None:
                try:
                    model = self.opener(name, self._workspace)
                except OwnLMError as error:
                    before = self._opened.get(self._in_use.get(name, ""))
                    if before is None:
                        raise
                    log.warning("%s could not follow its alias and stays as it was: %s", name, error)
                    return before
            self._keep(name, key, model)
        return model

    def _keep(self, name: str, key: str, model: LanguageModel) -> None:
        """Remembers the model, and lets go of those that no name stands for any longer."""
        with self._guard:
            self._opened[key], self._in_use[name] = model, key
            for old in set(self._opened) - set(self._in_use.values()):
                del self._opened[old]

    def _key(self, name: str) -> str:
        """Names that stand for the same artifact share one model; whatever is no artifact is its own."""
        if name.startswith(ELSEWHERE):
            return name
        try:
            return self._workspace.resolve(name, KINDS).id
        except (ArtifactNotFound, ArtifactDamaged):
            return self._in_use.get(name, name)

    def _artifact(self, name: str) -> Artifact:
        try:
            return self._workspace.resolve(name, KINDS)
        except ArtifactNotFound as error:
            raise ModelNotFound(str(error)) from None


def _described(name: str, artifact: Artifact) -> ServedModel:
    metrics = artifact.metrics
    context, parameters = metrics.get("context"), metrics.get("parameters")
    heldout = metrics.get("heldout_bits_per_byte")
    try:
        created = int(datetime.fromisoformat(artifact.created).timestamp())
    except ValueError:
        created = 0
    return ServedModel(
        name=name,
        artifact_id=artifact.id,
        stage=str(artifact.settings.get("stage", "")),
        context=context if isinstance(context, int) else None,
        parameters=parameters if isinstance(parameters, int) else None,
        heldout_bits_per_byte=float(heldout) if isinstance(heldout, int | float) else None,
        created=created,
    )


def _open_model(name: str, workspace: Workspace) -> LanguageModel:
    from ownlm.engine.open import open_model  # brings torch, so not before a model is needed

    return open_model(name, workspace)
