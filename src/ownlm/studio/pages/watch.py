"""Watch: a model being trained, with its language as it appears beside the curve."""

from __future__ import annotations

from typing import Any

from nicegui import run, ui

from ownlm.render.html import count, duration, visible
from ownlm.studio import curve
from ownlm.studio.pages.comparison import Comparison
from ownlm.studio.pages.steering import SteeringCard
from ownlm.studio.run_state import STAGES, RunView, StageLine, Training
from ownlm.studio.state import Studio
from ownlm.studio.theme import button, frame, meter, show, tag, words

INTERVAL = 1.0
"""Seconds between two looks; nothing is read while nobody has the page open."""
UNITS = {True: "bits per byte", False: "nats per token"}


def build(studio: Studio, model: str) -> None:
    """The page."""
    with frame("/watch"):
        WatchPage(studio)


class WatchPage:
    """One visitor's view of the run. `_followed` is the stage on show; None follows the run."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._followed: str | None = None
        self._logarithmic = False
        self._drawn: dict[str, Any] = {}
        self._build()
        self._draw(studio.runs.view())
        ui.timer(INTERVAL, self._refresh, immediate=False)

    def _build(self) -> None:
        with tag("div", "stack"):
            with tag("div", "flow spread"):
                with tag("div", "stack tight"):
                    self._eyebrow = words("", "p", "eyebrow")
                    self._title = words("", "h1")
                self._tabs = tag("div", "segments").props('role=group aria-label="Stage of training"')
            self._lead = words("", "p", "lead")
            self._bar, self._fill = meter()
        with tag("div", "tiles") as self._numbers:
            self._tiles = [_Tile() for _ in range(4)]
        with tag("div", "watch") as self._body:
            with tag("div", "stack"):
                with tag("section", "card").props('aria-label="Loss curve"'):
                    with tag("div", "flow spread"):
                        words("How well it predicts", "h2")
                        self._scale = button("log steps", self._switch_scale, kind="quiet")
                        self._scale.props('aria-pressed="false"')
                    self._chart = ui.echart(curve.options([], 1, "", {}, None, False)).classes("curve")
                    self._forecast = words("", "p", "soft small")
                self._steering = SteeringCard(self._redraw)
                with tag("section", "card last").props('aria-label="Stages"') as self._stages_card:
                    words("The chain", "h2")
                    self._stages = tag("ol", "stages")
            with tag("section", "card").props('aria-label="Language appears"'):
                with tag("div", "stack tight"):
                    words("Language appears", "h2")
                    self._growth_lead = words("", "p", "soft small")
                self._growth = tag("div", "growth")
        self._comparison = Comparison(self._studio.base_runs)

    async def _refresh(self) -> None:
        view = await run.io_bound(self._studio.runs.view)
        if view is not None:  # None: the server is going down
            self._draw(view)
            present = next((each.id for each in view.trainings if each.stage == "base"), "")
            await self._comparison.refresh(view.version, present)

    def _redraw(self) -> None:
        self._drawn.clear()
        self._draw(self._studio.runs.view(anew=True))

    def _switch_scale(self) -> None:
        self._logarithmic = not self._logarithmic
        self._scale.props(f'aria-pressed="{str(self._logarithmic).lower()}"')
        self._redraw()

    def _follow(self, stage: str) -> None:
        self._followed = stage
        self._redraw()

    # ---- drawing; each part only when what it shows has changed

    def _draw(self, view: RunView) -> None:
        if not self._changed("all", view.version):
            return
        training = next((each for each in view.trainings if each.stage == self._followed), view.current)
        self._draw_head(view, training)
        show(self._body, bool(view.stages or view.trainings))
        show(self._numbers, bool(view.trainings))
        show(self._stages_card, bool(view.stages))
        if self._changed("stages", view.stages):
            self._stages.clear()
            with self._stages:
                for line in view.stages:
                    _stage(line)
        if self._changed("tabs", ([each.id for each in view.trainings], training and training.stage)):
            self._draw_tabs(view, training)
        points = training.points() if training else []
        if self._changed("curve", (training and training.id, len(points), view.forecast, self._logarithmic)):
            self._draw_curve(view, training, points)
        self._draw_tiles(view, training)
        self._steering.draw(training)
        samples = next((each for each in view.trainings if each.samples), None)
        if self._changed("growth", (samples and samples.id, len(samples.samples) if samples else 0)):
            self._draw_growth(samples)

    def _changed(self, part: str, value: Any) -> bool:
        if part in self._drawn and self._drawn[part] == value:
            return False
        self._drawn[part] = value
        return True

    def _draw_head(self, view: RunView, training: Training | None) -> None:
        now = next((line.name for line in view.stages if line.state == "running"), "")
        done = sum(line.state == "done" for line in view.stages)
        last = training.last if training else {}
        step, steps = int(last.get("step") or 0), int(last.get("steps") or 0)
        if view.running or (training is not None and training.live):
            self._eyebrow.text = "● Live"
            self._title.text = now or (STAGES[training.stage] if training else "Starting")
            left = f", about {duration(last.get('remaining'))} left" if last.get("remaining") else ""
            at = f"Step {step:,} of {steps:,}{left}." if training and training.live and steps else ""
            stage = f"Stage {done + 1} of {len(view.stages)}. " if view.stages else ""
            self._lead.text = f"{stage}{at}"
            share = step / steps if training and training.live and steps else done / max(1, len(view.stages))
        elif training is not None:
            self._eyebrow.text = "Finished" if training.metrics else "Cut off"
            self._title.text = training.name
            self._lead.text = (
                "This is how it learned. A new run shows up here by itself."
                if training.metrics
                else f"The run stopped at step {step:,} of {steps:,}; {_again(view)} goes on from there."
            )
            share = step / steps if steps else 0.0
        else:
            self._eyebrow.text, self._title.text = "Nothing yet", "No model is being trained"
            self._lead.text = "Start one with `ownlm demo`. This page shows it by itself as soon as it begins."
            share = 0.0
        show(self._bar, view.running or (training is not None and not training.metrics))
        self._fill(share)

    def _draw_tabs(self, view: RunView, training: Training | None) -> None:
        self._tabs.clear()
        show(self._tabs, len(view.trainings) > 1)
        with self._tabs:
            for each in view.trainings:
                tab = words(STAGES[each.stage], "button").props("type=button")
                tab.props(f'aria-pressed="{str(each is training).lower()}"')
                tab.on("click", lambda stage=each.stage: self._follow(stage), [])

    def _draw_curve(self, view: RunView, training: Training | None, points: list[tuple[int, float]]) -> None:
        base = training is not None and training.stage == "base"
        forecast = view.forecast if base or training is None else {}
        outcome = training.metrics.get("heldout_bits_per_byte") if training and base else None
        unit = UNITS[training is None or training.in_bits]
        steps = int(training.last.get("steps") or 0) if training else 0
        known = float(outcome) if isinstance(outcome, int | float) else None
        self._chart.options.clear()
        self._chart.options.update(curve.options(points, steps, unit, forecast, known, self._logarithmic))
        self._chart.update()
        self._forecast.text = _forecast(forecast, known)
        show(self._forecast, bool(self._forecast.text))

    def _draw_tiles(self, view: RunView, training: Training | None) -> None:
        last = training.last if training else {}
        smooth = curve.smoothed(training.points())[-1:] if training else []
        metrics = training.metrics if training else {}
        rate = last.get("tokens_per_second") if not metrics else metrics.get("tokens_per_second")
        used = last.get("utilisation") if not metrics else metrics.get("utilisation")
        left = (last.get("remaining") if not metrics else metrics.get("seconds")) if last or metrics else None
        tiles = [
            (f"{smooth[0][1]:.3f}" if smooth else "–", UNITS[training is None or training.in_bits]),
            (count(rate) if rate else "–", "tokens a second"),
            (f"{100 * used:.0f} %" if isinstance(used, int | float) else "–", "of the machine's matmul rate"),
            (duration(left) if left is not None else "–", "of training" if metrics else "left in this stage"),
        ]
        for tile, (value, what) in zip(self._tiles, tiles, strict=True):
            tile.show(value, what)

    def _draw_growth(self, training: Training | None) -> None:
        self._growth.clear()
        growth = training.growth() if training else []
        self._growth_lead.text = (
            "Three beginnings, continued while the network was trained: the newest on top, the untrained one below."
            if growth
            else "Three beginnings will be continued here at steps 0, 10, 100, 1,000 and so on."
        )
        with self._growth:
            for prompt, texts in growth[:3]:
                with tag("div"):
                    words(_one_line(prompt), "h3").props["title"] = prompt
                    for at, (step, text) in enumerate(texts):
                        _sample(prompt, step, text, newest=at == 0)


class _Tile:
    """A number with its name."""

    def __init__(self) -> None:
        with tag("div", "tile"):
            self._value, self._what = words("–", "b"), words("", "span")

    def show(self, value: str, what: str) -> None:
        self._value.text, self._what.text = value, what


def _sample(prompt: str, step: int, text: str, newest: bool) -> None:
    with tag("div", "sample newest" if newest else "sample"):
        words("untrained" if step == 0 else f"step {step:,}", "span")
        with tag("pre").props("tabindex=0"):
            words(visible(prompt), "div", "prompt")
            words(visible(text), "div")


def _stage(line: StageLine) -> None:
    with tag("li", line.state):
        words("", "i").props(f'role=img aria-label="{line.state}"')
        words(line.name, "b")
        words(duration(line.seconds) if line.seconds else "", "span", "soft small numbers")
        if line.sentence:
            words(line.sentence, "p")


def _again(view: RunView) -> str:
    return f"`{view.command}`" if view.command else "the same command"


def _forecast(forecast: dict[str, Any], outcome: float | None) -> str:
    value, low, high = (forecast.get(key) for key in ("heldout_bits_per_byte", "low", "high"))
    if not isinstance(value, int | float):
        return ""
    said = f"Forecast before training: {value:.2f} bits per byte on held-out text"
    said += f" ({low:.2f} to {high:.2f})" if isinstance(low, int | float) and isinstance(high, int | float) else ""
    if isinstance(forecast.get("seconds"), int | float):
        said += f" after {duration(forecast['seconds'])}"
    return said + (f". It came to {outcome:.3f}." if outcome is not None else ".")


def _one_line(prompt: str) -> str:
    return visible(prompt.strip()).replace("\n", " ⏎ ") or "(empty)"
