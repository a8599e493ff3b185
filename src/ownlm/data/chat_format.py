"""Conversations as tokens: a model's chat templates, and which tokens the assistant wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ownlm.data.chat_template import CHATML_TEMPLATE, Rendered, constants
from ownlm.data.chat_template import render as render_template
from ownlm.data.chat_template_authors import Values, peoples
from ownlm.data.foreign_tokenizer_config import read_templates
from ownlm.data.message import Message
from ownlm.data.tokenizer_protocol import AnyTokenizer, Position, Span
from ownlm.runtime.errors import OwnLMError

__all__ = ["CHATML_TEMPLATE", "ChatFormat", "load_chat_format", "render"]

Tools = Sequence[Mapping[str, Any]]
"""Functions that the assistant may call, each as `{"type": "function", "function": {JSON schema}}`."""


def render(template: str, messages: Sequence[Message], add_generation_prompt: bool) -> str:
    """The text that a template makes of a conversation.

    Raises:
        OwnLMError: the template is broken, refuses the conversation, or tries to leave its sandbox.
    """
    return ChatFormat(template).render(messages, add_generation_prompt)


def load_chat_format(folder: Path, tokenizer: AnyTokenizer) -> ChatFormat:
    """The chat templates of a model folder.

    A model without any uses ChatML if its tokenizer has ChatML's tokens; else it answers no messages, only text.

    Raises:
        OwnLMError: the folder's files cannot be read.
    """
    templates = read_templates(folder)
    if not templates and {"<|im_start|>", "<|im_end|>"} <= set(tokenizer.special):
        templates = {"default": CHATML_TEMPLATE}
    return ChatFormat(templates, tokenizer.variables)


class ChatFormat:
    """A model's chat template together with its tokenizer's special tokens.

    Rendering is what `apply_chat_template` of `transformers` gives for the same messages, tools, documents and further
    variables (`enable_thinking=False`, ...), and so are the tokens, with one exception: special tokens come from the
    template alone, and the same characters inside a message are encoded as plain text. Tokens that are not special
    (`<think>` in some models) count everywhere, since assistants write them.

    Args:
        template: one template, or several by name: "tool_use" is for conversations with tools, "default" for others.
        variables: `bos_token` and other tokens that templates name.
    """

    def __init__(
        self, template: str | Mapping[str, str] = CHATML_TEMPLATE, variables: Mapping[str, str] | None = None
    ) -> None:
        self.templates = {"default": template} if isinstance(template, str) else dict(template)
        self.variables = dict(variables or {})

    def template(self, tools: Tools | None = None) -> str:
        """The template for a conversation with or without tools.

        Raises:
            OwnLMError: the model has none, or none under a name that is known.
        """
        name = "tool_use" if tools is not None and "tool_use" in self.templates else "default"
        if name in self.templates:
            return self.templates[name]
        if not self.templates:
            raise OwnLMError("This model has no chat template: give it text to continue, not messages.")
        raise OwnLMError(f'This model has no chat template "default", only {", ".join(sorted(self.templates))}.')

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = False,
        *,
        tools: Tools | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        **more: Any,
    ) -> str:
        """The text of a conversation.

        Raises:
            OwnLMError: there is no template, or it is broken, refuses the conversation, or tries to leave its sandbox.
        """
        return self._rendering(tools, documents, more).text(messages, add_generation_prompt)

    def prompt_ids(
        self,
        tokenizer: AnyTokenizer,
        messages: Sequence[Message],
        *,
        tools: Tools | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        **more: Any,
    ) -> list[int]:
        """The token ids up to where the assistant's answer begins; rendered once, however long the conversation is."""
        rendering = self._rendering(tools, documents, more)
        text = rendering.text(messages, True)
        return tokenizer.encode_chat(text, rendering.peoples(tokenizer, messages, True, text))[0]

    def encode(
        self,
        tokenizer: AnyTokenizer,
        messages: Sequence[Message],
        add_generation_prompt: bool = False,
        *,
        tools: Tools | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        **more: Any,
    ) -> tuple[list[int], list[bool]]:
        """Token ids, and for each whether the assistant wrote it (its text and the token that ends its turn).

        Where the template has `{% generation %}` blocks, they say what the assistant wrote. Else it is that by which
        the conversation grows from its generation prompt to the end of its turn; the text is cut there, so that an
        answer's tokens are those that the model would have to make after the prompt.

        Raises:
            OwnLMError: see `render`; or the template changes earlier turns as the conversation goes on.
        """
        rendering = self._rendering(tools, documents, more)
        whole = rendering.render(messages, add_generation_prompt)
        plain = rendering.peoples(tokenizer, messages, add_generation_prompt, whole.text)
        if whole.generated:
            ids, spans = tokenizer.encode_chat(whole.text, plain)
            return ids, _mask(spans, whole.generated)
        ids, mask = list[int](), list[bool]()
        turns = _turns(rendering, messages, whole.text, add_generation_prompt)
        first = turns[0][0] if turns else len(whole.text)
        ids, _ = tokenizer.encode_chat(whole.text[:first], _cut(plain, 0, first))
        mask = [False] * len(ids)
        for index, (start, end) in enumerate(turns):
            stop = turns[index + 1][0] if index + 1 < len(turns) else len(whole.text)
            position = _position(tokenizer, ids) if start else "start"
            piece, spans = tokenizer.encode_chat(whole.text[start:stop], _cut(plain, start, stop), position)
            ids += piece
            mask += _own(piece, spans, end - start, tokenizer.stops)
        return ids, mask

    def _rendering(
        self, tools: Tools | None, documents: Sequence[Mapping[str, Any]] | None, more: Mapping[str, Any]
    ) -> _Rendering:
        given = {"tools": _plain_data("tools", tools), "documents": _plain_data("documents", documents)}
        return _Rendering(self.template(tools), self.variables, {**given, **_plain_data("variables", dict(more))})


