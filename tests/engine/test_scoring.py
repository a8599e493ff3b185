import math

import numpy as np
import pytest
import torch

import tiny
from ownlm.engine.scoring import _windows, token_logprobs
from ownlm.model.decoder import Decoder

CONTEXT = 64


def plain(decoder: Decoder, text: list[int], start: int) -> list[float]:
    """One position after the other: each token given what its window holds before it."""
    sequence, values = [start, *text], []
    with torch.no_grad():
        for place in range(len(text)):
            begin = 0
            # Windows of a whole context, each one half a context after the one before.
            while place >= begin + CONTEXT:
                begin += CONTEXT // 2
            window = sequence[begin : place + 1]
            values.append(float(decoder(torch.tensor([window]))[0, -1].log_softmax(-1)[text[place]]))
    return values


@pytest.mark.parametrize("attention", ["sdpa", "tiled"])
def test_long_and_short_texts_equal_a_plain_loop(attention: str) -> None:
    from ownlm.model.kernels import Kernels, use

    decoder = use(tiny.decoder(), Kernels(attention=attention))  # type: ignore[arg-type]
    lengths = (0, 1, 5, 63, 64, 65, 96, 97, 200)
    texts = [tiny.random_ids(length, seed=length).tolist() for length in lengths]
    found = token_logprobs(decoder, texts, 7, rows=4)
    for text, values in zip(texts, found, strict=True):
        assert values.shape == (len(text),) and values.dtype == np.float32
        np.testing.assert_allclose(values, plain(decoder, text, 7), rtol=1e-3, atol=1e-3)


def test_each_token_counts_once_with_at_least_half_a_context_before_it() -> None:
    for length in (0, 1, 63, 64, 65, 100, 1000):
        windows = _windows(length, CONTEXT)
        counted = [place for begin, end, first in windows for place in range(first, end)]
        assert counted == list(range(length))
        assert all(end - begin <= CONTEXT for begin, end, _ in windows)
        assert all(first == 0 or first - begin >= CONTEXT // 2 for begin, _, first in windows)
    assert [place for _, end, first in _windows(9, 1) for place in range(first, end)] == list(range(9))


def test_arrays_and_neighbours_change_nothing() -> None:
    decoder, ids = tiny.decoder(), tiny.random_ids(50)
    (alone,) = token_logprobs(decoder, [ids.numpy().astype(np.uint16)], 7)
    among = token_logprobs(decoder, [[3] * 90, ids.tolist(), [4]], 7)[1]
    np.testing.assert_allclose(alone, among, rtol=1e-4, atol=1e-4)


def test_a_score_in_bits_per_byte() -> None:
    model = tiny.model()
    text = "Größe, façade " * 20
    (score, empty) = model.score([text, ""])
    assert list(score.token_ids) == model.tokenizer.encode(text)
    assert score.bytes == len(text.encode())
    assert score.bits_per_byte == pytest.approx(-sum(score.token_logprobs) / math.log(2) / score.bytes)
    assert empty.token_ids == () and empty.bits_per_byte == 0
