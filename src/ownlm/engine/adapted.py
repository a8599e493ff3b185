"""A base and its adapters, served together: one set of frozen weights, and a `LanguageModel` for each adapter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import MutableMapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from ownlm.data.chat_format import ChatFormat
from ownlm.data.foreign_tokenizer_config import read_templates
from ownlm.engine.local import LocalModel
from ownlm.engine.request import ModelFacts
from ownlm.model.adapters import Adapter, Adapters, is_adapter_folder, read_adapter, read_adapter_config
from ownlm.model.adapters.config import CONFIG
from ownlm.model.adapters.files import WEIGHTS
from ownlm.model.families import Family, family_for
from ownlm.model.folder import read_config
from ownlm.runtime.errors import ArtifactNotFound, ModelNotFound
from ownlm.store.artifact import Artifact, sha256_of
from ownlm.store.workspace import Workspace

if TYPE_CHECKING:
    from types import TracebackType

    from ownlm.engine.open import Weights


class _Turn:
    """The base's lock, with an adapter at work while it is held."""

    def __init__(self, lock: Lock, adapters: Adapters, name: str) -> None:
        self._lock, self._adapters, self._name = lock, adapters, name

    def __enter__(self) -> None:
        self._lock.acquire()
        try:
            self._adapters.activate(self._name)
        except BaseException:
            self._lock.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._adapters.activate(None)
        finally:
            self._lock.release()

    def locked(self) -> bool:
        """Whether a request of the base or of any of its adapters is running."""
        return self._lock.locked()


class AdaptedModel(LocalModel):
    """One adapter of a `SharedBase`, as a `LanguageModel`: it answers as the merged model would.

    Its requests take turns with those of the base and of its other adapters: one runs at a time.
    """

    def __init__(self, base: LocalModel, adapters: Adapters, name: str, facts: ModelFacts, chat: ChatFormat) -> None:
        super().__init__(base.decoder, base.tokenizer, chat, facts)
        self._lock = _Turn(base._lock, adapters, name)  # type: ignore[assignment]


class SharedBase:
    """A model in memory and the adapters that were opened for it; between requests none is at work."""

    def __init__(self, model: LocalModel, family: Family | None = None) -> None:
        self.model = model
        self.family = family or family_for(model.decoder.config)
        self.adapters = Adapters(model.decoder)

    def open(self, folder: Path, name: str, identifier: str = "", stage: str = "") -> AdaptedModel:
        """The model that an adapter's folder makes of this base; chat templates that lie there are its own.

        Raises:
            OwnLMError: the adapter cannot be read or does not fit the base; or the name is taken.
        """
        adapter = read_adapter(folder, self.model.decoder, self.family)
        templates = read_templates(folder)
        chat = ChatFormat(templates, self.model.chat.variables) if templates else self.model.chat
        return self.add(adapter, name, identifier or _identifier(folder, self.model.facts.id), stage, chat)

    def add(
        self, adapter: Adapter, name: str, identifier: str = "", stage: str = "", chat: ChatFormat | None = None
    ) -> AdaptedModel:
        """The model that an adapter in memory makes of this base."""
        own, key = self.model.facts, identifier or name
        with self.model._lock:
            if not identifier or key not in self.adapters.names:
                self.adapters.add(key, adapter)
        count = sum(parameter.numel() for parameter in adapter.parameters())
        facts = ModelFacts(
            name, identifier or f"{own.id}+{name}", own.context,
            parameters=None if own.parameters is None else own.parameters + count,
            stage=stage, extra={**own.extra, "base": own.name, "adapter parameters": f"{count:,}"},
        )  # fmt: skip
        model = AdaptedModel(self.model, self.adapters, key, facts, chat or self.model.chat)
        model.keeps = self
        return model

    def close(self, name: str) -> None:
        """Forgets an adapter, after the request that is running; its model is of no use afterwards."""
        with self.model._lock:
            self.adapters.remove(name)


