"""The metadata of a GGUF file, read field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ownlm.runtime.errors import OwnLMError

_REQUIRED: Any = object()


def shortest(value: float) -> float:
    """The decimal that an fp32 number was written for: 1e-06 instead of 9.99999997e-07."""
    return float(str(np.float32(value)))


class Fields:
    """Values by key; `{arch}` in a key stands for the architecture's name. An absent key gives the default."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where
        self._read = set[str]()
        self.architecture = self.text("general.architecture")

    def _key(self, key: str) -> str:
        key = key.replace("{arch}", self.architecture) if "{arch}" in key else key
        self._read.add(key)
        return key

    def _get(self, key: str, default: Any, kinds: tuple[type, ...], what: str) -> Any:
        key = self._key(key)
        value = self.values.get(key, default)
        if value is _REQUIRED:
            raise OwnLMError(f"{self.where} lacks the key {key}.")
        if value is not default and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise OwnLMError(f"{self.where} has {key}={str(value)[:100]!r}; it must be {what}.")
        return value

    def text(self, key: str, default: Any = _REQUIRED) -> str:
        """A string."""
        return self._get(key, default, (str,), "a string")  # type: ignore[no-any-return]

    def integer(self, key: str, default: Any = _REQUIRED) -> int:
        """A whole number; a list of equal ones (a value a layer) counts as one."""
        value = self.values.get(self._key(key))
        if isinstance(value, list) and value and len(set(value)) == 1:
            return int(value[0])
        return self._get(key, default, (int,), "one whole number for all layers")  # type: ignore[no-any-return]

    def number(self, key: str, default: Any = _REQUIRED) -> float:
        """A number."""
        return shortest(self._get(key, default, (int, float), "a number"))

    def optional_number(self, key: str) -> float | None:
        """A number, or None where there is none."""
        value = self._get(key, None, (int, float), "a number")
        return None if value is None else shortest(value)

    def flag(self, key: str, default: Any = _REQUIRED) -> bool:
        """True or false."""
        return self._get(key, default, (bool,), "true or false")  # type: ignore[no-any-return]

    def either(self, key: str, default: int) -> int | list[Any]:
        """A whole number, or a list."""
        return self._get(key, default, (int, list), "a whole number or a list")  # type: ignore[no-any-return]

    def items(self, key: str, default: Any = _REQUIRED) -> list[Any]:
        """A list."""
        return self._get(key, default, (list,), "a list")  # type: ignore[no-any-return]

    def ignore(self, *keys: str) -> None:
        """Keys of the network that llama.cpp does not look at, or that change nothing."""
        for key in keys:
            self._key(key)

    def close(self) -> None:
        """
        Raises:
            OwnLMError: naming the keys of the network that nobody read.
        """
        network = f"{self.architecture}."
        unread = sorted(key for key in self.values if key.startswith(network) and key not in self._read)
        if unread:
            raise OwnLMError(f"{self.where} has keys that are not understood here: {', '.join(unread)}.")
