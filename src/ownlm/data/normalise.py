"""One form for every text, and the plain rules by which a text is not worth learning from."""

from __future__ import annotations

import re
import unicodedata

_GENERATED = re.compile(
    r"auto-?generated|automatically generated|@generated|do not edit|do not modify|machine[- ]generated"
    r"|generated (?:from '|by [\w./-]+\.(?:py|pl|sh|js)\b|with [\w./-]+\.(?:py|pl|sh|js)\b)",
    re.IGNORECASE,
)
_HEAD = 600
_LINE_ENDS = re.compile(r"\r\n?")


def normalise(text: str) -> str:
    """NFC, line ends as `\\n`, no blank lines before the first line, one line end after the last one.

    Everything else, indentation and trailing blanks included, stays as its author wrote it.
    """
    if "\r" in text:
        text = _LINE_ENDS.sub("\n", text)
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    text = text.lstrip("\n").rstrip()
    return text + "\n" if text else ""


def unworthy(text: str, minimum_bytes: int, longest_average_line: float) -> str | None:
    """Why a text should not be learned from, or None.

    Args:
        minimum_bytes: shorter texts are "too short".
        longest_average_line: in characters; longer ones are minified or data.
    """
    if not text:
        return "empty"
    if len(text) < minimum_bytes and len(text.encode()) < minimum_bytes:
        return f"shorter than {minimum_bytes} bytes"
    if len(text) / (text.count("\n") or 1) > longest_average_line:
        return f"minified or data (lines longer than {longest_average_line:.0f} characters on average)"
    if _GENERATED.search(text, 0, _HEAD):
        return "says that it was generated"
    return None
