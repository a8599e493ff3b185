"""A model's answer on a page: paragraphs, and code with colours. All of it is hostile until it is escaped here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from nicegui import ui

from ownlm.render.html import visible
from ownlm.studio.theme import tag

FENCE = re.compile(r"^```[^\n`]*$\n?", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
INDENTED = re.compile(r"^(?: {4}|\t)\s*\S", re.MULTILINE)
INDENTED_LINES = 2
"""Text without a fence is shown as code when so many of its lines are indented: young models forget the fence."""
LONGEST_COLOURED = 20_000
"""Characters; what is longer is shown without colours."""
KEYWORDS = (
    "and|as|assert|async|await|break|case|catch|class|const|continue|def|del|do|elif|else|"
    "enum|except|extends|false|False|finally|fn|for|from|func|function|if|impl|import|in|is|"
    "lambda|let|match|mut|new|nil|None|nonlocal|not|null|or|pass|pub|raise|return|self|"
    "static|struct|super|switch|this|throw|true|True|try|type|use|var|void|while|with|yield"
)
"""Of many languages: how an answer is read does not depend on what a model was trained on."""
TOKENS = re.compile(
    r"(?P<c>(?:#|//)[^\n]*)"
    r"|(?P<s>\"\"\".*?(?:\"\"\"|\Z)|'''.*?(?:'''|\Z)|\"(?:\\.|[^\"\\\n])*\"?|'(?:\\.|[^'\\\n])*'?)"
    r"|(?P<n>\b\d[\w.]*)"
    rf"|(?P<k>\b(?:{KEYWORDS})\b)"
    r"|(?P<f>\b[A-Za-z_]\w*(?=\())",
    re.DOTALL,
)
"""Comments, strings, numbers, keywords and calls, as most languages write them."""


@dataclass(frozen=True)
class Part:
    """A piece of an answer."""

    text: str
    code: bool


def parts(text: str) -> Iterator[Part]:
    """Text and fenced code in turn; a fence that is still open is code, since an answer may be unfinished."""
    code = False
    for piece in FENCE.split(text):
        content = piece.strip("\n")
        if content.strip():
            yield Part(content, code or len(INDENTED.findall(content)) >= INDENTED_LINES)
        code = not code


def coloured(code: str) -> str:
    """Code as escaped HTML, with a `<span class>` around what `TOKENS` finds."""
    if len(code) > LONGEST_COLOURED:
        return escape(code)
    pieces, at = [], 0
    for match in TOKENS.finditer(code):
        pieces.append(escape(code[at : match.start()]))
        pieces.append(f'<span class="{match.lastgroup}">{escape(match[0])}</span>')
        at = match.end()
    return "".join(pieces) + escape(code[at:])


def inline_html(text: str) -> str:
    """One paragraph's inside, escaped; what stands in `backticks` is code."""
    return INLINE.sub(lambda match: f"<code>{match[1]}</code>", escape(visible(text), quote=False))


def answer_html(text: str) -> str:
    """The whole answer as HTML in which every character of `text` is escaped."""
    found = []
    for part in parts(visible(text)):
        if part.code:
            found.append(f"<pre><code>{coloured(part.text)}</code></pre>")
        else:
            found.append(f"<p>{inline_html(part.text)}</p>")
    return "".join(found)


def raw_html(text: str) -> str:
    """Text as it came, escaped, in one block."""
    return f'<pre class="raw">{escape(visible(text))}</pre>' if text else ""


def chip(text: str, on_click: Callable[[str], Any]) -> ui.element:
    """A button that offers a prompt."""
    with tag("button", "chip").props("type=button") as found:
        found.props["title"] = text
        ui.html(inline_html(text), tag="span")
    found.on("click", lambda: on_click(text), [])
    return found


class AnswerView:
    """The place on a page where an answer grows. `raw` shows it as it came, without reading any Markdown."""

    def __init__(self, raw: bool = False) -> None:
        self._writing = False
        self._render = raw_html if raw else answer_html
        with tag("div", "answer").props('aria-live="polite"') as self.element:
            self._html = ui.html("")

    def show(self, text: str, writing: bool) -> None:
        """Shows the text so far; `writing` adds a cursor."""
        self._html.set_content(self._render(text))
        if writing != self._writing:
            self._writing = writing
            # While it is busy a screen reader waits, and reads the answer when it is whole.
            self.element.props["aria-busy"] = str(writing).lower()
            self.element.classes(add="writing") if writing else self.element.classes(remove="writing")
