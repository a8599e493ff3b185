"""What one may choose oneself of how a base model is trained; everything has a default that was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from ownlm.runtime.errors import OwnLMError
from ownlm.train.batching import BatchRamp
from ownlm.train.schedule import Schedule

if TYPE_CHECKING:
    from ownlm.train.optimisers import Rates

RAMPED = 0.25
"""The share of the steps in which batches are smaller, where they are at first."""
SHORTENED = 0.33
"""The share of the steps in which less of the context is seen, where it is shortened at first."""


@dataclass(frozen=True)
class Hyperparameters:
    """`pretrain:` of a recipe, and `--set` of `ownlm pretrain`. None leaves it to the plan's rules.

    - `schedule` is "wsd" (warm-up, stable, decay), "cosine" or "linear"; `warmup` and `decay` are shares of the steps.
    - `learning_rate` multiplies every peak rate. `weight_decay` is that of the matrices.
    - `neuron_beta` above 0 (0.95 is usual) makes Muon NorMuon, `cautious` decays only weights that the update shrinks
      anyway, `momentum_warmup` is the number of steps in which Muon's momentum rises.
    - `batch_halvings`: how often the batch is halved at first. `first_context`: tokens that the first third of the
      steps see at a time (0: all). `documents_apart`: no token sees another document.
    - `z_loss` keeps the logits' log-sum near 0 (1e-4 is usual).
    - `float8` multiplies the blocks' matrices in float8, on NVIDIA GPUs that can, by torchao.
    """

    schedule: Literal["wsd", "cosine", "linear"] = "wsd"
    warmup: float | None = None
    decay: float | None = None
    learning_rate: float = 1.0
    weight_decay: float = 0.0
    neuron_beta: float = 0.0
    cautious: bool = False
    momentum_warmup: int = 100
    batch_halvings: int = 0
    first_context: int = 0
    documents_apart: bool = False
    z_loss: float = 0.0
    float8: bool = False

    def changed(self) -> dict[str, Any]:
        """What differs from the defaults."""
        defaults = Hyperparameters()
        return {name: value for name, value in vars(self).items() if value != getattr(defaults, name)}

    @property
    def settings(self) -> dict[str, Any]:
        """The same for the settings of an artifact, which must not change where nothing was chosen."""
        return {"chosen": self.changed()} if self.changed() else {}

    def course(self, steps: int, warmup: float, decay: float) -> Schedule:
        """The learning rates' course over `steps`, where the plan says `warmup` and `decay`."""
        return Schedule(
            steps,
            self.schedule,
            warmup=warmup if self.warmup is None else self.warmup,
            decay=decay if self.decay is None else self.decay,
        )

    def rates(self, planned: Rates) -> Rates:
        """The plan's rates with these choices."""
        return dataclasses.replace(
            planned.scaled(self.learning_rate, self.learning_rate),
            weight_decay=self.weight_decay,
            neuron_beta=self.neuron_beta,
            cautious=self.cautious,
            momentum_warmup=self.momentum_warmup,
        )

    def objective(self, steps: int) -> dict[str, Any]:
        """The fields of `PretrainObjective` that follow."""
        return {
            "mask_documents": self.documents_apart,
            "short_context": (round(SHORTENED * steps) if self.first_context else 0, self.first_context),
            "z_loss": self.z_loss,
            "ramp": BatchRamp(round(RAMPED * steps), self.batch_halvings) if self.batch_halvings else BatchRamp(),
        }

    @classmethod
    def parse(cls, words: Sequence[str]) -> Hyperparameters:
        """From NAME=VALUE words.

        Raises:
            OwnLMError: an unknown name, or a value of the wrong kind or out of its range.
        """
        found: dict[str, Any] = {}
        for word in words:
            name, equals, text = word.partition("=")
            if not equals:
                raise OwnLMError(f"--set {word}: NAME=VALUE was expected, such as --set schedule=cosine.")
            try:
                found[name] = value_of(name, _READ.get(text.lower(), text))
            except ValueError as error:
                raise OwnLMError(f"--set {word}: {error}") from None
        return cls(**found)


_READ: dict[str, Any] = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_WORDS = {"schedule": ("wsd", "cosine", "linear")}
_FLAGS = ("cautious", "documents_apart", "float8")
_WHOLE = {"momentum_warmup": (0, 10**6), "batch_halvings": (0, 8), "first_context": (0, 10**6)}
_NUMBERS = {
    "warmup": (0, 0.9), "decay": (0, 1), "learning_rate": (1e-4, 1e3), "weight_decay": (0, 10),
    "neuron_beta": (0, 0.9999), "z_loss": (0, 1),
}  # fmt: skip


def value_of(name: str, value: Any) -> Any:
    """The value of a field of `Hyperparameters`, from YAML or the command line.

    Raises:
        ValueError: what is wrong with the name or the value, as a sentence.
    """
    if name in _WORDS:
        if value not in _WORDS[name]:
            raise ValueError(f"{name} is one of {', '.join(_WORDS[name])}, not {value!r}.")
        return value
    if name in _FLAGS:
        if not isinstance(value, bool):
            raise ValueError(f"{name} is true or false, not {value!r}.")
        return value
    if name not in _WHOLE and name not in _NUMBERS:
        known = [field.name for field in dataclasses.fields(Hyperparameters)]
        near = get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"there is no {name!r}.{hint} There is: {', '.join(known)}.")
    kind = int if name in _WHOLE else float
    low, high = (_WHOLE if name in _WHOLE else _NUMBERS)[name]
    try:
        number = kind(value)
        fitting = not isinstance(value, bool) and low <= number <= high and number == float(value)
    except (TypeError, ValueError):
        fitting = False
    if not fitting:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} is {what} between {low:g} and {high:g}, not {value!r}.")
    return number
