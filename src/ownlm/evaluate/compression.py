"""The yardstick that everybody has at home: `xz -9`, cold and primed with the training text.

A compressor is a language model (Shannon, 1948): bits per byte is what both pay for a text. Primed, `xz` may point
back into the whole training text, as a model may remember it.
"""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ownlm.data.document import Document

PRESET = 9
LARGEST_DICTIONARY = 1_536 << 20  # bytes; the format's limit


@dataclass(frozen=True)
class XzSizes:
    """Compressed sizes in bytes, and what they mean for the held-out text."""

    heldout: int
    cold: int
    train: int | None = None
    together: int | None = None

    @property
    def cold_bits_per_byte(self) -> float:
        """`xz -9` on the held-out documents joined, nothing else."""
        return 8 * self.cold / max(1, self.heldout)

    @property
    def primed_bits_per_byte(self) -> float | None:
        """(xz(train + held-out) - xz(train)) in bits over the held-out bytes."""
        if self.train is None or self.together is None:
            return None
        return 8 * (self.together - self.train) / max(1, self.heldout)


def join(documents: Sequence[Document]) -> bytes:
    """The documents' UTF-8 text, one after the other, as the compressor reads them."""
    return b"".join(document.text.encode("utf-8") for document in documents)


def xz_size(data: bytes, dictionary: int | None = None) -> int:
    """Bytes that `xz -9` makes of `data`; with `dictionary`, looking back that many bytes instead of 64 MiB."""
    if dictionary is None:
        return len(lzma.compress(data, preset=PRESET))
    size = min(max(dictionary, 4096), LARGEST_DICTIONARY)
    return len(lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "preset": PRESET, "dict_size": size}]))


def measure(train: bytes, heldout: bytes) -> XzSizes:
    """Cold and primed sizes. About 1.4 s a megabyte of training text on one core, and 11 bytes of memory a byte.

    Both primed sizes use one dictionary that holds the whole training text.
    """
    dictionary = len(train) + len(heldout)
    return XzSizes(
        heldout=len(heldout),
        cold=xz_size(heldout),
        train=xz_size(train, dictionary),
        together=xz_size(train + heldout, dictionary),
    )


def start_primed(train: bytes, heldout: bytes) -> Future[XzSizes]:
    """`measure` on a thread of its own (liblzma releases the interpreter), so that other stages go on meanwhile."""
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="xz")
    future = pool.submit(measure, train, heldout)
    pool.shutdown(wait=False)
    return future
