"""Your turn: ten blind pairs by keyboard, a minute of training on them, and whether it helped."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from functools import partial
from typing import Any

from nicegui import run, ui
from nicegui.events import KeyEventArguments

from ownlm.data.message import Message
from ownlm.runtime.errors import OwnLMError
from ownlm.store.artifact import Artifact
from ownlm.store.feedback import Feedback
from ownlm.studio.answer import AnswerView
from ownlm.studio.pages.verdict import RoundView
from ownlm.studio.pairs import Pair, feedback, make_pair, preferences, prompts_for, tally, write_preferences
from ownlm.studio.state import Studio
from ownlm.studio.theme import address, button, choice, enable, frame, instead, link, notice, show, tag, tell, words
from ownlm.studio.writing import Jobs, sentence

log = logging.getLogger(__name__)

KEYS = {"a": "left", "b": "right", "ArrowLeft": "left", "ArrowRight": "right", "t": "tie", "x": "both_bad", "s": "skip"}
REVOTES = 5
"""Pairs of a blind vote between the old and the new model."""


def build(studio: Studio, model: str) -> None:
    """The page."""
    chosen = studio.chosen(model)
    artifact = studio.artifact(chosen) if chosen else None
    with frame("/your-turn"):
        with tag("div", "flow spread"):
            with tag("div", "stack tight"):
                words("Your turn", "h1")
                words(
                    "Which answer is better? A minute of training on your choices, then a measurement.",
                    "p",
                    "lead",
                )
            names = studio.context.models.names()
            if chosen is not None and len(names) > 1:
                choice({each: each for each in names}, chosen, "Model", _open)
        instead(model, chosen)
        prompts = prompts_for(artifact, studio.starters(chosen)) if chosen else []
        if chosen is None or artifact is None or not prompts:
            with tag("section", "card"):
                words("There is nothing to judge yet", "h2")
                words(
                    "This takes a model that was trained here and brings prompts. `ownlm demo` makes one.", "p", "soft"
                )
                link("Home", "/", "btn")
            return
        YourTurnPage(studio, chosen, artifact, prompts)


class YourTurnPage:
    """One visitor's round: `_choices` holds what counts towards the ten (everything but skipped pairs)."""

    def __init__(self, studio: Studio, name: str, artifact: Artifact, prompts: list[tuple[Message, ...]]) -> None:
        self._studio, self._name, self._artifact = studio, name, artifact
        self._session = f"turn-{uuid.uuid4().hex[:12]}"
        self._rng = random.Random()
        self._prompts = self._rng.sample(prompts, len(prompts))
        self._jobs = Jobs()
        self._ballot = Ballot(self._chosen)
        self._models = (artifact.id, artifact.id)
        self._wanted = studio.settings.pairs
        self._choices: list[Feedback] = []
        self._ahead: asyncio.Task[Pair] | None = None
        self._shown_at = 0.0
        self._asked = 0
        self._error = notice(error=True)
        self._again = button("Try again", lambda: self._jobs.start(self._next), kind="primary")
        show(self._again, False)
        self._after = tag("div", "stack")
        ui.keyboard(on_key=self._key, ignore=["input", "select", "textarea"])
        ui.context.client.on_delete(self._drop_ahead)
        self._round = RoundView(studio, self._after, self._revote)
        if studio.trainer.busy:
            show(self._ballot.element, False)
            self._round.follow()
        else:
            self._jobs.start(self._next)

    # ---- pairs

    async def _next(self) -> None:
        """Shows the pair that was made ahead, and begins to make the one after it."""
        show(self._error, False)
        show(self._again, False)
        self._ballot.progress(len(self._choices), self._wanted)
        try:
            self._ballot.wait()
            task, self._ahead = self._ahead or self._make(), None
            pair = await task
            self._ballot.show(pair)
            self._shown_at = time.monotonic()
            if len(self._choices) + 1 < self._wanted:
                self._ahead = self._make()
        except Exception as error:
            log.info("no pair", exc_info=error)
            self._ballot.stay_empty()
            tell(self._error, sentence(error))
            show(self._again, True)

    def _make(self) -> asyncio.Task[Pair]:
        prompt = self._prompts[self._asked % len(self._prompts)]
        self._asked += 1
        work = make_pair(self._studio.shelf, self._models, prompt, self._studio.settings.answer_tokens, self._rng)
        return asyncio.get_running_loop().create_task(work)

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
            self._ahead = None

    def _key(self, event: KeyEventArguments) -> None:
        if event.action.keydown and not event.action.repeat and not (event.modifiers.ctrl or event.modifiers.meta):
            key = event.key.name
            verdict = KEYS.get(key if len(key) > 1 else key.lower())
            if verdict is not None:
                self._ballot.press(verdict)

    def _chosen(self, pair: Pair, verdict: str) -> None:
        given = feedback(pair, verdict, self._session, time.monotonic() - self._shown_at)
        self._jobs.start(partial(self._keep, pair, given))

    async def _keep(self, pair: Pair, given: Feedback) -> None:
        """Keeps a choice and goes on; where it cannot be kept the pair is shown again, to choose once more."""
        try:
            await run.io_bound(lambda: self._studio.context.feedback.add(given))
        except Exception as error:
            log.info("a choice was not kept", exc_info=error)
            tell(self._error, sentence(error))
            self._ballot.show(pair)
            return
        if given.verdict != "skip":
            self._choices.append(given)
        if len(self._choices) < self._wanted:
            await self._next()
        else:
            self._ballot.progress(len(self._choices), self._wanted)
            self._drop_ahead()
            self._finish()

    # ---- training

    def _finish(self) -> None:
        show(self._ballot.element, False)
        if self._models[0] != self._models[1]:
            self._round.show_vote(*tally(self._choices, self._models[1]))
            return
        usable = len(list(preferences(self._choices)))
        with self._after, tag("section", "card") as card:
            words(f"{len(self._choices)} choices, {usable} of them between two answers", "h2")
            if not usable:
                words("Ties and bad pairs teach it nothing, so there is nothing to train on.", "p", "soft")
                link("Ten more", "/your-turn", "btn primary")
                return
            words(
                f"One round of direct preference optimisation takes about {self._studio.settings.minutes:g} minute. "
                f"The old model stays as it is; the new one is called {self._new_name}. {usable} choices are few: do "
                "not be surprised if the measurement says so.",
                "p", "soft",
            )  # fmt: skip
            with tag("div", "flow"):
                go = button("Train on your choices", lambda: self._train(card), icon="model_training", kind="primary")
                go.props("autofocus")
        ui.run_javascript(f"getElement({go.id}).focus()")

    @property
    def _new_name(self) -> str:
        return "yours"

    async def _train(self, card: ui.element) -> None:
        """All choices that the database holds count, also those of earlier rounds."""
        path = self._studio.context.workspace.root / "feedback" / f"{self._session}.jsonl"
        store = self._studio.context.feedback
        try:
            number = await run.io_bound(lambda: write_preferences(store.pairs(), path))
        except OwnLMError as error:
            tell(self._error, error)
            return
        if number is None:  # the server is going down
            return
        card.delete()
        self._studio.trainer.start(self._artifact, path, number, self._new_name)
        self._round.follow()

    # ---- the old against the new

    def _revote(self, old_id: str, new_id: str) -> None:
        self._models, self._choices, self._wanted = (old_id, new_id), [], REVOTES
        self._session = f"revote-{uuid.uuid4().hex[:12]}"
        show(self._ballot.element, True)
        self._jobs.start(self._next)


