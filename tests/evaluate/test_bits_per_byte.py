import math
from collections.abc import Sequence

import numpy as np
import pytest

from ownlm.data.document import Document
from ownlm.data.message import TextPart
from ownlm.engine.request import TextScore
from ownlm.evaluate.bits_per_byte import NgramScorer, bits_per_byte, difference
from ownlm.evaluate.ngram import NgramModel


def document(text: str, kind: str = "code") -> Document:
    return Document(f"t:{len(text)}", "g", "MIT", kind, "txt", (TextPart(text),))


class Uniform:
    """Pays `bits` for every byte of a document."""

    def __init__(self, bits: float) -> None:
        self.bits = bits

    def score(self, texts: Sequence[str]) -> list[TextScore]:
        sizes = [len(text.encode()) for text in texts]
        return [TextScore((0,) * n, (-self.bits * math.log(2),) * n, n) for n in sizes]


class Bytes:
    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[byte + 1 for byte in text.encode()] for text in texts]


DOCUMENTS = [document("déf f(): pass\n" * 5), document("Some prose.", "prose"), document("x = 1"), document("")]


def test_a_uniform_model_over_bytes_pays_eight_bits() -> None:
    found = bits_per_byte(Uniform(8), DOCUMENTS, batch=2)
    assert found.total.value == pytest.approx(8) and found.total.n == 3
    assert set(found.by_kind) == {"code", "prose"} and found.by_kind["prose"].n == 1
    assert found.bytes == sum(each.bytes for each in DOCUMENTS)


def test_the_difference_is_paired() -> None:
    better, worse = bits_per_byte(Uniform(2), DOCUMENTS), bits_per_byte(Uniform(3), DOCUMENTS)
    found = difference(better, worse)
    assert found.value == pytest.approx(-1) and found.excludes(0)
    with pytest.raises(ValueError, match="same documents"):
        difference(better, bits_per_byte(Uniform(3), DOCUMENTS[:1]))


def test_the_ngram_scorer_adds_up_the_models_log_probabilities() -> None:
    stream = np.array([0, *(byte + 1 for byte in b"abcabcabd" * 20)])
    model = NgramModel.train(stream, 257, 3, 0)
    (score,) = NgramScorer(model, Bytes()).score(["abcé"])
    assert score.bytes == 5 and len(score.token_logprobs) == 5
    assert sum(score.token_logprobs) == pytest.approx(model.log_probs(list(score.token_ids)).sum())


def test_no_text_or_no_numbers_is_refused() -> None:
    with pytest.raises(ValueError):
        bits_per_byte(Uniform(1), [])
    with pytest.raises(ValueError, match="finite"):
        bits_per_byte(Uniform(math.inf), DOCUMENTS)
