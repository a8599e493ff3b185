"""Conversations: messages made of typed content parts (text now; images have their place already)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class TextPart:
    """A piece of text."""

    text: str
    type: Literal["text"] = "text"


@dataclass(frozen=True)
class ImagePart:
    """A reference to an image. No model here can see yet, so every reader refuses it with a clear error."""

    url: str
    type: Literal["image"] = "image"


ContentPart = TextPart | ImagePart


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: tuple[ContentPart, ...]

    @classmethod
    def of(cls, role: Role, text: str) -> Message:
        """A message of one text part."""
        return cls(role, (TextPart(text),))

    @property
    def text(self) -> str:
        """All text parts joined.

        Raises:
            ValueError: a part is not text.
        """
        for part in self.content:
            if not isinstance(part, TextPart):
                raise ValueError(f"a content part of type '{part.type}' cannot be read as text")
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    def to_json(self) -> dict[str, Any]:
        """`{"role": ..., "content": [{"type": "text", "text": ...}]}`"""
        parts: list[dict[str, str]] = [
            {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image", "url": part.url}
            for part in self.content
        ]
        return {"role": self.role, "content": parts}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Message:
        """The reverse of `to_json`; a plain string as content is one text part.

        Raises:
            ValueError: an unknown role or content part.
        """
        role, content = data.get("role"), data.get("content")
        if role not in ROLES:
            raise ValueError(f"role must be one of {', '.join(ROLES)}, not {role!r}")
        if isinstance(content, str):
            return cls(role, (TextPart(content),))
        if not isinstance(content, list):
            raise ValueError("content must be a string or a list of parts")
        parts: list[ContentPart] = []
        for part in content:
            match part:
                case {"type": "text", "text": str(text)}:
                    parts.append(TextPart(text))
                case {"type": "image", "url": str(url)}:
                    parts.append(ImagePart(url))
                case _:
                    raise ValueError(f"unknown content part {part!r}")
        return cls(role, tuple(parts))
