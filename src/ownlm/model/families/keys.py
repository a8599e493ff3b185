"""Reading a `config.json` key by key: typed, with the field's defaults, and nothing in it left unread."""

from __future__ import annotations

from typing import Any

from ownlm.runtime.errors import OwnLMError

HARMLESS = {
    "architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "_name_or_path", "auto_map",
    "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id", "initializer_range",
    "use_cache", "cache_implementation", "output_hidden_states", "output_attentions", "return_dict",
    "chunk_size_feed_forward", "id2label", "label2id", "problem_type", "finetuning_task", "task_specific_params",
    "attention_dropout", "hidden_dropout", "classifier_dropout", "embd_pdrop", "resid_pdrop", "attn_pdrop",
    "dropout", "pretraining_tp", "gradient_checkpointing", "attn_implementation", "_attn_implementation",
    "_attn_implementation_autoset", "unsloth_version", "unsloth_fixed", "ownlm_version",
}  # fmt: skip
"""Keys that do not change what a model answers: names, ids, training's dropout, and how it was computed elsewhere."""

_ABSENT: Any = object()


class Keys:
    """A `config.json` that remembers which of its keys were read.

    `integer`, `number`, `flag` and `text` read a key; without a default it must be there. A value of null counts as
    absent. `close` raises for keys that nobody read.
    """

    def __init__(self, data: dict[str, Any], where: str = "config.json") -> None:
        self.data, self.where = data, where
        self._read = set(HARMLESS)

    def raw(self, key: str, default: Any = None) -> Any:
        """The value as it stands."""
        self._read.add(key)
        value = self.data.get(key)
        return default if value is None else value

    def _typed(self, key: str, default: Any, kinds: tuple[type, ...], what: str) -> Any:
        value = self.raw(key, default)
        if value is _ABSENT:
            raise OwnLMError(f"{self.where} lacks the key {key}.")
        if value is default:
            return value
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise OwnLMError(f"{self.where} has {key}={value!r}; it must be {what}.")
        return value

    def integer(self, key: str, default: Any = _ABSENT) -> int:
        """A whole number."""
        return self._typed(key, default, (int,), "a whole number")  # type: ignore[no-any-return]

    def number(self, key: str, default: Any = _ABSENT) -> float:
        """A number, as a float."""
        value = self._typed(key, default, (int, float), "a number")
        return float(value)

    def optional_integer(self, key: str) -> int | None:
        """A whole number, or None where there is none."""
        return None if self.raw(key) is None else self.integer(key)

    def optional_number(self, key: str) -> float | None:
        """A number, or None where there is none."""
        return None if self.raw(key) is None else self.number(key)

    def optional_text(self, key: str) -> str | None:
        """A string, or None where there is none."""
        return None if self.raw(key) is None else self.text(key)

    def flag(self, key: str, default: Any = _ABSENT) -> bool:
        """True or false."""
        return self._typed(key, default, (bool,), "true or false")  # type: ignore[no-any-return]

    def text(self, key: str, default: Any = _ABSENT) -> str:
        """A string."""
        return self._typed(key, default, (str,), "a string")  # type: ignore[no-any-return]

    def table(self, key: str) -> Keys | None:
        """A nested object, to be read and closed by itself; None where there is none."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise OwnLMError(f"{self.where} has {key}={value!r}; it must be an object.")
        return Keys(value, f"{self.where}'s {key}")

    def integers(self, key: str, default: list[int] | None = None) -> list[int]:
        """A list of whole numbers."""
        value = self.raw(key, default)
        if not isinstance(value, list) or not all(isinstance(item, int) for item in value):
            raise OwnLMError(f"{self.where} has {key}={value!r}; it must be a list of whole numbers.")
        return value

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of numbers."""
        value = self.raw(key)
        if not isinstance(value, list) or not all(isinstance(item, int | float) for item in value):
            raise OwnLMError(f"{self.where} has {key}={value!r}; it must be a list of numbers.")
        return tuple(float(item) for item in value)

    def only(self, key: str, *allowed: Any) -> None:
        """Refuses values of `key` that this decoder does not compute; absent or null is fine."""
        value = self.raw(key)
        if value is not None and not any(value == each and isinstance(value, bool) == isinstance(each, bool)
                                         for each in allowed):  # fmt: skip
            raise OwnLMError(f"{self.where} has {key}={value!r}, which this decoder does not compute.")

    def ignore(self, *keys: str) -> None:
        """Keys that change nothing in this family."""
        self._read.update(keys)

    def close(self) -> None:
        """Raises:
        OwnLMError: naming the keys that nobody read.
        """
        unread = sorted(key for key in set(self.data) - self._read if self.data[key] is not None)
        if unread:
            raise OwnLMError(f"{self.where} has keys that are not understood here: {', '.join(unread)}.")
