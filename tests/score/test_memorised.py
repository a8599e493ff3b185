import time

import numpy as np
import pytest

from ownlm.score.memorised import TrainingSpans, span_hashes


@pytest.fixture(params=[False, True], ids=["hashes", "exact"])
def spans(request: pytest.FixtureRequest) -> TrainingSpans:
    tokens = np.random.default_rng(0).integers(0, 4096, 10_000, dtype=np.uint16)
    return TrainingSpans.build(tokens, exact=request.param)


def stream() -> list[int]:
    return [int(token) for token in np.random.default_rng(0).integers(0, 4096, 10_000, dtype=np.uint16)]


def test_a_copy_anywhere_is_found(spans: TrainingSpans) -> None:
    tokens = stream()
    for start in (0, 1234, len(tokens) - 50):
        assert spans.copied([7, 7, *tokens[start : start + 50], 9])


def test_one_token_less_or_one_changed_is_no_copy(spans: TrainingSpans) -> None:
    tokens = stream()[100:150]
    assert not spans.copied(tokens[:49])
    assert not spans.copied([1, 2, *tokens[:49], 5000])
    tokens[25] += 1
    assert not spans.copied(tokens)


def test_longest_counts_tokens(spans: TrainingSpans) -> None:
    tokens = stream()
    assert spans.longest([1, *tokens[300:380], 2, *tokens[10:60]]) == 80
    assert spans.longest(tokens[:49]) == 0
    assert spans.longest([]) == 0


def test_hashes_do_not_depend_on_the_place() -> None:
    tokens = np.array([3, 1, 4, 1, 5, 3, 1, 4, 1, 5], dtype=np.uint32)
    hashes = span_hashes(tokens, 5)
    assert hashes[0] == hashes[5] and len(set(hashes.tolist())) == 5


def test_exact_rejects_a_collision() -> None:
    built = TrainingSpans.build(np.arange(100, dtype=np.uint16), span=5, exact=True)
    asked = np.arange(1000, 1005)
    forged = built.hashes.copy()
    forged[:] = span_hashes(asked.astype(np.uint64), 5)[0]
    assert TrainingSpans(forged, 5).copied(asked.tolist())
    assert not TrainingSpans(forged, 5, built.tokens, built.starts).copied(asked.tolist())


def test_short_training_text() -> None:
    assert not TrainingSpans.build(np.arange(10, dtype=np.uint16)).copied(list(range(60)))


def test_six_million_tokens_take_little_time() -> None:
    tokens = np.random.default_rng(0).integers(0, 4096, 6_000_000, dtype=np.uint16)
    started = time.perf_counter()
    TrainingSpans.build(tokens)
    assert time.perf_counter() - started < 6  # about one second on a quiet core
