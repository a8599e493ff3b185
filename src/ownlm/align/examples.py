"""An instruction example: a conversation that ends with the answer to learn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ownlm.data.message import Message


@dataclass(frozen=True)
class InstructionExample:
    """`messages` ends with the assistant's answer; `source` is the document that it was made from.

    `task` names the sort of instruction within its kit; `meta` holds what the kit's verifier and gold score need
    besides the messages, as strings.
    """

    messages: tuple[Message, ...]
    source: str
    task: str
    meta: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.messages) < 2 or self.messages[-1].role != "assistant":
            raise ValueError("an instruction example is a prompt followed by the assistant's answer")

    @classmethod
    def of(
        cls, prompt: str, answer: str, source: str, task: str, meta: dict[str, str] | None = None
    ) -> InstructionExample:
        """One question and one answer."""
        return cls((Message.of("user", prompt), Message.of("assistant", answer)), source, task, meta or {})

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The answer's text."""
        return self.messages[-1].text

    def to_json(self) -> dict[str, Any]:
        """As JSON data; `from_json` reads it back."""
        messages = [message.to_json() for message in self.messages]
        return {"messages": messages, "source": self.source, "task": self.task, "meta": self.meta}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> InstructionExample:
        """The reverse of `to_json`.

        Raises:
            ValueError: the messages are not a prompt followed by an answer.
        """
        messages = tuple(Message.from_json(message) for message in data.get("messages", []))
        return cls(messages, str(data.get("source", "")), str(data.get("task", "")), dict(data.get("meta", {})))
