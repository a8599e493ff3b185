"""What a teacher would say next: draws from its distribution for every token of a stream, small enough to keep."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ownlm.data.shards import TokenStream, token_dtype
from ownlm.data.tokenizer_protocol import AnyTokenizer
from ownlm.model.decoder import Decoder
from ownlm.runtime import atomic
from ownlm.runtime.counter_random import uniform
from ownlm.runtime.seeds import derive_seed

DRAWS = "draws.bin"
"""`(tokens, count)` ids, in the type of the stream's own."""
WINDOW = 1024
"""The most that a teacher reads at once."""
ROWS = 8
_LOGITS = 1 << 23
"""Numbers of a block of logits."""
_GROUP = 64
"""Documents whose windows are sorted by length together."""


@dataclass(frozen=True)
class Teacher:
    """A decoder, its tokenizer's ids up to `vocabulary`, and the id that stands before a document."""

    decoder: Decoder
    vocabulary: int
    start: int

    @classmethod
    def of(cls, decoder: Decoder, tokenizer: AnyTokenizer) -> Teacher:
        """The teacher that this model is."""
        return cls(decoder, tokenizer.vocab_size, (tokenizer.prefix or (tokenizer.end_of_text,))[-1])


def write_draws(
    teacher: Teacher,
    stream: TokenStream,
    given: int,
    folder: Path,
    state: Path,
    count: int,
    seed: int,
    on_progress: Callable[[int], None],
) -> int:
    """Fills `folder/draws.bin`; returns its bytes. What `state` says is done is not done again.

    A document's first `given` tokens (its beginning-of-text token, say) are certain: the draws are those tokens.
    `on_progress` gets the number of tokens done; raising in it ends the work, which can be resumed.
    """
    dtype = token_dtype(teacher.vocabulary)
    path, done_path = folder / DRAWS, state / "drawn.json"
    first = json.loads(done_path.read_text("utf-8")) if done_path.exists() and path.exists() else 0
    shape = (len(stream.ids), count)
    with atomic.disk_errors(folder):
        if not path.exists() or path.stat().st_size != np.dtype(dtype).itemsize * shape[0] * shape[1]:
            first = 0
            with path.open("wb") as file:
                _reserve(file, np.dtype(dtype).itemsize * shape[0] * shape[1])
        draws = np.memmap(path, dtype=dtype, mode="r+", shape=shape)
        for group in range(first, len(stream), _GROUP):
            last = min(group + _GROUP, len(stream))
            for begin, found in draw_documents(teacher, stream, given, range(group, last), count, seed):
                draws[begin : begin + len(found)] = found
            draws.flush()
            atomic.write_json(done_path, last)
            on_progress(int(stream.starts[last]))
    return int(path.stat().st_size)


def read_draws(folder: Path, tokens: int, vocabulary: int) -> NDArray[Any]:
    """Memory-maps the draws `(tokens, count)` of a stream of so many tokens."""
    return np.memmap(folder / DRAWS, dtype=token_dtype(vocabulary), mode="r").reshape(tokens, -1)


def draw_documents(
    teacher: Teacher, stream: TokenStream, given: int, documents: range, count: int, seed: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """For pieces of these documents: the place in the stream, and the draws for the tokens from there on.

    A document is read from its beginning, in windows that overlap by half where it is longer than the teacher reads.
    A later piece replaces what an earlier one had for the same place.
    """
    length = min(WINDOW, teacher.decoder.config.context)
    pieces: list[tuple[int, int, int, NDArray[np.int64]]] = []
    for index in documents:
        begin, end = int(stream.starts[index]), int(stream.starts[index + 1])
        ids = np.asarray(stream.ids[begin:end], dtype=np.int64)
        # What is read for the token at each place: those before it, or what stands before a document.
        read = ids[:-1] if given else np.concatenate(([teacher.start], ids[:-1]))
        first = begin + 1 if given else begin
        pieces += [(first, low, high, read[low:high]) for low, high in _windows(len(read), length)]
    pieces.sort(key=lambda piece: len(piece[3]))
    for at in range(0, len(pieces), ROWS):
        group = pieces[at : at + ROWS]
        padded = np.zeros((len(group), len(group[-1][3])), dtype=np.int64)
        for row, (*_, read) in enumerate(group):
            padded[row, : len(read)] = read
        hidden = _hidden(teacher.decoder, torch.from_numpy(padded))
        for row, (first, low, high, _) in enumerate(group):
            skipped = 0 if low == 0 else length // 2
            if first + low + skipped < first + high:
                places = np.arange(first + low + skipped, first + high)
                yield int(places[0]), _drawn(teacher, hidden[row, skipped : high - low], places, count, seed)
    for index in documents if given else ():
        begin = int(stream.starts[index])
        yield begin, np.repeat(np.asarray(stream.ids[begin : begin + given, None], dtype=np.int64), count, axis=1)


def _windows(length: int, window: int) -> list[tuple[int, int]]:
    """Windows over `length` places, each after the first beginning half a window before the end of the last."""
    bounds = [(0, min(window, length))]
    while bounds[-1][1] < length:
        begin = bounds[-1][1] - window // 2
        bounds.append((begin, min(begin + window, length)))
    return bounds


@torch.inference_mode()
def _hidden(decoder: Decoder, ids: Tensor) -> Tensor:
    return decoder.hidden(ids.to(decoder.embed_tokens.weight.device))


@torch.inference_mode()
def _drawn(teacher: Teacher, hidden: Tensor, places: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Draws `(time, count)` after `hidden` `(time, width)`."""
    parts = []
    size = max(1, _LOGITS // teacher.vocabulary)
    for start in range(0, len(places), size):
        logits = teacher.decoder.logits(hidden[start : start + size])[:, : teacher.vocabulary]
        parts.append(draw(logits.softmax(-1), places[start : start + size], count, seed))
    return np.concatenate(parts)


def draw(probabilities: Tensor, places: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """`count` ids for each row of `probabilities` `(rows, vocabulary)`; equal weights give the row back on average.

    Random sampling of targets is an unbiased stand-in for the whole distribution, where its likeliest few are not
    (Anshumann et al. 2025, "Sparse Logit Sampling", arXiv 2503.16870). Systematic sampling, one random number a row and
    evenly spaced quantiles from it, is as unbiased as independent draws and scatters less (Madow and Madow 1944).
    The random number depends on the seed and the row's place in the stream alone.
    """
    offsets = uniform(places.astype(np.uint64), derive_seed(seed, "draws"))
    quantiles = (torch.from_numpy(offsets)[:, None] + torch.arange(count)) / count
    totals = probabilities.double().cumsum(-1)
    quantiles = quantiles.to(totals.device) * totals[:, -1:]
    found = torch.searchsorted(totals, quantiles, right=True).clamp_(max=probabilities.shape[1] - 1)
    return found.cpu().numpy()


def _reserve(file: BinaryIO, size: int) -> None:
    """Takes the disk's space now: a full disk is noticed here, and not by a signal when the file is mapped."""
    if hasattr(os, "posix_fallocate") and size:
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        zeros = bytes(1 << 20)
        for start in range(0, size, len(zeros)):
            file.write(zeros[: size - start])
