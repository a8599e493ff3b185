"""A model on this machine: one batch at a time, with a key/value cache."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock

import torch
from torch import Tensor

from ownlm.data.chat_format import ChatFormat
from ownlm.data.message import Message
from ownlm.data.tokenizer_protocol import AnyTokenizer
from ownlm.engine.detokenise import TextAssembler
from ownlm.engine.request import (
    Completion,
    Event,
    Finished,
    FinishReason,
    ModelFacts,
    SamplingParams,
    TextDelta,
    TextScore,
    TokenLogprob,
    Usage,
)
from ownlm.engine.sampling import Drawn, draw
from ownlm.engine.scoring import token_logprobs
from ownlm.model.cache import StaticCache
from ownlm.model.decoder import Decoder
from ownlm.runtime.errors import ContextOverflow, OwnLMError
from ownlm.runtime.seeds import derive_seed

Prompt = str | Sequence[int] | Sequence[Message]
ROWS = 128
"""Prompts that `generate` works on together."""


@dataclass
class _Row:
    """One answer under way."""

    prompt_tokens: int
    assembler: TextAssembler
    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    reason: FinishReason | None = None

    def usage(self) -> Usage:
        return Usage(self.prompt_tokens, len(self.ids))


class LocalModel:
    """A decoder with its tokenizer and chat format, as a `LanguageModel`.

    One request runs at a time; others wait for the lock. A prompt that does not fit raises `ContextOverflow`.
    """

    def __init__(self, decoder: Decoder, tokenizer: AnyTokenizer, chat: ChatFormat, facts: ModelFacts) -> None:
        self.decoder, self.tokenizer, self.chat = decoder.eval(), tokenizer, chat
        self._facts = facts
        self._lock = Lock()
        self.keeps: object = None
        """What is to stay in memory as long as this model does."""

    @property
    def facts(self) -> ModelFacts:
        """Name, id, context and what was measured of the model."""
        return self._facts

    # ---- the protocol

    def stream(self, prompt: Prompt, params: SamplingParams) -> Iterator[Event]:
        """See `LanguageModel.stream`."""
        ids = self._fitting(prompt)
        return self._stream(ids, _continues(prompt), params)

    def generate(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[Completion]:
        """See `LanguageModel.generate`. Prompts of similar length are worked on together."""
        encoded = [self._fitting(prompt) for prompt in prompts]
        base = secrets.randbits(63) if params.seed is None else params.seed
        order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
        answers: dict[int, Completion] = {}
        for first in range(0, len(order), ROWS):
            group = order[first : first + ROWS]
            seeds = [derive_seed(base, index) for index in group]
            with self._lock:
                continues = [_continues(prompts[index]) for index in group]
                *_, rows = self._steps([encoded[index] for index in group], continues, params, seeds)
            for index, row in zip(group, rows, strict=True):
                text = "".join(row.pieces)
                answers[index] = Completion(
                    text, row.reason or "length", row.usage(), tuple(row.ids), tuple(row.logprobs)
                )
        return [answers[index] for index in range(len(encoded))]

    def score(self, texts: Sequence[str]) -> list[TextScore]:
        """See `LanguageModel.score`; the first token is predicted from what stands before a text (see `_before`)."""
        ids = [self.tokenizer.encode(text) for text in texts]
        with self._lock:
            found = token_logprobs(self.decoder, ids, self._before[-1])
        return [
            TextScore(tuple(tokens), tuple(values.tolist()), len(text.encode("utf-8", "surrogatepass")))
            for text, tokens, values in zip(texts, ids, found, strict=True)
        ]

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, the template's own included."""
        return len(self.encode(prompt))

    # ---- inside

    def encode(self, prompt: Prompt) -> list[int]:
        """Plain text follows the tokenizer's prefix; messages go through the template.

        Raises:
            OwnLMError: an id outside the vocabulary, or messages that the chat template refuses.
        """
        if isinstance(prompt, str):
            return [*self.tokenizer.prefix, *self.tokenizer.encode(prompt)] or [*self._before]
        if prompt and isinstance(prompt[0], Message):
            messages = [message for message in prompt if isinstance(message, Message)]
            return self.chat.prompt_ids(self.tokenizer, messages)
        ids = [int(token) for token in prompt if not isinstance(token, Message)]
        wrong = [token for token in ids if not 0 <= token < self.tokenizer.vocab_size]
        if wrong:
            raise OwnLMError(
                f"The prompt has the token id {wrong[0]}; ids go from 0 to {self.tokenizer.vocab_size - 1}."
            )
        return ids or [*self._before]

    @property
    def _before(self) -> tuple[int, ...]:
        """What a text follows: the prefix, or where a tokenizer has none, the token that separates documents."""
        return self.tokenizer.prefix or (self.tokenizer.end_of_text,)

    def _fitting(self, prompt: Prompt) -> list[int]:
        ids = self.encode(prompt)
        if len(ids) >= self.decoder.config.context:
            raise ContextOverflow(len(ids), self.decoder.config.context)
        return ids

    def _stream(self, ids: list[int], continues: bool, params: SamplingParams) -> Iterator[Event]:
        seed = secrets.randbits(63) if params.seed is None else params.seed
        given, reported = 0, 0
        with self._lock:
            for (row,) in self._steps([ids], [continues], params, [derive_seed(seed, 0)]):
                text = "".join(row.pieces[given:])
                given = len(row.pieces)
                logprobs = tuple(row.logprobs[reported:])
                reported = len(row.logprobs)
                # Without an event nobody could close this iterator, so a token that brings no text yet is one too.
                if text or logprobs or row.reason is None:
                    yield TextDelta(text, logprobs)
        yield Finished(row.reason or "length", row.usage())

    def _steps(
        self, prompts: list[list[int]], continues: list[bool], params: SamplingParams, seeds: list[int]
    ) -> Iterator[list[_Row]]:
        """Prefills all prompts, then draws a token a row and step; yields the rows after each step."""
        assemblers = [TextAssembler(self.tokenizer.decoder(each), params.stop) for each in continues]
        rows = [_Row(len(prompt), assembler) for prompt, assembler in zip(prompts, assemblers, strict=True)]
        budget = [min(params.max_tokens, self.decoder.config.context - len(prompt)) for prompt in prompts]
        longest = max(len(prompt) for prompt in prompts)
        ids, positions, mask = _left_padded(prompts, longest + max(budget))
        cache = StaticCache(
            self.decoder.config, len(prompts), longest + max(budget), self.decoder.compute_dtype, torch.device("cpu")
        )
        padded = any(len(prompt) != longest for prompt in prompts)
        counts = _Counts(prompts, self.tokenizer.vocab_size, params)
        alive = torch.arange(len(prompts))
        rope = self.decoder.config.rope
        changes_at = None if rope is None else rope.changes_at
        hidden = self._prefill(ids, positions, mask, padded, cache)
        for step in range(max(budget)):
            logits = self._logits(hidden)
            drawn = draw(logits, params, [seeds[row] for row in alive], step, *counts.of(alive))
            counts.add(alive, drawn.ids)
            for place, row_index in enumerate(alive.tolist()):
                if rows[row_index].reason is None:
                    self._take(rows[row_index], drawn, place, step + 1 >= budget[row_index])
            yield rows
            keep = torch.tensor(
                [p for p, row in enumerate(alive.tolist()) if rows[row].reason is None], dtype=torch.long
            )
            if len(keep) == 0:
                return
            # Moving the cache costs more than a few rows that nobody reads: wait until a quarter is done.
            if len(keep) <= 0.75 * len(alive):
                alive, drawn, ids = alive[keep], Drawn(drawn.ids[keep]), ids[keep]
                cache.keep(keep)
            ids = torch.cat((ids, drawn.ids[:, None]), dim=1)
            keys = longest + step + 1
            visible = mask[alive][:, None, None, :keys] if padded else None
            place_of = torch.tensor([[len(prompts[row]) + step] for row in alive.tolist()])
            if changes_at is not None and bool((place_of == changes_at).any()):
                # From this length on all positions turn otherwise: what is in the cache is of no use.
                cache.clear()
                all_places = (torch.arange(keys) - (longest - (place_of - step))).clamp(min=0)
                hidden = self._prefill(ids, all_places, mask[alive], padded, cache)
                continue
            hidden = self._decode(drawn.ids[:, None], place_of, visible, cache)

    @torch.inference_mode()
    def _prefill(self, ids: Tensor, positions: Tensor, mask: Tensor, padded: bool, cache: StaticCache) -> Tensor:
        time = ids.shape[1]
        causal = torch.ones(time, time, dtype=torch.bool).tril()
        # A padding token sees itself, so that no row of the softmax is empty; nobody sees it.
        visible = (mask[:, None, None, :time] & causal) | torch.eye(time, dtype=torch.bool) if padded else None
        return self.decoder.hidden(ids, positions=positions, cache=cache, mask=visible)[:, -1]

    @torch.inference_mode()
    def _decode(self, ids: Tensor, positions: Tensor, mask: Tensor | None, cache: StaticCache) -> Tensor:
        return self.decoder.hidden(ids, positions=positions, cache=cache, mask=mask)[:, -1]

    @torch.inference_mode()
    def _logits(self, hidden: Tensor) -> Tensor:
        # An embedding may be padded beyond the tokenizer's vocabulary: those rows are no tokens.
        return self.decoder.logits(hidden)[:, : self.tokenizer.vocab_size]

    def _take(self, row: _Row, drawn: Drawn, place: int, last: bool) -> None:
        token = int(drawn.ids[place])
        if token in self.tokenizer.stops:
            row.reason = "stop"
            row.pieces.append(row.assembler.finish())
            return
        row.ids.append(token)
        if drawn.logprobs is not None and drawn.top_ids is not None and drawn.top_logprobs is not None:
            pairs = zip(drawn.top_ids[place].tolist(), drawn.top_logprobs[place].tolist(), strict=True)
            top = tuple((*self._named(i), value) for i, value in pairs)
            row.logprobs.append(TokenLogprob(*self._named(token), float(drawn.logprobs[place]), top))
        row.pieces.append(row.assembler.add(token))
        if row.assembler.stopped:
            row.reason = "stop"
        elif last:
            row.pieces.append(row.assembler.finish())
            row.reason = "stop" if row.assembler.stopped else "length"

    def _named(self, token: int) -> tuple[str, bytes]:
        """A token's text, its space included, and its bytes."""
        data = self.tokenizer.token_bytes(token)
        return data.decode("utf-8", "replace"), data


