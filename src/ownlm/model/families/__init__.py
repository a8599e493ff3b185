"""Families: small two-way mappings between a Hugging Face config with its tensor names and the one decoder."""

from __future__ import annotations

from typing import Any, Protocol, cast

from ownlm.model.config import DecoderConfig
from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.extensions import load_extensions


class Family(Protocol):
    """What `ownlm.families` entry points provide; `model_type` is the value in a checkpoint's `config.json`."""

    model_type: str

    def read_config(self, data: dict[str, Any]) -> DecoderConfig:
        """Raises `OwnLMError` that names any key which changes the computation and is not understood."""
        ...

    def write_config(self, config: DecoderConfig) -> dict[str, Any]: ...

    def foreign_name(self, name: str) -> str:
        """The tensor name in the checkpoint for the decoder's parameter `name`."""
        ...


def family_of(data: dict[str, Any], where: str) -> Family:
    """The family that reads this `config.json`.

    Raises:
        OwnLMError: no family knows its `model_type`; the message lists the known ones.
    """
    families = cast(dict[str, Family], load_extensions("ownlm.families"))
    for family in families.values():
        if family.model_type == data.get("model_type"):
            return family
    known = ", ".join(sorted(family.model_type for family in families.values()))
    raise OwnLMError(f"{where} describes a model of type {data.get('model_type')!r}; the known types are: {known}.")
