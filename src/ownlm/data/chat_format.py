"""Conversations as tokens: a Jinja chat template in a sandbox, and which tokens the assistant wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ownlm.data.message import Message
from ownlm.runtime.errors import OwnLMError

if TYPE_CHECKING:
    from ownlm.data.tokenizer import Tokenizer

CHATML_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['content'] is string %}{{- message['content'] }}"
    "{%- else %}{%- for part in message['content'] %}{{- part['text'] }}{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""ChatML: `<|im_start|>role`, a newline, the content, `<|im_end|>`, a newline."""


def render(template: str, messages: Sequence[Message], add_generation_prompt: bool) -> str:
    """The text that a template makes of a conversation.

    Raises:
        OwnLMError: the template is broken, refuses the conversation, or tries to leave its sandbox.
    """

    values: dict[str, Any] = {
        "messages": [{"role": message.role, "content": _text(message)} for message in messages],
        "add_generation_prompt": add_generation_prompt,
    }
    try:
        return _compiled(template).render(**values)
    except Exception as error:  # a hostile template can raise anything: KeyError, OverflowError, RecursionError, ...
        raise OwnLMError(f"The chat template cannot render this conversation: {error}.") from error


@lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    """Compiling takes a hundred times as long as rendering, and a fine-tuning set renders thousands of times."""

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template)


def _text(message: Message) -> str:
    try:
        return message.text
    except ValueError as error:
        raise OwnLMError(f"The {message.role}'s message cannot be used with this model: {error}.") from None


class ChatFormat:
    """A model's chat template together with its tokenizer's special tokens."""

    def __init__(self, template: str = CHATML_TEMPLATE) -> None:
        self.template = template

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """See the function `render`."""
        return render(self.template, messages, add_generation_prompt)

    def prompt_ids(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
        """The token ids up to where the assistant's answer begins; rendered once, however long the conversation is."""
        return self._encode(tokenizer, messages, add_generation_prompt=True)

    def encode(
        self, tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool = False
    ) -> tuple[list[int], list[bool]]:
        """Token ids, and for each whether the assistant wrote it (its text and the token that ends its turn).

        Special tokens come from the template alone: the same characters inside a message are encoded as plain text.
        The assistant's tokens are those by which the conversation grows from its generation prompt to its turn's end.
        """
        ids: list[int] = []
        mask: list[bool] = []
        for index, message in enumerate(messages):
            before = len(ids)
            if message.role == "assistant":
                prompt = self._encode(tokenizer, messages[:index], add_generation_prompt=True)
                self._extend(ids, mask, prompt, False)
                before = len(ids)
            whole = self._encode(tokenizer, messages[: index + 1], add_generation_prompt=False)
            self._extend(ids, mask, whole, message.role == "assistant")
            if message.role == "assistant":
                self._close_turn(tokenizer, ids, mask, before)
        if add_generation_prompt:
            self._extend(ids, mask, self._encode(tokenizer, messages, add_generation_prompt=True), False)
        return ids, mask

    @staticmethod
    def _close_turn(tokenizer: Tokenizer, ids: list[int], mask: list[bool], start: int) -> None:
        """What a template writes after the token that ends the turn (a newline) is not the assistant's."""
        for position in range(len(ids) - 1, start - 1, -1):
            if ids[position] == tokenizer.end_of_turn:
                mask[position + 1 :] = [False] * (len(ids) - position - 1)
                return

    @staticmethod
    def _extend(ids: list[int], mask: list[bool], whole: list[int], assistant: bool) -> None:
        if whole[: len(ids)] != ids:
            raise OwnLMError("The chat template rewrites earlier turns, so no loss mask can be made from it.")
        mask += [assistant] * (len(whole) - len(ids))
        ids[:] = whole

    def _encode(self, tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool) -> list[int]:
        """Renders with each message's text replaced by a marker, then encodes template and texts apart."""
        marked, texts = [], {}
        for index, message in enumerate(messages):
            marker = f"\ue000{index}\ue001"
            texts[marker] = _text(message)
            marked.append(Message.of(message.role, marker))
        rendered = self.render(marked, add_generation_prompt)
        ids: list[int] = []
        for piece in _split(rendered, list(texts)):
            ids += tokenizer.encode(texts[piece]) if piece in texts else _encode_template(tokenizer, piece)
        return ids


def _split(text: str, separators: Sequence[str]) -> list[str]:
    """`text` cut before and after each separator, which stay as pieces of their own; the earlier one wins."""
    if not separators:
        return [text] if text else []
    pattern = "|".join(re.escape(separator) for separator in separators)
    return [piece for piece in re.split(f"({pattern})", text) if piece]


def _encode_template(tokenizer: Tokenizer, text: str) -> list[int]:
    """Encodes the template's own text, in which special tokens count as such."""
    ids: list[int] = []
    for piece in _split(text, sorted(tokenizer.special, key=len, reverse=True)):
        ids += [tokenizer.special[piece]] if piece in tokenizer.special else tokenizer.encode(piece)
    return ids
