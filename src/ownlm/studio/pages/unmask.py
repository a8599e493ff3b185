"""Unmask: one prompt, three columns: what each stage of a model's training made of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from nicegui import ui

from ownlm.data.message import Message
from ownlm.engine.request import SamplingParams
from ownlm.render.html import decimal
from ownlm.store.artifact import Artifact
from ownlm.studio.answer import AnswerView, chip
from ownlm.studio.lineage import heir, three_stages
from ownlm.studio.state import Studio
from ownlm.studio.theme import Words, address, button, choice, frame, instead, link, notice, show, tag, tell, words
from ownlm.studio.writing import Jobs, sentence, write

log = logging.getLogger(__name__)

TOKENS = 160
SEED = 7
"""The same for all three, so that what differs is the training."""


@dataclass(frozen=True)
class Column:
    """A stage of training: `plain` gives the prompt as bare text instead of as a message."""

    stage: str
    title: str
    plain: bool
    what: str


COLUMNS = (
    Column(
        "base", "Base", True,
        "Pre-training: it read the corpus and learned to predict the next token. It gets your prompt as bare text and "
        "goes on writing, as if the prompt stood in a document; it does not know that somebody asks.",
    ),
    Column(
        "instructed", "Instructed", False,
        "Supervised fine-tuning: it saw thousands of questions with their answers, and learned that a message wants a "
        "reply and that a reply ends. It gets your prompt as a chat message.",
    ),
    Column(
        "aligned", "Aligned", False,
        "Preference alignment: of pairs of its own answers it learned which one passes the checks, and leans towards "
        "such answers. It gets your prompt as the same chat message.",
    ),
)  # fmt: skip


def build(studio: Studio, model: str) -> None:
    """The page."""
    chosen = studio.chosen(model)
    artifact = studio.artifact(chosen) if chosen else None
    with frame("/unmask"):
        with tag("div", "flow spread"):
            with tag("div", "stack tight"):
                words("Unmask", "h1")
                words("One prompt, one seed, three moments in the life of the same network.", "p", "lead")
            names = studio.context.models.names()
            if chosen is not None and len(names) > 1:
                choice({each: each for each in names}, chosen, "Model", _open)
        instead(model, chosen)
        if chosen is None or artifact is None:
            with tag("section", "card"):
                words("There are no stages to show", "h2")
                words(
                    "This page compares the stages of a model that was trained here. `ownlm demo` makes one.",
                    "p",
                    "soft",
                )
                link("Home", "/", "btn")
            return
        UnmaskPage(studio, chosen, artifact)


class UnmaskPage:
    """The prompt, the columns, and what runs in them."""

    def __init__(self, studio: Studio, name: str, artifact: Artifact) -> None:
        self._studio = studio
        stages = three_stages(studio.context.workspace, heir(studio.context.workspace, artifact))
        self._client = ui.context.client
        self._jobs = Jobs()
        self._ask_row(studio.starters(name))
        self._error = notice(error=True)
        self._views: list[tuple[Column, Artifact, AnswerView, Words]] = []
        with tag("div", "grid3"):
            for column in COLUMNS:
                self._column(column, stages.get(column.stage))

    def _ask_row(self, starters: list[str]) -> None:
        with tag("section", "stack").props('aria-label="Prompt"'):
            with tag("div", "line wrap"):
                with tag("div", "field"):
                    self._input = ui.textarea(
                        value=starters[0] if starters else "", placeholder="A prompt for all three"
                    )
                    self._input.props('borderless dense autogrow rows=1 aria-label="Prompt"').classes("w-full")
                    self._input.on("keydown", lambda: self._run(), js_handler=ENTER)
                self._go = button("Ask all three", self._run, icon="play_arrow", kind="primary")
                self._stop = button("Stop", self._jobs.stop, icon="stop", kind="primary")
            if len(starters) > 1:
                with tag("div", "flow chips"):
                    for starter in starters[:3]:
                        chip(starter, self._take)
        show(self._stop, False)

    def _column(self, column: Column, artifact: Artifact | None) -> None:
        with tag("section", f"pane {column.stage}").props(f'aria-label="{column.title}"'):
            with tag("div", "flow spread"):
                words(column.title, "h2")
                if artifact is not None:
                    bits = artifact.metrics.get("heldout_bits_per_byte")
                    words(f"{decimal(bits)} bits per byte" if bits else artifact.name, "span", "soft small numbers")
            words(column.what, "p", "what")
            view = AnswerView(raw=column.plain)
            facts = words("" if artifact else "This model has no such stage.", "p", "facts")
        if artifact is not None:
            self._views.append((column, artifact, view, facts))

    def _take(self, starter: str) -> None:
        self._input.value = starter
        self._run()

    def _run(self) -> None:
        if str(self._input.value or "").strip():
            self._jobs.stop()
            self._jobs.start(self._all)

    async def _all(self) -> None:
        """One column after the other: the models share the cores, and the eye follows one at a time."""
        prompt = str(self._input.value)
        show(self._error, False)
        show(self._go, False)
        show(self._stop, True)
        for _, _, view, facts in self._views:
            view.show("", False)
            facts.text = ""
        try:
            for column, artifact, view, facts in self._views:
                params = SamplingParams(max_tokens=TOKENS, temperature=0.7, top_p=0.95, seed=SEED)
                asked = prompt if column.plain else [Message.of("user", prompt)]
                facts.text = "Opening the model …"
                events = self._studio.shelf.stream(artifact.id, asked, params)
                facts.text = (await write(events, view)).sentence()
        except Exception as error:
            log.info("unmask failed", exc_info=error)
            tell(self._error, sentence(error))
        finally:
            if not self._client.is_deleted:
                show(self._go, True)
                show(self._stop, False)


def _open(name: str) -> None:
    ui.navigate.to(address("/unmask", name))


ENTER = """(e) => { if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); emit(); } }"""
"""Enter sends, Shift+Enter begins a new line."""
