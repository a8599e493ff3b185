from pathlib import Path

import pytest

import tiny
from ownlm.evaluate.quantised import compare
from ownlm.model.files import save_model
from ownlm.model.quantised import Scheme, quantise
from ownlm.runtime.errors import OwnLMError

TEXTS = ["The quick brown fox jumps over the lazy dog.", "", "def add(first, second):\n    return first + second\n"]


def test_bits_per_byte_of_each_precision(tmp_path: Path) -> None:
    decoder = tiny.decoder()
    save_model(tmp_path, decoder, tiny.tokenizer())
    plain, int8, int4 = compare(tmp_path, TEXTS, ("int8", "int4:32"))
    assert (plain.scheme, int8.scheme, int4.scheme) == ("as stored", "int8", "int4:32")
    assert plain.worse == 0 and int8.worse == pytest.approx(int8.bits_per_byte / plain.bits_per_byte - 1)
    assert plain.bytes > 3 * int8.bytes > 3 * int4.bytes
    assert 0 < abs(int8.worse) < abs(int4.worse)
    scores = tiny.model().score([text for text in TEXTS if text])
    bits = -sum(sum(score.token_logprobs) for score in scores) / 0.6931472 / sum(score.bytes for score in scores)
    assert plain.bits_per_byte == pytest.approx(bits, rel=1e-5)


def test_what_cannot_be_compared_is_an_error(tmp_path: Path) -> None:
    decoder = tiny.decoder()
    save_model(tmp_path, decoder, tiny.tokenizer())
    with pytest.raises(OwnLMError, match="held-out text"):
        compare(tmp_path, ["", ""])
    with pytest.raises(OwnLMError, match="int8, int4"):
        compare(tmp_path, TEXTS, ("int5",))
    quantise(decoder, Scheme.parse("int8"))
    save_model(tmp_path, decoder, tiny.tokenizer())
    with pytest.raises(OwnLMError, match="quantised"):
        compare(tmp_path, TEXTS)
