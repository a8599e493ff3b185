"""The part of the Watch page that lays the curves of earlier pre-trainings beside the present one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nicegui import run, ui

from ownlm.studio.base_runs import AXES, HELDOUT, BaseRun, BaseRuns, Trace, outcomes
from ownlm.studio.overlay import COLOURS, MOST_RUNS, Curve, overlay
from ownlm.studio.theme import enable, show, tag, words

UNIT = "bits per byte"
MOST_OFFERED = 40


@dataclass(frozen=True)
class Compared:
    """What is on show: the present run first, each with its curves; `others` may be chosen."""

    runs: tuple[tuple[BaseRun, Trace], ...] = ()
    others: tuple[BaseRun, ...] = ()


class Comparison:
    """One visitor's choice of runs and of what they are laid out by."""

    def __init__(self, runs: BaseRuns) -> None:
        self._runs = runs
        self._chosen: list[str] = []
        self._axis = next(iter(AXES))
        self._present = ""
        self._seen = Compared()
        self._version = -1
        self._updates = 0
        self._chips: dict[str, tuple[ui.element, ui.element]] = {}
        with tag("section", "card").props('aria-label="Comparison"') as self._card:
            with tag("div", "flow spread"):
                words("Beside earlier runs", "h2")
                with tag("div", "segments").props('role=group aria-label="Curves by"') as self._axes:
                    self._axis_buttons = {
                        key: self._axis_button(key, name.split()[-1]) for key, (name, _) in AXES.items()
                    }
            self._lead = words("", "p", "soft small")
            self._offer = tag("div", "offer").props('role=group aria-label="Earlier runs"')
            with tag("div", "stack") as self._shown:
                self._chart = ui.echart(overlay([], "steps", UNIT)).classes("overlay")
                self._note = words("", "p", "soft small")
                self._table = tag("div", "scroll")
        show(self._card, False)

    async def refresh(self, version: int, present: str) -> None:
        """Reads again what has changed; `present` is the artifact's id of the pre-training on show."""
        if (version, present) != (self._version, self._present):
            self._version, self._present = version, present
            await self._update()

    async def _update(self) -> None:
        self._updates += 1
        mine = self._updates
        found = await run.io_bound(self._read, tuple(self._chosen))
        # None: the server is going down. And a later choice, whose reading has begun meanwhile, shows itself.
        if found is not None and mine == self._updates and found != self._seen:
            self._draw(found)

    def _read(self, keys: tuple[str, ...]) -> Compared:
        every = self._runs.all()
        present = [each for each in every if each.id == self._present]
        others = [each for each in every if each.id != self._present]
        chosen = [each for key in keys for each in others if each.id == key]
        drawn = [*present, *chosen] if chosen else []
        return Compared(tuple((each, self._runs.trace(each)) for each in drawn), tuple(others))

    # ---- what the visitor does

    def _axis_button(self, key: str, name: str) -> ui.element:
        found = words(f"by {name}", "button").props(f'type=button aria-pressed="{str(key == self._axis).lower()}"')
        found.on("click", lambda: self._by(key), [])
        return found

    def _by(self, key: str) -> None:
        self._axis = key
        for each, found in self._axis_buttons.items():
            found.props(f'aria-pressed="{str(each == key).lower()}"')
        self._draw_chart(self._seen)

    async def _toggle(self, identifier: str) -> None:
        if identifier in self._chosen:
            self._chosen.remove(identifier)
        elif len(self._chosen) < MOST_RUNS - 1:
            self._chosen.append(identifier)
        self._mark_chips()
        await self._update()

    # ---- drawing

    def _draw(self, found: Compared) -> None:
        before, self._seen = self._seen, found
        show(self._card, bool(found.others))
        show(self._shown, bool(found.runs))
        show(self._axes, bool(found.runs))
        self._lead.text = (
            "Choose earlier pre-trainings of this workspace; their curves are laid beside the one on show."
            + (f" The newest {MOST_OFFERED} of {len(found.others):,} are offered." if self._many(found) else "")
        )
        if [each.id for each in found.others] != [each.id for each in before.others]:
            self._draw_offer(found)
        self._draw_chart(found)
        if [each for each, _ in before.runs] != [each for each, _ in found.runs] or self._going_on(found):
            self._draw_table(found)

    @staticmethod
    def _many(found: Compared) -> bool:
        return len(found.others) > MOST_OFFERED

    @staticmethod
    def _going_on(found: Compared) -> bool:
        return any(not each.finished for each, _ in found.runs)

    def _draw_offer(self, found: Compared) -> None:
        self._offer.clear()
        self._chips.clear()
        offered = found.others[:MOST_OFFERED]
        self._chosen = [key for key in self._chosen if key in {each.id for each in found.others}]
        with self._offer:
            for each in offered:
                with tag("button", "chip pick").props("type=button") as chip:
                    dot = tag("i", "dot")
                    words(each.label, "span")
                chip.props["title"] = each.id
                chip.on("click", lambda key=each.id: self._toggle(key), [])
                self._chips[each.id] = chip, dot
        self._mark_chips()

    def _mark_chips(self) -> None:
        full = len(self._chosen) >= MOST_RUNS - 1
        for key, (chip, dot) in self._chips.items():
            on = key in self._chosen
            chip.props(f'aria-pressed="{str(on).lower()}"')
            enable(chip, on or not full)
            show(dot, on)
            if on:
                dot.style(f"background: {COLOURS[1 + self._chosen.index(key)]}")

    def _draw_chart(self, found: Compared) -> None:
        curves = [
            Curve(self._name(found, each), self._colour(found, each), trace.curves[self._axis])
            for each, trace in found.runs
        ]
        self._chart.options.clear()
        self._chart.options.update(overlay(curves, AXES[self._axis][0], UNIT))
        self._chart.update()
        self._note.text = _note(found)
        show(self._note, bool(self._note.text))

    def _draw_table(self, found: Compared) -> None:
        self._table.clear()
        columns = [dict([*outcomes(each, trace), *each.settings]) for each, trace in found.runs]
        names = list(dict.fromkeys(name for column in columns for name in column))
        best = _best([each for each, _ in found.runs])
        with self._table, tag("table", "models compared"):
            with tag("thead"), tag("tr"):
                words("", "th")
                for each, _ in found.runs:
                    with tag("th").props("scope=col"):
                        tag("i", "dot").style(f"background: {self._colour(found, each)}")
                        words(self._name(found, each), "span")
            with tag("tbody"):
                for name in names:
                    values = [column.get(name, "–") or "–" for column in columns]
                    with tag("tr", "differs" if len(set(values)) > 1 else "same"):
                        words(name, "th").props("scope=row")
                        for (each, _), value in zip(found.runs, values, strict=True):
                            words(value, "td", "best" if name == HELDOUT and each.id == best else "")

    def _colour(self, found: Compared, each: BaseRun) -> str:
        """By what is on show: the choice may be ahead of it."""
        others = [other.id for other, _ in found.runs if other.id != self._present]
        return COLOURS[0 if each.id == self._present else 1 + others.index(each.id)]

    @staticmethod
    def _name(found: Compared, each: BaseRun) -> str:
        """Its name, with its id where two have the same."""
        names = [other.name for other, _ in found.runs]
        return each.name if names.count(each.name) == 1 else f"{each.name} {each.id[:6]}"


def _best(runs: list[BaseRun]) -> str:
    """The id of the run with the fewest held-out bits; empty where there is nothing to compare."""
    known = {each.id: each.metrics.get("heldout_bits_per_byte") for each in runs}
    numbers = {key: bits for key, bits in known.items() if isinstance(bits, int | float) and math.isfinite(bits)}
    same_text = len({each.corpus for each in runs if each.id in numbers}) == 1
    return min(numbers, key=lambda key: numbers[key]) if len(numbers) > 1 and same_text else ""


def _note(found: Compared) -> str:
    """What keeps these runs from being compared."""
    known = {each.corpus for each, _ in found.runs if each.corpus}
    without = [each.name for each, trace in found.runs if not trace.curves["step"]]
    said = [f"{name} has no curve in bits per byte." for name in without]
    if len(known) > 1:
        said.append("These runs learned from different corpora: bits per byte of different texts are no ranking.")
    return " ".join(said)
