"""A tokenizer of bytes, and language models made of an n-gram model."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ownlm.data.message import Message
from ownlm.engine.request import Completion, Event, ModelFacts, SamplingParams, TextScore, TokenLogprob, Usage
from ownlm.evaluate.ngram import NgramModel


class Bytes:
    """Token t is the byte t - 1; token 0 divides documents."""

    vocab_size = 257

    def encode(self, text: str) -> list[int]:
        return [byte + 1 for byte in text.encode()]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode_bytes(self, ids: list[int]) -> bytes:
        return bytes(token - 1 for token in ids)


class FromNgram:
    """A language model made of the n-gram model: greedy, with the alternatives of every token."""

    facts = ModelFacts("fake", "0", 512)

    def __init__(self, model: NgramModel) -> None:
        self.model, self.requests = model, 0

    def generate(
        self, prompts: Sequence[str | Sequence[int] | Sequence[Message]], params: SamplingParams
    ) -> list[Completion]:
        self.requests += len(prompts)
        assert params.temperature == 0 and params.logprobs
        return [self._complete(str(prompt), params) for prompt in prompts]

    def _complete(self, prompt: str, params: SamplingParams) -> Completion:
        ids, made, logprobs = Bytes().encode(prompt), [], []
        for _ in range(params.max_tokens):
            chance = self.model.distribution(ids)
            chance[0] = 0
            best = [int(token) for token in np.argsort(-chance)[: params.logprobs]]
            pieces = [Bytes().decode_bytes([token]) for token in best]
            top = tuple(
                (p.decode("utf-8", "replace"), p, math.log(chance[t])) for p, t in zip(pieces, best, strict=True)
            )
            logprobs.append(TokenLogprob(top[0][0], pieces[0], top[0][2], top))
            made.append(best[0])
            ids.append(best[0])
        text = Bytes().decode_bytes(made).decode("utf-8", "replace")
        return Completion(text, "length", Usage(len(ids), len(made)), tuple(made), tuple(logprobs))

    def stream(self, prompt: object, params: SamplingParams) -> Iterator[Event]:
        raise NotImplementedError

    def score(self, texts: Sequence[str]) -> list[TextScore]:
        """A tenth of a bit a byte worse than the n-gram model."""
        ids = [Bytes().encode(text) for text in texts]
        return [
            TextScore(tuple(each), tuple((self.model.log_probs(each) - 0.1 * math.log(2)).tolist()), len(each))
            for each in ids
        ]

    def count_tokens(self, prompt: object) -> int:
        return len(Bytes().encode(str(prompt)))
