"""What all pages share: the frame with its navigation, the look, and the few controls that they are made of.

The controls are the browser's own (buttons, ranges, details), so that keyboard and screen readers work as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

ASSETS = Path(__file__).parent / "assets"
MARK = (
    '<svg viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="9" fill="#4f46e5"/>'
    '<path d="M8 21.5c3-9 5.5-9 8 0s5 0 8-11" fill="none" stroke="#fff" stroke-width="3" stroke-linecap="round"/>'
    '<circle cx="24" cy="10.5" r="2.6" fill="#5eead4"/></svg>'
)


@dataclass(frozen=True)
class Place:
    """An entry of the navigation; `icon` is a name of the Material icons, which NiceGUI serves itself."""

    path: str
    title: str
    icon: str
    what: str


PLACES = (
    Place("/watch", "Watch", "show_chart", "A model being trained, and its language as it appears."),
    Place("/unmask", "Unmask", "layers", "One prompt, three models: what each stage of training added."),
    Place("/chat", "Chat", "forum", "Talk to a model, change how it chooses words, judge its answers."),
    Place("/your-turn", "Your turn", "balance", "Ten blind choices, a minute of training, an honest verdict."),
)

# Before anything is drawn, so that a page in the chosen theme does not flash in the other one.
REMEMBER_THEME = (
    "<script>try{const t=localStorage.getItem('ownlm-theme');"
    "if(t==='light'||t==='dark')document.documentElement.dataset.theme=t}catch{}</script>"
)
SWITCH_THEME = """() => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = dark ? 'light' : 'dark';
  try { localStorage.setItem('ownlm-theme', root.dataset.theme); } catch {}
}"""


def head() -> str:
    """The head of every page: colours and layout, ready before the first element."""
    return f"{REMEMBER_THEME}<style>{(ASSETS / 'studio.css').read_text('utf-8')}</style>"


@contextmanager
def frame(path: str, narrow: bool = False) -> Iterator[ui.element]:
    """The navigation around one page's content; `path` is the page's own."""
    link("Skip to the content", "#content", "skip")
    with tag("header", "top"):
        with tag("a", "brand").props('href="/" aria-label="OwnLM: home"'):
            ui.html(MARK, sanitize=False)
            words("OwnLM", "span")
        with tag("nav", "nav").props('aria-label="Pages"'):
            for place in PLACES:
                here = ' aria-current="page"' if place.path == path else ""
                with tag("a").props(f'href="{place.path}"{here}'):
                    ui.icon(place.icon).props('aria-hidden="true"')
                    words(place.title, "span")
        switch = button("", None, icon="contrast", kind="quiet", label="Switch between light and dark")
        switch.on("click", js_handler=SWITCH_THEME)
    with tag("div", f"page{' narrow' if narrow else ''}").props("id=content tabindex=-1") as main:
        yield main


def address(path: str, model: str) -> str:
    """The address of a page that shows this model, whatever stands in its name."""
    return f"{path}?model={quote(model, safe='')}"


# ---- controls


def tag(name: str, classes: str = "") -> ui.element:
    """An element of HTML."""
    return ui.element(name).classes(classes)


class Words(TextElement):
    """Text in any element; it is set as text, never as HTML, whatever is in it."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(tag=name, text=text)


def words(text: str, name: str = "p", classes: str = "") -> Words:
    """Plain text in an element of HTML."""
    return Words(text, name).classes(classes)


def link(text: str, target: str, classes: str = "") -> ui.element:
    """A link."""
    with tag("a", classes).props(f'href="{target}"') as found:
        words(text, "span")
    return found


def button(
    text: str,
    on_click: Callable[[], Any] | None,
    *,
    icon: str = "",
    kind: str = "",
    key: str = "",
    label: str = "",
) -> ui.element:
    """A button; `key` is shown as the key that does the same, `label` is read aloud where there is no text."""
    with tag("button", f"btn {kind}").props("type=button") as found:
        if label:
            found.props["aria-label"] = found.props["title"] = label
        if icon:
            ui.icon(icon).props('aria-hidden="true"')
        if text:
            words(text, "span")
        if key:
            words(key, "kbd").props('aria-hidden="true"')
    if on_click is not None:
        found.on("click", lambda: on_click(), [])
    return found


def enable(element: ui.element, on: bool) -> None:
    """Lets a button be pressed, or not."""
    if on:
        element.props(remove="disabled")
    else:
        element.props("disabled")


def show(element: ui.element, on: bool) -> None:
    """Takes an element out of the page, or back in."""
    element.classes(remove="hidden") if on else element.classes(add="hidden")


def choice(options: dict[str, str], value: str, label: str, on_change: Callable[[str], Any]) -> ui.element:
    """A drop-down list of value -> text."""
    with tag("select", "choice") as found:
        found.props["aria-label"] = label
        for key, text in options.items():
            option = words(text, "option")
            option.props["value"] = key
            if key == value:
                option.props("selected")
    found.on("change", lambda event: on_change(str(event.args)), js_handler="(e) => emit(e.target.value)")
    return found


def meter(share: float = 0.0, classes: str = "") -> tuple[ui.element, Callable[[float], None]]:
    """A bar, and the function that fills it to a share of 0 to 1."""
    with tag("div", f"bar {classes}").props(
        'role=progressbar aria-valuemin=0 aria-valuemax=100 aria-label="Progress"'
    ) as bar:
        inner = tag("div")

    def fill(value: float) -> None:
        percent = round(100 * min(1.0, max(0.0, value)), 1)
        bar.props["aria-valuenow"] = percent
        inner.style(f"width: {percent}%")

    fill(share)
    return bar, fill


def tell(element: Words, error: BaseException | str) -> None:
    """Shows what went wrong in an element of class `notice`."""
    element.text = str(error)
    show(element, True)


def notice(text: str = "", error: bool = False) -> Words:
    """A sentence that stands out; hidden while it is empty."""
    found = words(text, "p", "notice error" if error else "notice").props("role=status")
    show(found, bool(text))
    return found


def instead(wanted: str, chosen: str | None) -> None:
    """Says so where an address names a model that is not served, and which one is shown instead."""
    if wanted and wanted != chosen:
        shown = f" This is {chosen}." if chosen else ""
        notice(f"There is no model '{wanted[:100]}' on this server.{shown}")
