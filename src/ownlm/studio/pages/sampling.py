"""The settings by which a model chooses its words."""

from __future__ import annotations

from dataclasses import dataclass

from ownlm.engine.request import SamplingParams
from ownlm.studio.theme import Words, tag, words


@dataclass(frozen=True)
class Range:
    """A setting on a scale; `what` says what it does."""

    name: str
    title: str
    low: float
    high: float
    step: float
    value: float
    what: str


RANGES = (
    Range("temperature", "Temperature", 0, 2, 0.05, 0.7, "0 takes the likeliest token; higher is more varied"),
    Range("top_p", "Top-p", 0.05, 1, 0.05, 0.95, "keeps the likeliest tokens up to this share; 1 is off"),
    Range("top_k", "Top-k", 0, 100, 1, 0, "keeps this many of the likeliest tokens; 0 is off"),
    Range("min_p", "Min-p", 0, 0.5, 0.01, 0, "keeps tokens of at least this share of the best; 0 is off"),
    Range(
        "repetition_penalty", "Repetition penalty", 1, 2, 0.05, 1, "makes tokens that stand there already less likely"
    ),
    Range("max_tokens", "Longest answer", 16, 512, 16, 256, "in tokens"),
)
WHOLE = ("top_k", "max_tokens")


class SamplingPanel:
    """The settings, folded away until they are wanted."""

    def __init__(self) -> None:
        self._values = {each.name: each.value for each in RANGES}
        self._seed: int | None = None
        self._repeat = 0
        with tag("details"):
            words("How it chooses words", "summary")
            with tag("div", "settings"):
                for each in RANGES:
                    self._slider(each)
                with tag("label", "control").props('title="The same seed and settings give the same answer"'):
                    words("Seed", "span")
                    seed = tag("input").props('type=number min=0 step=1 placeholder="a new one each time"')
                    seed.on("input", lambda event: self._set_seed(event.args), js_handler="(e) => emit(e.target.value)")

    def params(self, fresh_seed: int) -> SamplingParams:
        """The parameters; `fresh_seed` is used where the visitor named none."""
        values = {name: int(value) if name in WHOLE else float(value) for name, value in self._values.items()}
        seed = fresh_seed if self._seed is None else self._seed + self._repeat
        return SamplingParams(**values, seed=seed)  # type: ignore[arg-type]

    def another_seed(self) -> None:
        """An answer again should be another one, so a seed that was named counts up."""
        self._repeat += 1

    def _slider(self, each: Range) -> None:
        with tag("label", "control").props(f'title="{each.title}: {each.what}"'):
            with tag("span", "flow spread"):
                words(each.title, "span")
                value = words(f"{each.value:g}", "b")
            slider = tag("input").props(f"type=range min={each.low} max={each.high} step={each.step}")
            slider.props["value"] = each.value
            slider.on("input", lambda event: self._set(each, str(event.args), value), throttle=0.05,
                      js_handler="(e) => emit(e.target.value)")  # fmt: skip

    def _set(self, each: Range, text: str, value: Words) -> None:
        """A browser may send anything, so what lies outside the scale is brought back to it."""
        try:
            number = min(each.high, max(each.low, float(text)))
        except ValueError:
            return
        self._values[each.name] = number
        value.text = f"{number:g}"

    def _set_seed(self, text: object) -> None:
        self._repeat = 0
        try:
            self._seed = abs(int(str(text))) % 2**63
        except ValueError:
            self._seed = None
