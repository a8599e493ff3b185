import random
import shutil
import subprocess
from pathlib import Path

import pytest

from ownlm.evaluate.compression import measure, start_primed, xz_size


def text(seed: int, words: int) -> bytes:
    rng = random.Random(seed)
    return " ".join(f"word{rng.randrange(400)}" for _ in range(words)).encode()


@pytest.mark.skipif(shutil.which("xz") is None, reason="no xz command on this machine")
def test_cold_is_what_the_command_makes(tmp_path: Path) -> None:
    data = text(1, 4_000)
    made = subprocess.run(["xz", "-9", "-T1", "-c"], input=data, capture_output=True, check=True).stdout
    assert abs(len(made) - xz_size(data)) <= 16


def test_priming_with_the_same_words_helps() -> None:
    train = text(1, 6_000)
    heldout = train[5_000:9_000] + text(2, 500)
    sizes = measure(train, heldout)
    assert sizes.primed_bits_per_byte is not None
    assert 0 < sizes.primed_bits_per_byte < sizes.cold_bits_per_byte


def test_the_dictionary_reaches_the_start_of_the_training_text() -> None:
    noise = random.Random(0).randbytes(300_000)
    far = noise + noise[:20_000]
    assert xz_size(far, 4_096) - xz_size(noise, 4_096) > 19_000
    assert xz_size(far, len(far)) - xz_size(noise, len(far)) < 4_000


def test_in_the_background() -> None:
    assert start_primed(b"abc" * 1_000, b"abc" * 100).result(timeout=30) == measure(b"abc" * 1_000, b"abc" * 100)
