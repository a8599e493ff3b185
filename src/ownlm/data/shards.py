"""Token shards: the corpus as one stream of ids a split, with a parquet sidecar that says which document lies where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ownlm.data.document import Document, Split
from ownlm.data.fill_in_the_middle import FillInTheMiddle
from ownlm.data.tokenizer_protocol import AnyTokenizer

SPANS = "spans.parquet"
SPLITS: tuple[Split, ...] = ("train", "heldout")
_BATCH = 256
"""Documents encoded together."""


@dataclass(frozen=True)
class TokenStream:
    """One split: `ids` are all documents, each followed by the end-of-text token; `starts` `(documents + 1,)`.

    Where a tokenizer has a beginning-of-text token each document begins with it.
    """

    ids: NDArray[Any]
    starts: NDArray[np.int64]
    sources: list[str]
    kinds: list[str]
    bytes: NDArray[np.int64]
    sha256: list[str] = field(default_factory=list)

    def document(self, index: int) -> NDArray[Any]:
        """The ids of one document, without its end-of-text token."""
        return self.ids[self.starts[index] : self.starts[index + 1] - 1]

    def __len__(self) -> int:
        return len(self.sources)


def token_dtype(vocabulary: int) -> type[np.uint16] | type[np.uint32]:
    """The smallest of the two types that holds every id."""
    return np.uint16 if vocabulary <= 1 << 16 else np.uint32


def opening(tokenizer: AnyTokenizer) -> list[int]:
    """What a document begins with: the tokenizer's prefix, unless that is the token that ended the one before."""
    prefix = list(tokenizer.prefix)
    return [] if prefix == [tokenizer.end_of_text] else prefix


def write_shards(
    documents: Sequence[Document],
    tokenizer: AnyTokenizer,
    folder: Path,
    threads: int = 2,
    fim: FillInTheMiddle | None = None,
) -> dict[str, Any]:
    """Encodes `documents` into `train.bin` and `heldout.bin` (raw ids) and `spans.parquet`; returns counts.

    With `fim` a part of the training documents is rearranged, never a held-out one.
    """
    dtype = token_dtype(tokenizer.vocab_size)
    rows: list[dict[str, Any]] = []
    metrics: dict[str, Any] = {"vocabulary": tokenizer.vocab_size, "dtype": np.dtype(dtype).name}
    before, rearranged = opening(tokenizer), 0
    for split in SPLITS:
        chosen = [document for document in documents if document.split == split]
        place = 0
        with (folder / f"{split}.bin").open("wb") as file:
            for first in range(0, len(chosen), _BATCH):
                batch = chosen[first : first + _BATCH]
                encoded = tokenizer.encode_batch([document.text for document in batch], threads)
                for document, plain in zip(batch, encoded, strict=True):
                    turned = fim.encode(document, tokenizer) if fim is not None and split == "train" else None
                    rearranged += turned is not None
                    ids = [*before, *(plain if turned is None else turned), tokenizer.end_of_text]
                    file.write(np.asarray(ids, dtype=dtype).tobytes())
                    rows.append(
                        {
                            "split": split, "sha256": document.sha256, "source": document.source, "kind": document.kind,
                            "start": place, "end": place + len(ids), "bytes": document.bytes,
                        }
                    )  # fmt: skip
                    place += len(ids)
        size = sum(row["bytes"] for row in rows if row["split"] == split)
        metrics[f"{split}_tokens"], metrics[f"{split}_bytes"] = place, size
    metrics["bytes_per_token"] = round(metrics["train_bytes"] / max(1, metrics["train_tokens"]), 4)
    if fim is not None:
        metrics["rearranged"] = rearranged
    pq.write_table(pa.Table.from_pylist(rows), folder / SPANS)
    return metrics


def read_shards(folder: Path, split: Split, vocabulary: int) -> TokenStream:
    """Memory-maps one split of a tokens artifact."""
    table = pq.read_table(folder / SPANS, filters=[("split", "=", split)])
    path = folder / f"{split}.bin"
    dtype = token_dtype(vocabulary)
    ids = np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype=dtype)
    starts = np.asarray([*table["start"].to_pylist(), len(ids)], dtype=np.int64)
    sizes = np.asarray(table["bytes"].to_pylist(), dtype=np.int64)
    sources, kinds, names = (table[name].to_pylist() for name in ("source", "kind", "sha256"))
    return TokenStream(ids, starts, sources, kinds, sizes, names)