def adapter_of(name: str, workspace: Workspace) -> tuple[Path, Artifact | None] | None:
    """The adapter folder that MODEL names: an adapter artifact's, or one that PEFT wrote; None: it names no adapter.

    Raises:
        ArtifactDamaged: it is an artifact, and its files are not what was written.
    """
    try:
        artifact = workspace.resolve(name, ("adapter",))
    except ArtifactNotFound:
        folder = Path(name)
        return (folder, None) if is_adapter_folder(folder) else None
    artifact.verify()
    return artifact.path, artifact


def base_of(adapter: Path, artifact: Artifact | None, workspace: Workspace, base: str | None = None) -> Path:
    """The model folder of an adapter's base: `base` (a MODEL) if given, else what the adapter says of itself.

    That is the artifact it was made from, or the folder or model of this workspace that `base_model_name_or_path`
    names. A name of the Hub is not downloaded unasked.

    Raises:
        ModelNotFound: it is not here; the message says how to give it.
    """
    if base is not None:
        if base.startswith("hf:"):
            from ownlm.engine import hub

            return hub.download(hub.find(base.removeprefix("hf:")))
        found = _model_folder(base, workspace)
        if found is None:
            raise ModelNotFound(f"The base '{base}' is no model of this workspace and no model folder.")
        return found
    if artifact is not None and (identifier := artifact.inputs.get("base")):
        if (found := _model_folder(identifier, workspace)) is not None:
            return found
        raise ModelNotFound(f"The base of adapter {artifact.label}, model {identifier}, is no longer here.")
    told = read_adapter_config(adapter).base
    for name in (told, str(adapter / told)) if told else ():
        if (found := _model_folder(name, workspace)) is not None:
            return found
    if not told:
        raise ModelNotFound(
            f"The adapter in {adapter} does not say what its base is: give it (`ownlm adapter merge --base MODEL`, or "
            "base_model_name_or_path in its adapter_config.json)."
        )
    raise ModelNotFound(
        f"The adapter in {adapter} was made for {told}, which is not here: bring it (`ownlm import "
        "hf:ORG/NAME`), or say where it is (`ownlm adapter merge --base MODEL`)."
    )


def _model_folder(name: str, workspace: Workspace) -> Path | None:
    try:
        artifact = workspace.resolve(name, ("model",))
    except ArtifactNotFound:
        return Path(name) if (Path(name) / "config.json").is_file() else None
    artifact.verify()
    return artifact.path


def open_adapted(
    name: str,
    workspace: Workspace,
    *,
    base: str | None = None,
    weights: Weights | None = None,
    shared: MutableMapping[Path, SharedBase] | None = None,
) -> AdaptedModel | None:
    """The model that MODEL names where it is an adapter (a PEFT folder or an adapter artifact); None: it is none.

    `weights` says how the base's are held. `shared` are bases in memory by their folder: one that is there is used,
    another one put there.

    Raises:
        ModelNotFound: the adapter's base is not here.
        OwnLMError: adapter or base cannot be read, or they do not fit.
    """
    found = adapter_of(name, workspace)
    if found is None:
        return None
    folder, artifact = found
    place = base_of(folder, artifact, workspace, base).resolve()
    held = None if shared is None else shared.get(place)
    if held is None:
        from ownlm.engine.open import Weights, open_folder

        held = SharedBase(open_folder(place, place.name, weights=weights or Weights()), read_config(place)[1])
        if shared is not None:
            shared[place] = held
    if artifact is None:
        return held.open(folder, name)
    return held.open(folder, name, artifact.id, str(artifact.settings.get("stage", "")))


def _identifier(folder: Path, base: str) -> str:
    """12 hexadecimal digits of the adapter's contents and its base."""
    digest = hashlib.sha256(base.encode())
    for path in (folder / CONFIG, folder / WEIGHTS):
        digest.update(f"{path.name}:{sha256_of(path)}\n".encode())
    digest.update(json.dumps(read_templates(folder), sort_keys=True).encode())
    return digest.hexdigest()[:12]
