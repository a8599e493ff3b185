"""Chat: a conversation with a model, the settings that it chooses words by, and thumbs for its answers."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nicegui import run, ui

from ownlm.data.message import Message
from ownlm.engine.request import SamplingParams
from ownlm.render.html import count, decimal
from ownlm.serve.familiarity import NOTE, familiarity
from ownlm.store.feedback import Feedback
from ownlm.studio.answer import AnswerView, chip
from ownlm.studio.pages.sampling import SamplingPanel
from ownlm.studio.state import Studio
from ownlm.studio.theme import Words, address, button, choice, frame, instead, link, notice, show, tag, tell, words
from ownlm.studio.writing import Jobs, Written, sentence, write

log = logging.getLogger(__name__)

KEYS = """(e) => {
  if (e.isComposing) return;
  if (e.key === 'Enter' && !e.shiftKey) { e.preventDefault(); emit('send'); }
  else if (e.key === 'Escape') { emit('stop'); }
}"""
SCROLL = "requestAnimationFrame(() => window.scrollTo({top: document.body.scrollHeight, behavior: 'smooth'}))"


def build(studio: Studio, model: str) -> None:
    """The page."""
    chosen = studio.chosen(model)
    with frame("/chat", narrow=True):
        instead(model, chosen)
        if chosen is None:
            words("Chat", "h1")
            with tag("section", "card"):
                words("There is no model to talk to yet", "h2")
                words("`ownlm demo` makes a first one; this page serves it as soon as it is there.", "p", "soft")
                link("Home", "/", "btn")
            return
        ChatPage(studio, chosen)


@dataclass
class Turn:
    """A model's answer on the page, with all that feedback about it needs."""

    element: ui.element
    conversation: int
    view: AnswerView
    note: Words
    facts: Words
    buttons: ui.element
    written: Written = field(default_factory=Written)
    model_id: str = ""
    sampling: dict[str, Any] = field(default_factory=dict)
    prompt: list[Message] = field(default_factory=list)
    thumbs: dict[str, ui.element] = field(default_factory=dict)