class Ballot:
    """The prompt, two answers without a name, and the ways to choose."""

    def __init__(self, on_choice: Any) -> None:
        self._on_choice = on_choice
        self._pair: Pair | None = None
        with tag("section", "stack").props('aria-label="Two answers"') as self.element:
            with tag("div", "flow spread"):
                self._dots = tag("div", "dots").props("role=img")
                self._count = words("", "span", "soft small numbers")
            with tag("div", "asked hidden") as self._asked:
                self._prompt = AnswerView()
            self._views = []
            self._buttons: list[ui.element] = []
            with tag("div", "grid2"):
                for name, verdict in (("A", "left"), ("B", "right")):
                    with tag("button", "pane vote").props(f'type=button aria-label="Answer {name} is better"') as place:
                        with tag("div", "flow spread"):
                            words(name, "h2")
                            words(name, "kbd").props('aria-hidden="true"')
                        self._views.append(AnswerView())
                    place.on("click", partial(self.press, verdict), [])
                    self._buttons.append(place)
            with tag("div", "votes"):
                for text, verdict, key in (("A is better", "left", "A"), ("B is better", "right", "B"),
                                           ("Equal", "tie", "T"), ("Both bad", "both_bad", "X"),
                                           ("Skip", "skip", "S")):  # fmt: skip
                    self._buttons.append(button(text, partial(self.press, verdict), key=key))

        self._enable(False)

    def progress(self, done: int, wanted: int) -> None:
        """Fills the dots."""
        self._dots.clear()
        self._dots.props["aria-label"] = f"{done} of {wanted} pairs judged"
        self._count.text = f"{min(done + 1, wanted)} of {wanted}"
        with self._dots:
            for index in range(wanted):
                tag("i", "done" if index < done else "now" if index == done else "")

    def wait(self) -> None:
        """The next pair is not there yet."""
        self._pair = None
        self._enable(False)
        for view in self._views:
            view.show("", True)

    def stay_empty(self) -> None:
        """No pair comes."""
        for view in self._views:
            view.show("", False)

    def show(self, pair: Pair) -> None:
        """Shows a pair and lets choose."""
        self._pair = pair
        show(self._asked, True)
        self._prompt.show("\n\n".join(message.text for message in pair.prompt), False)
        for view, answer in zip(self._views, pair.shown, strict=True):
            view.show(answer.text or "(an empty answer)", False)
        self._enable(True)

    def press(self, verdict: str) -> None:
        """A choice; nothing happens while no pair is shown, so that a key held down chooses once."""
        pair, self._pair = self._pair, None
        if pair is not None:
            self._enable(False)
            self._on_choice(pair, verdict)

    def _enable(self, on: bool) -> None:
        for each in self._buttons:
            enable(each, on)


def _open(name: str) -> None:
    ui.navigate.to(address("/your-turn", name))
