"""The part of the Watch page where a run is told to finish now, or to go on for longer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nicegui import run

from ownlm.runtime.errors import OwnLMError
from ownlm.studio.run_state import Training
from ownlm.studio.steering import EXTRA, Steering, outlook, told
from ownlm.studio.theme import button, enable, notice, show, tag, tell, words
from ownlm.train.control import ask_finish, ask_more


class SteeringCard:
    """Two buttons, what each would come to, and what the run was told; `changed` is called once something was asked."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._steering: Steering | None = None
        self._busy = self._sure = False
        with tag("section", "card").props('aria-label="Steering"') as self._card:
            words("While it trains", "h2")
            self._finish_text = words("", "p", "soft small")
            self._more_text = words("", "p", "soft small")
            with tag("div", "flow") as self._buttons:
                self._finish = button("Finish now", lambda: self._ask_if_sure(True), icon="flag")
                self._more = button(f"+{EXTRA}", lambda: self._ask(ask_more), icon="more_time")
            with tag("div", "stack") as self._question:
                words("The run will end early. Finish now?", "p", "small")
                with tag("div", "flow"):
                    button("Yes, finish", lambda: self._ask(ask_finish), icon="flag", kind="primary")
                    button("No, train on", lambda: self._ask_if_sure(False))
            words("In its terminal the keys f and + do the same.", "p", "soft small")
            self._told = tag("ul", "told").props("role=status")
            self._error = notice(error=True)
        self._sentences: list[str] = []
        show(self._card, False)

    def draw(self, training: Training | None) -> None:
        """Shows the card while this training listens."""
        self._steering = training.steering if training is not None else None
        show(self._card, self._steering is not None)
        if training is None or self._steering is None:
            self._sure = False
            return
        last = training.last
        step, steps, elapsed = int(last.get("step") or 0), int(last.get("steps") or 0), float(last.get("elapsed") or 0)
        found = outlook(step, steps, elapsed)
        self._sure = self._sure and not self._steering.finishing
        for element, text in ((self._finish_text, found.finish), (self._more_text, found.more)):
            element.text = text
        show(self._finish_text, bool(found.finish) and not self._steering.finishing)
        show(self._more_text, bool(found.more))
        enable(self._finish, bool(found.finish) and not self._steering.finishing and not self._busy)
        enable(self._more, bool(found.more) and not self._busy)
        show(self._buttons, not self._sure)
        show(self._question, self._sure)
        self._tell(told(self._steering, step, steps, elapsed))

    def _tell(self, sentences: list[str]) -> None:
        if sentences != self._sentences:
            self._sentences = sentences
            self._told.clear()
            with self._told:
                for sentence in sentences:
                    words(sentence, "li")

    def _ask_if_sure(self, sure: bool) -> None:
        self._sure = sure
        show(self._buttons, not sure)
        show(self._question, sure)

    async def _ask(self, ask: Callable[[Path], None]) -> None:
        if self._steering is None or self._busy:
            return
        self._busy = True
        show(self._error, False)
        try:
            await run.io_bound(ask, self._steering.folder)
        except (OwnLMError, OSError) as error:
            tell(self._error, error)
        finally:
            self._busy = self._sure = False
        self._changed()
