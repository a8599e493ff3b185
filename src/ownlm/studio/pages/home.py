"""Home: what there is, and what to do next."""

from __future__ import annotations

from nicegui import ui

from ownlm.render.html import count, decimal
from ownlm.store.artifact import Artifact
from ownlm.studio import theme
from ownlm.studio.run_state import RunView
from ownlm.studio.state import Studio
from ownlm.studio.theme import address, button, frame, link, tag, words

STAGE_NAMES = {"base": "pre-trained", "instructed": "instructed", "aligned": "aligned"}


def build(studio: Studio, model: str) -> None:
    """The page."""
    view = studio.runs.view()
    models = studio.context.workspace.artifacts("model")
    with frame("/"):
        with tag("div", "hero stack"):
            words("Your own language model", "h1")
            words(_lead(view, models), "p", "lead")
        _next_step(view, models)
        with tag("div", "grid4"):
            for place in theme.PLACES:
                with tag("a", "card door").props(f'href="{place.path}"'):
                    with tag("div", "flow"):
                        ui.icon(place.icon).props('aria-hidden="true"')
                        words(place.title, "h2")
                    words(place.what, "p", "soft")
        if models:
            _models(studio, models)
        _reports(studio)


def _lead(view: RunView, models: list[Artifact]) -> str:
    if view.running:
        return "One is being made on this machine right now. Nothing of it leaves this machine."
    if models:
        return "Made on this machine, from documents that you know, and measured. Nothing of it leaves this machine."
    return (
        "There is none here yet. A first one takes one command and about eight minutes: it reads the Python packages "
        "on this machine, and nothing leaves it."
    )


def _next_step(view: RunView, models: list[Artifact]) -> None:
    with tag("section", "card").props('aria-label="Next step"'):
        if view.running:
            done = sum(stage.state == "done" for stage in view.stages)
            now = next((stage.name for stage in view.stages if stage.state == "running"), "Starting")
            words(f"Running now: {now}", "h2")
            _, fill = theme.meter()
            fill(done / max(1, len(view.stages)))
            words(f"{done} of {len(view.stages)} stages are done.", "p", "soft")
            with tag("div", "flow"):
                link("Watch it learn", "/watch", "btn primary")
        elif models:
            words("What now?", "h2")
            words(
                "Talk to it, then look behind the mask: the same prompt before and after each stage of training. Ten "
                "blind choices of yours make a round of alignment.",
                "p", "soft",
            )  # fmt: skip
            with tag("div", "flow"):
                link("Chat", "/chat", "btn primary")
                link("Unmask it", "/unmask", "btn")
                link("Take your turn", "/your-turn", "btn")
        else:
            words("Begin here", "h2")
            command("ownlm demo")
            words("Or from a folder of your own documents:", "p", "soft")
            command("ownlm demo DIR")
            words("This page shows what is built as soon as it is there.", "p", "soft small")


def command(text: str) -> None:
    """A command to copy."""
    with tag("div", "command"):
        words("$", "span", "soft")
        words(text, "span", "grow")
        copy = button("", None, icon="content_copy", kind="quiet", label=f"Copy {text}")
        copy.on("click", js_handler=f"() => navigator.clipboard?.writeText({text!r})")


def _models(studio: Studio, models: list[Artifact]) -> None:
    aliases = studio.context.workspace.aliases()
    served = studio.context.models.names()
    with tag("section", "card"):
        words("Models", "h2")
        with tag("div", "scroll"), tag("table", "models"):
            with tag("thead"), tag("tr"):
                for title, classes in (
                    ("name", ""), ("stage", "wide"), ("parameters", "r wide"), ("bits per byte", "r"), ("", "r")
                ):  # fmt: skip
                    words(title, "th", classes)
            with tag("tbody"):
                for model in reversed(models):
                    names = [name for name, key in aliases.items() if key == model.id and name in served]
                    _row(model, names[0] if names else "")


def _reports(studio: Studio) -> None:
    reports = studio.context.workspace.artifacts("report")
    if reports:
        with tag("section", "card"):
            words("Reports", "h2")
            words("Lineage, data, curves, yardsticks, samples and limits of a model on one page.", "p", "soft")
            with tag("div", "flow"):
                for report in reversed(reports[-4:]):
                    link(f"{report.name}, {report.created[:10]}", f"/report/{report.id}", "btn")


def _row(model: Artifact, served: str) -> None:
    stage = str(model.settings.get("stage", ""))
    with tag("tr"):
        with tag("td"):
            words(served or model.name, "b")
            words(f" {model.id}", "span", "soft small mono")
        with tag("td", "wide"):
            words(STAGE_NAMES.get(stage, stage or "model"), "span", "tag on" if stage == "aligned" else "tag")
        words(count(model.metrics.get("parameters")), "td", "r wide")
        words(decimal(model.metrics.get("heldout_bits_per_byte")), "td", "r")
        with tag("td", "r"):
            if served:
                link("Chat", address("/chat", served))