class _Counts:
    """How often each token stood in each prompt and answer; empty tensors where no penalty needs them."""

    def __init__(self, prompts: list[list[int]], vocabulary: int, params: SamplingParams) -> None:
        used = params.repetition_penalty != 1 or params.presence_penalty or params.frequency_penalty
        shape = (len(prompts), vocabulary if used else 0)
        self._used = bool(used)
        self._prompts, self._answers = torch.zeros(shape), torch.zeros(shape)
        if used:
            for row, prompt in enumerate(prompts):
                self._prompts[row] += torch.bincount(torch.tensor(prompt), minlength=vocabulary)

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self._prompts[rows], self._answers[rows]

    def add(self, rows: Tensor, ids: Tensor) -> None:
        if self._used:
            self._answers[rows, ids] += 1


def _continues(prompt: Prompt) -> bool:
    """Whether the answer goes on from a text, so that a space before its first word belongs to it."""
    return isinstance(prompt, str) and prompt != ""


def _left_padded(prompts: list[list[int]], capacity: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids and positions `(rows, longest)`, and which of the cache's `capacity` places are real `(rows, capacity)`."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    positions = torch.zeros_like(ids)
    mask = torch.ones(len(prompts), capacity, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        pad = longest - len(prompt)
        ids[row, pad:] = torch.tensor(prompt)
        positions[row, pad:] = torch.arange(len(prompt))
        mask[row, :pad] = False
    return ids, positions, mask
