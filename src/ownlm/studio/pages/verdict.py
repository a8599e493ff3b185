"""A round of training on somebody's choices, while it runs and when it is judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import ui

from ownlm.studio.state import Studio
from ownlm.studio.theme import address, button, link, meter, tag, words
from ownlm.studio.training import Round

HEADLINES = {"better": "Better", "worse": "Worse", "too few to tell": "Too few to tell"}
MEANINGS = {
    "better": "The whole 95 % interval of the difference lies above zero: your choices made it better at this.",
    "worse": "The whole 95 % interval of the difference lies below zero: your choices made it worse at this. The old "
    "model is still there.",
    "too few to tell": "The 95 % interval of the difference holds zero, so this may be chance either way. More "
    "choices, or more prompts, would tell.",
}


class RoundView:
    """Follows the server's one trainer; `revote(old_id, new_id)` begins a blind vote between the two models."""

    def __init__(self, studio: Studio, place: ui.element, revote: Callable[[str, str], None]) -> None:
        self._studio, self._place, self._revote = studio, place, revote

    def follow(self) -> None:
        """Shows the round until it is over."""
        round_ = self._studio.trainer.round
        if round_ is None:
            return
        with self._place, tag("section", "card").props("aria-live=polite") as card:
            words("Learning from your choices", "h2")
            _, fill = meter()
            note = words("Starting …", "p", "soft numbers")

            def refresh() -> None:
                if round_.state == "running":
                    fill(round_.step / round_.steps if round_.steps else 0.02)
                    note.text = _note(round_)
                    return
                timer.deactivate()
                card.clear()
                with card:
                    self._outcome(round_)

            timer = ui.timer(0.5, refresh)

    def show_vote(self, wins: int, decided: int, told: str) -> None:
        """What the blind vote between the old and the new model came to."""
        with self._place, tag("section", "card verdict"):
            words("Your blind vote", "p", "eyebrow")
            words(HEADLINES[told], "b")
            words(f"You preferred the new model's answer in {wins} of {decided} pairs that you decided.", "p")
            if told == "too few to tell":
                words("So few votes cannot tell it from a coin.", "p", "soft")

    def _outcome(self, round_: Round) -> None:
        if round_.state == "failed":
            words("The training failed", "h2")
            words(round_.error, "p", "notice error")
            link("Try again", "/your-turn", "btn")
            return
        verdict = round_.verdict
        told = str(verdict.get("conclusion", ""))
        with tag("div", "stack verdict"):
            words(f"New against old, from {round_.pairs} choices", "p", "eyebrow")
            words(HEADLINES.get(told, "Trained"), "b", "good" if told == "better" else "bad" if told == "worse" else "")
            if verdict:
                self._numbers(verdict)
            words(MEANINGS.get(told, "The command told no verdict."), "p", "soft")
        with tag("div", "flow"):
            if round_.new_id:
                vote = lambda: self._revote(round_.old_id, round_.new_id)  # noqa: E731
                button("Vote blind: old against new", vote, icon="balance", kind="primary")
            name = str(round_.result.get("name", ""))
            if name in self._studio.context.models.names():
                link("Chat with it", address("/chat", name), "btn")
            link("Another round", "/your-turn", "btn")

    def _numbers(self, verdict: dict[str, Any]) -> None:
        words(f"Measured: {verdict.get('metric', 'score')}.", "p")
        before, after = _value(verdict.get("before")), _value(verdict.get("after"))
        with tag("div", "versus"):
            for title, value, classes in (("before", before, ""), ("after", after, "new")):
                words(title, "span", "soft")
                meter(value or 0.0, classes)
                words("–" if value is None else f"{100 * value:.1f} %", "b", "numbers").style("font-size: 1rem")
        difference = verdict.get("difference")
        if isinstance(difference, dict):
            value, low, high = (100 * float(difference.get(key, 0)) for key in ("value", "low", "high"))
            _whisker(value, low, high)
            words(
                f"Difference {value:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}, "
                f"on {int(difference.get('n', 0)):,} prompts.",
                "p", "numbers",
            )  # fmt: skip


def _whisker(value: float, low: float, high: float) -> None:
    """The interval on a scale around zero, so that one sees whether it holds zero."""
    reach = 1.25 * max(abs(low), abs(high), 1e-9)

    def at(number: float) -> float:
        return round(50 + 50 * number / reach, 2)

    with tag("div", "whisker").props("role=img"):
        tag("i", "zero")
        tag("i", "range").style(f"left: {at(low)}%; width: {at(high) - at(low)}%")
        tag("i", "value").style(f"left: {at(value)}%")
        words("worse", "span", "small soft")
        words("no difference", "span", "small soft")
        words("better", "span", "small soft")


def _value(found: Any) -> float | None:
    """A number, or the value of an interval."""
    if isinstance(found, dict):
        found = found.get("value")
    return float(found) if isinstance(found, int | float) else None


def _note(round_: Round) -> str:
    if not round_.steps:
        return f"Reading {round_.pairs} choices and opening the model …"
    if round_.step < round_.steps:
        return f"Step {round_.step} of {round_.steps}, on {round_.pairs} choices"
    return "Asking both models the held-out prompts …"
