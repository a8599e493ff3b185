"""Getting to know a corpus before training on it: how many bytes a token holds, and how hard the text is to predict."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ownlm.data.corpus import read_documents
from ownlm.data.document import Document
from ownlm.data.tokenizer import Tokenizer
from ownlm.evaluate.compression import xz_size
from ownlm.evaluate.ngram import NgramModel

SAMPLE = 2_000_000
"""Bytes of training text that the n-gram model counts."""
ASKED = 200_000
"""Bytes that it predicts, and that the compressor packs."""
VOCABULARIES = (1024, 2048, 4096, 8192)
"""Those whose bytes a token are measured; larger ones follow the trend."""
COUNTED = 4096
"""The vocabulary whose tokens the n-gram model counts."""
FEWEST = 100
"""Tokens to predict, below which nothing is said of a text."""
FADING = 0.75
"""With every doubling of the vocabulary the gain in bytes a token shrinks by so much (1,024 to 8,192 on both texts)."""
REPEATING = 0.5
"""How much of a text's level is what a compressor pays, which sees repetition near by, and not what an n-gram does."""
LEAST = -20.0
"""The lowest log-probability that a token can cost."""
SLOPE = 0.095
"""An n-gram model's bits a byte fall with this power of the text that it counts (Python packages, WikiText-2)."""
PYTHON_LEVEL = 1.98
"""The level of the Python packages that the built-in law was fitted to."""
PROSE_LEVEL = 2.16
"""That of WikiText-2."""


@dataclass(frozen=True)
class Text:
    """`bytes_per_token` by vocabulary, and the `level`: what simple models pay for it, in bits a byte.

    A text whose level is a tenth higher than another's is expected to cost a model a tenth more as well. None: it was
    not measured. `prose`: more than half of the text is.
    """

    bytes_per_token: dict[int, float] = field(default_factory=lambda: {1024: 2.75, 2048: 3.1, 4096: 3.5, 8192: 3.9})
    level: float | None = None
    prose: bool = False

    @property
    def factor(self) -> float:
        """The level as a multiple of that of Python packages, for prose of that of WikiText-2."""
        return 1.0 if self.level is None else self.level / (PROSE_LEVEL if self.prose else PYTHON_LEVEL)

    def bytes_of(self, vocabulary: int) -> float:
        """Bytes a token, straight over the vocabulary's logarithm between those that were measured.

        Beyond them each doubling adds `FADING` of what the one before it added.
        """
        known = sorted(self.bytes_per_token.items())
        if len(known) == 1:
            return known[0][1]
        pairs = list(itertools.pairwise(known))
        (low, first), (high, second) = next((pair for pair in pairs if vocabulary <= pair[1][0]), pairs[-1])
        doublings = math.log2(vocabulary / low)
        if vocabulary <= high:
            return max(1.0, first + doublings / math.log2(high / low) * (second - first))
        gain, more = (second - first) / math.log2(high / low), math.log2(vocabulary / high)
        return second + gain * FADING * (1 - math.pow(FADING, more)) / (1 - FADING)


def measure_text(folder: Path) -> Text:
    """About two seconds on a corpus artifact's folder. Deterministic.

    The level is the geometric mean, weighted by `REPEATING`, of what a 5-gram model of `SAMPLE` bytes pays for held-out
    text and of what `xz -9` pays for text of the same kind.
    """
    train, heldout = (read_documents(folder, split) for split in ("train", "heldout"))
    learn, ask = _sample(train, SAMPLE), _sample(heldout or train, ASKED)
    packed = _sample(train, ASKED)
    asked = sum(len(text.encode()) for text in ask)
    sizes, level = {}, None
    for size in VOCABULARIES:
        tokenizer = Tokenizer.train(learn, size)  # a small corpus gives a smaller vocabulary than was asked for
        tokens = sum(map(len, tokenizer.encode_batch(ask)))
        sizes[tokenizer.vocab_size] = round(asked / max(1, tokens), 3)
        if size == COUNTED and tokens >= FEWEST:
            ngram = _ngram_level(tokenizer, learn, ask)
            data = b"".join(text.encode() for text in packed)
            xz = 8 * xz_size(data) / len(data)
            level = round(math.exp((1 - REPEATING) * math.log(ngram) + REPEATING * math.log(xz)), 4)
    prose = sum(document.bytes for document in train if document.kind == "prose")
    return Text(sizes, level, 2 * prose > sum(document.bytes for document in train))


def _sample(documents: Sequence[Document], size: int) -> list[str]:
    """Texts of about `size` bytes, whole ones but for the last, in an order that depends on nothing but the texts."""
    taken: list[str] = []
    for document in sorted(documents, key=lambda each: each.sha256):
        if size <= 0:
            break
        taken.append(document.text if document.bytes <= size else document.text[:size])
        size -= document.bytes
    return taken


def _ngram_level(tokenizer: Tokenizer, learn: Sequence[str], ask: Sequence[str]) -> float:
    """Bits a byte of held-out text under a 5-gram model, as if it had counted `SAMPLE` bytes."""
    ids = [each for text in tokenizer.encode_batch(learn) for each in (tokenizer.end_of_text, *text)]
    counted = sum(len(text.encode()) for text in learn)
    model = NgramModel.train(np.asarray(ids), tokenizer.vocab_size, start=tokenizer.end_of_text)
    with np.errstate(divide="ignore"):  # text without rare tokens leaves no chance to tokens that were never seen
        found = [model.log_probs(each) for each in tokenizer.encode_batch(ask) if each]
    nats = -sum(float(np.maximum(each, LEAST).sum()) for each in found)
    asked = sum(len(text.encode()) for text in ask)
    return nats / math.log(2) / max(1, asked) * math.pow(counted / SAMPLE, SLOPE)