class _Rendering:
    """One template with all but the messages."""

    def __init__(self, template: str, variables: Mapping[str, str], given: Values) -> None:
        self._template, self._variables, self._given = template, variables, given

    def render(self, messages: Sequence[Message], add_generation_prompt: bool) -> Rendered:
        return self._of(self._values(messages, add_generation_prompt))

    def text(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        return self.render(messages, add_generation_prompt).text

    def without_end(self, text: str) -> str:
        """Without the end-of-text token that some templates write behind the last message alone."""
        return text.removesuffix(self._variables.get("eos_token", ""))

    def peoples(
        self, tokenizer: AnyTokenizer, messages: Sequence[Message], add_generation_prompt: bool, text: str
    ) -> list[Span]:
        """See `peoples`."""
        values = self._values(messages, add_generation_prompt)
        return peoples(lambda other: self._of(other).text, values, text, tokenizer.special, constants(self._template))

    def _of(self, values: Values) -> Rendered:
        return render_template(self._template, {**self._variables, **values})

    def _values(self, messages: Sequence[Message], add_generation_prompt: bool) -> Values:
        listed = [_for_template(message) for message in messages]
        return {"messages": listed, "add_generation_prompt": add_generation_prompt, **self._given}


def _for_template(message: Message) -> dict[str, Any]:
    """A message as templates expect it: its content is a string, arguments of calls are objects."""
    data: dict[str, Any] = {"role": message.role}
    if message.content or not message.tool_calls:
        try:
            data["content"] = message.text
        except ValueError as error:
            raise OwnLMError(f"The {message.role}'s message cannot be used with this model: {error}.") from None
    if message.reasoning is not None:
        # Two names for one thing, as templates differ.
        data |= {"reasoning_content": message.reasoning, "thinking": message.reasoning}
    if message.tool_calls:
        data["tool_calls"] = [call.to_json() for call in message.tool_calls]
        for call in data["tool_calls"]:
            call["function"]["arguments"] = _arguments(call["function"]["arguments"])
    more = {"name": message.name, "tool_call_id": message.tool_call_id}
    return data | {key: value for key, value in more.items() if value is not None}


def _arguments(text: str) -> Any:
    """The object that a JSON text holds; what is none stays a text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, dict) else text


def _plain_data(name: str, value: Any) -> Any:
    """A copy made of JSON's types alone: templates get no objects with methods of their own."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise OwnLMError(f"The chat template's {name} must be JSON data: {error}.") from None


def _turns(rendering: _Rendering, messages: Sequence[Message], whole: str, add_generation_prompt: bool) -> list[Span]:
    """For each message of the assistant, what of `whole` it is: from its generation prompt to the end of its turn."""
    turns: list[Span] = []
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        before = rendering.text(messages[:index], True)
        is_whole = index + 1 == len(messages) and not add_generation_prompt
        after = whole if is_whole else rendering.text(messages[: index + 1], False)
        if not whole.startswith(after):
            after = rendering.without_end(after)
        if not (after.startswith(before) and whole.startswith(after)) or (turns and len(before) < turns[-1][1]):
            raise OwnLMError("The chat template rewrites earlier turns, so no loss mask can be made from it.")
        turns.append((len(before), len(after)))
    return turns


def _own(ids: Sequence[int], spans: Sequence[Span], end: int, stops: frozenset[int]) -> list[bool]:
    """What begins before `end`, up to the token that ends the turn: the template writes what comes after it."""
    count = sum(start < end for start, _ in spans)
    last = next((place + 1 for place in range(count) if ids[place] in stops), count)
    return [place < last for place in range(len(ids))]


def _mask(spans: Sequence[Span], generated: Sequence[Span]) -> list[bool]:
    """The tokens from a block's first character to its last, as `transformers` counts them.

    A last character without a token of its own, or in the very first token, makes all that follows count.
    """
    mask = [False] * len(spans)
    token_at: Callable[[int], int | None] = _finder(spans)
    for start, end in generated:
        first, last = token_at(start), token_at(end - 1)
        if first is None:
            break
        for place in range(first, last + 1 if last else len(spans)):
            mask[place] = True
    return mask


def _finder(spans: Sequence[Span]) -> Callable[[int], int | None]:
    """The first token that a character belongs to."""
    tokens: dict[int, int] = {}
    for token, (start, end) in enumerate(spans):
        for character in range(start, end):
            tokens.setdefault(character, token)
    return tokens.get


def _cut(spans: Sequence[Span], start: int, end: int) -> list[Span]:
    """The parts of the spans between two places, counted from the first."""
    return [(max(a, start) - start, min(b, end) - start) for a, b in spans if a < end and b > start]


def _position(tokenizer: AnyTokenizer, ids: Sequence[int]) -> Position:
    """Where a text stands that follows these tokens."""
    return "after" if ids and ids[-1] in tokenizer.special.values() else "inside"
