"""Conversations: messages made of typed content parts (text now; images have their place already) and tool calls."""

from __future__ import annotations

import json
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
class ToolCall:
    """A function that the assistant wants to be called."""

    name: str
    arguments: str = "{}"
    """A JSON text, usually of an object."""
    id: str | None = None

    def to_json(self) -> dict[str, Any]:
        """`{"id": ..., "type": "function", "function": {"name": ..., "arguments": "..."}}`, as OpenAI writes it."""
        call = {"type": "function", "function": {"name": self.name, "arguments": self.arguments}}
        return call if self.id is None else {"id": self.id, **call}

    @classmethod
    def from_json(cls, data: Any) -> ToolCall:
        """The reverse of `to_json`; arguments may be an object too, and `{"name", "arguments"}` may stand alone.

        Raises:
            ValueError: it is something else.
        """
        match data:
            case {"type": "function", "function": dict(function), **rest}:
                identifier = rest.get("id")
            case {"name": str(), **rest}:
                function, identifier = data, rest.get("id")
            case _:
                raise ValueError(f"unknown tool call {data!r}")
        name, arguments = function.get("name"), function.get("arguments", {})
        if not isinstance(name, str) or not (identifier is None or isinstance(identifier, str)):
            raise ValueError(f"a tool call's name and id must be strings: {data!r}")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return cls(name, text, identifier)


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    A turn that only calls tools has no content at all: `content=()`.
    """

    role: Role
    content: tuple[ContentPart, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    """Of the tool that a message of the role "tool" comes from."""
    tool_call_id: str | None = None
    """The id of the call that a message of the role "tool" answers."""
    reasoning: str | None = None
    """What the assistant thought before it answered, apart from the answer."""

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
        """`{"role": ..., "content": [{"type": "text", "text": ...}]}`, and the other fields where they are set."""
        parts: list[dict[str, str]] = [
            {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image", "url": part.url}
            for part in self.content
        ]
        data: dict[str, Any] = {"role": self.role, "content": parts}
        if self.tool_calls:
            data["tool_calls"] = [call.to_json() for call in self.tool_calls]
        more = {"name": self.name, "tool_call_id": self.tool_call_id, "reasoning_content": self.reasoning}
        return data | {key: value for key, value in more.items() if value is not None}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Message:
        """The reverse of `to_json`; a plain string as content is one text part.

        Raises:
            ValueError: an unknown role or content part, or a field of the wrong type.
        """
        role, content = data.get("role"), data.get("content")
        if role not in ROLES:
            raise ValueError(f"role must be one of {', '.join(ROLES)}, not {role!r}")
        calls = data.get("tool_calls") or []
        if not isinstance(calls, list):
            raise ValueError("tool_calls must be a list")
        more = {key: data.get(key) for key in ("name", "tool_call_id", "reasoning_content")}
        for key, value in more.items():
            if not (value is None or isinstance(value, str)):
                raise ValueError(f"{key} must be a string")
        return cls(
            role,
            () if content is None and calls else _parts(content),
            tuple(ToolCall.from_json(call) for call in calls),
            more["name"],
            more["tool_call_id"],
            more["reasoning_content"],
        )


def _parts(content: Any) -> tuple[ContentPart, ...]:
    if isinstance(content, str):
        return (TextPart(content),)
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
    return tuple(parts)
