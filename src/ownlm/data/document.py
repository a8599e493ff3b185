"""A document of a corpus, and how the rows of `documents.parquet` are laid out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

from ownlm.data.message import TextPart

Split = Literal["train", "heldout"]


@dataclass(frozen=True)
class Document:
    """One file's text with where it came from and what may be done with it.

    `source` is a stable name without machine paths ("stdlib:json/decoder.py", "notes:2024/plan.md"); `group` is the
    package or top folder that held-out splitting keeps together; `licence` an SPDX expression or "unknown"; `kind`
    "code" or "prose" (a slice of the evaluation); `format` the file's ending without the dot, in lower case.
    """

    source: str
    group: str
    licence: str
    kind: str
    format: str
    content: tuple[TextPart, ...]
    split: Split = "train"
    sha256: str = field(default="")

    def __post_init__(self) -> None:
        if not self.sha256:
            object.__setattr__(self, "sha256", hashlib.sha256(self.text.encode("utf-8")).hexdigest())

    @property
    def text(self) -> str:
        """All text parts joined."""
        return "".join(part.text for part in self.content)

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the text."""
        return len(self.text.encode("utf-8"))

    def to_row(self) -> dict[str, Any]:
        """A row of `documents.parquet`; content is a list of typed parts."""
        return {
            "sha256": self.sha256,
            "source": self.source,
            "group": self.group,
            "licence": self.licence,
            "kind": self.kind,
            "format": self.format,
            "split": self.split,
            "bytes": self.bytes,
            "content": [{"type": part.type, "text": part.text} for part in self.content],
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Document:
        """The reverse of `to_row`."""
        parts = tuple(TextPart(part["text"]) for part in row["content"])
        keys = ("source", "group", "licence", "kind", "format", "split", "sha256")
        return cls(content=parts, **{key: row[key] for key in keys})


@dataclass(frozen=True)
class Skipped:
    """A file that was not taken, with the reason in words."""

    source: str
    reason: str