class ChatPage:
    """One visitor's conversation; it lives as long as the page is open. "New" begins one with another number."""

    def __init__(self, studio: Studio, name: str) -> None:
        self._studio, self._name = studio, name
        self._session = f"studio-{uuid.uuid4().hex[:12]}"
        self._messages: list[Message] = []
        self._turns: list[Turn] = []
        self._conversation = 0
        self._client = ui.context.client
        self._jobs = Jobs()
        self._head()
        self._log = tag("div", "chat").props('role=log aria-label="Conversation"')
        with self._log:
            self._welcome = self._starters()
        self._error = notice(error=True)
        self._composer()

    # ---- the page

    def _head(self) -> None:
        models = self._studio.context.models
        told = models.describe(self._name)
        facts = [f"{count(told.parameters)} parameters" if told.parameters else "",
                 f"context of {told.context:,} tokens" if told.context else "",
                 f"{decimal(told.heldout_bits_per_byte)} bits per byte on held-out text"
                 if told.heldout_bits_per_byte else ""]  # fmt: skip
        with tag("div", "flow spread"):
            with tag("div", "stack tight"):
                words("Chat", "h1")
                words(" · ".join(filter(None, facts)), "p", "soft small numbers")
            with tag("div", "flow"):
                names = models.names()
                choice({each: each for each in names}, self._name, "Model", _open)
                button("New", self._new, icon="add_comment", label="Begin a new conversation")

    def _starters(self) -> ui.element:
        starters = self._studio.starters(self._name)
        with tag("div", "stack") as welcome:
            words("It knows what it was trained on and nothing else. Things to begin with:" if starters else
                  "Write something to begin.", "p", "soft")  # fmt: skip
            for starter in starters:
                chip(starter, self._send)
        return welcome

    def _composer(self) -> None:
        with tag("div", "composer"):
            self._sampling = SamplingPanel()
            with tag("div", "line"):
                with tag("div", "field"):
                    self._input = ui.textarea(placeholder="Ask something …").classes("w-full")
                    self._input.props('borderless dense autogrow autofocus rows=1 aria-label="Your message"')
                    self._input.on("keydown", self._key, js_handler=KEYS)
                self._go = button("Send", self._send_input, icon="arrow_upward", kind="primary", label="Send")
                self._stop = button("Stop", self._jobs.stop, icon="stop", kind="primary", label="Stop (Escape)")
        show(self._stop, False)

    # ---- what the visitor does

    def _key(self, event: Any) -> None:
        if event.args == "stop":
            self._jobs.stop()
        else:
            self._send_input()

    def _send_input(self) -> None:
        text = str(self._input.value or "")
        if text.strip() and not self._jobs.busy:
            self._input.value = ""
            self._send(text)

    def _send(self, text: str) -> None:
        if self._jobs.busy:
            return
        show(self._welcome, False)
        with self._log, tag("div", "turn user"):
            AnswerView().show(text, False)
        self._messages.append(Message.of("user", text))
        self._begin()

    def _new(self) -> None:
        self._jobs.stop()
        self._conversation += 1
        self._messages, self._turns = [], []
        self._log.clear()
        show(self._error, False)
        self._ready()
        with self._log:
            self._welcome = self._starters()

    def _regenerate(self) -> None:
        if self._jobs.busy or not self._turns:
            return
        turn = self._turns.pop()
        turn.element.delete()
        self._messages = list(turn.prompt)
        self._sampling.another_seed()
        self._begin()

    def _begin(self) -> None:
        for earlier in self._turns:
            show(earlier.thumbs["again"], False)
        with self._log:
            self._jobs.start(self._answer)

    # ---- the answer

    async def _answer(self) -> None:
        show(self._error, False)
        show(self._go, False)
        show(self._stop, True)
        turn = self._turn()
        turn.prompt = list(self._messages)
        try:
            params = self._sampling.params(random.randrange(2**31))
            turn.sampling = _recorded(params)
            turn.model_id = self._studio.context.models.describe(self._name).artifact_id or self._name
            await self._say_if_unlike(turn)
            events = self._studio.context.gateway.stream(self._name, self._messages, params)
            await write(events, turn.view, turn.written)
        except asyncio.CancelledError:
            pass  # the visitor's wish; what was written stays
        except Exception as error:
            log.info("chat failed", exc_info=error)
            if turn.conversation == self._conversation:
                tell(self._error, sentence(error))
        finally:
            self._end(turn)

    def _ready(self) -> None:
        """Lets the visitor send the next message."""
        show(self._go, True)
        show(self._stop, False)

    async def _say_if_unlike(self, turn: Turn) -> None:
        messages = list(self._messages)
        found = await self._studio.context.gateway.call(self._name, lambda model: familiarity(model, messages))
        if found is not None and found.unlike_training:
            turn.note.text = f"{NOTE} (It costs {found.prompt_bits_per_byte:.1f} bits per byte.)"
            show(turn.note, True)

    def _end(self, turn: Turn) -> None:
        """Keeps the answer, unless the visitor has left or begun a new conversation meanwhile."""
        if self._client.is_deleted or turn.conversation != self._conversation:
            return
        turn.view.show(turn.written.text, False)
        self._ready()
        if turn.written.text or turn.written.end is not None:
            turn.facts.text = f"{turn.written.sentence()} · seed {turn.sampling.get('seed')}"
            show(turn.buttons, True)
            self._messages.append(Message.of("assistant", turn.written.text))
            self._turns.append(turn)
        else:  # nothing came: the question goes back to where it can be changed and asked again
            turn.facts.text = "No answer."
            self._input.value = self._input.value or self._messages[-1].text
            self._messages.pop()
        ui.run_javascript(SCROLL)

    def _turn(self) -> Turn:
        with self._log, tag("div", "turn model") as element:
            note = notice()
            view = AnswerView()
            facts = words("", "p", "facts numbers")
            buttons = tag("div", "flow")
            turn = Turn(element, self._conversation, view, note, facts, buttons)
            with buttons:
                for verdict, icon, label in (("up", "thumb_up_off_alt", "Good answer"),
                                             ("down", "thumb_down_off_alt", "Bad answer")):  # fmt: skip
                    thumb = button("", None, icon=icon, kind="quiet", label=label).props('aria-pressed="false"')
                    thumb.on("click", partial(self._judge, turn, verdict), [])
                    turn.thumbs[verdict] = thumb
                copy = button("", None, icon="content_copy", kind="quiet", label="Copy the answer")
                copy.on("click", partial(self._copy, turn), [])
                turn.thumbs["again"] = button("", self._regenerate, icon="refresh", kind="quiet", label="Answer again")
        show(buttons, False)
        ui.run_javascript(SCROLL)
        return turn

    @staticmethod
    def _copy(turn: Turn) -> None:
        ui.clipboard.write(turn.written.text)

    async def _judge(self, turn: Turn, verdict: str) -> None:
        """Every press is kept, and shown once it is; the last one of an answer counts."""
        feedback = Feedback(
            kind="thumb",
            session=self._session,
            prompt=[message.to_json() for message in turn.prompt],
            answers=[{"model_id": turn.model_id, "model": self._name, "text": turn.written.text,
                      "sampling": turn.sampling}],
            verdict=verdict,
        )  # fmt: skip
        try:
            await run.io_bound(lambda: self._studio.context.feedback.add(feedback))
        except Exception as error:
            log.info("a thumb was not kept", exc_info=error)
            tell(self._error, sentence(error))
            return
        if turn.conversation == self._conversation:
            show(self._error, False)
            for each in ("up", "down"):
                turn.thumbs[each].props(f'aria-pressed="{str(each == verdict).lower()}"')


def _recorded(params: SamplingParams) -> dict[str, Any]:
    names = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
    return {name: getattr(params, name) for name in names}


def _open(name: str) -> None:
    ui.navigate.to(address("/chat", name))
