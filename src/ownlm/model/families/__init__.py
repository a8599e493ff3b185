"""Families: small two-way mappings between a Hugging Face config with its tensor names and the one decoder."""

from __future__ import annotations

from typing import Any, Protocol, cast

from ownlm.model.config import DecoderConfig
from ownlm.model.families.stored import Stored
from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.extensions import load_extensions


class Family(Protocol):
    """What `ownlm.families` entry points provide; `model_type` is the value in a checkpoint's `config.json`."""

    model_type: str

    def read_config(self, data: dict[str, Any]) -> DecoderConfig:
        """Raises `OwnLMError` that names any key which changes the computation and is not understood."""
        ...

    def write_config(self, config: DecoderConfig) -> dict[str, Any]:
        """The `config.json` of a decoder. Raises `OwnLMError` where this family does not compute what it does."""
        ...

    def tensors(self, config: DecoderConfig) -> list[Stored]:
        """Which tensors a checkpoint has, and which of the decoder's parameters each of them holds."""
        ...


def families() -> dict[str, Family]:
    """All families, by the `model_type` of their checkpoints."""
    return {family.model_type: family for family in cast(dict[str, Family], load_extensions("ownlm.families")).values()}


def family_of(data: dict[str, Any], where: str) -> Family:
    """The family that reads this `config.json`.

    Raises:
        OwnLMError: no family knows its `model_type`; the message lists the known ones.
    """
    known = families()
    family = known.get(str(data.get("model_type")))
    if family is None:
        raise OwnLMError(
            f"{where} describes a model of type {data.get('model_type')!r}; the known types are: "
            f"{', '.join(sorted(known))}."
        )
    return family


def family_for(config: DecoderConfig) -> Family:
    """The family in whose files a decoder of this config can be written, the one of new models first.

    Raises:
        OwnLMError: no family has all of its choices.
    """
    known = families()
    for family in sorted(known.values(), key=lambda each: each.model_type != "qwen3"):
        try:
            if family.read_config(family.write_config(config)) == config:
                return family
        except OwnLMError:
            continue
    raise OwnLMError(f"No known family ({', '.join(sorted(known))}) has all the choices of this decoder's config.")


__all__ = ["Family", "Stored", "families", "family_for", "family_of"]
