"""Building a corpus: sources are sampled, read, decoded, normalised, freed of duplicates and split."""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ownlm.data.document import Document, Skipped, Split
from ownlm.data.files import FileEntry, decode
from ownlm.data.message import TextPart
from ownlm.data.normalise import normalise, unworthy
from ownlm.data.rules import Rule, first_fault, load_rules
from ownlm.data.sources import Source
from ownlm.data.split import split
from ownlm.runtime.errors import CorpusError

DOCUMENTS = "documents.parquet"
SKIPPED = "skipped.jsonl"
CODE_VERSION = 1
"""Goes into the artifact's id: raised whenever the same files would give another corpus."""

Progress = Callable[[int, int], None]
"""(bytes read so far, bytes to read at most)"""


@dataclass(frozen=True)
class CorpusSettings:
    """All that decides a corpus besides its sources.

    Attributes:
        max_bytes: the budget in bytes of normalised text; None takes everything.
        heldout_share: the share of the bytes that is held out.
        minimum_bytes: shorter documents are left out.
        seed: decides which files are sampled and which groups are held out.
        rules: entry points of `ownlm.rules` that every document must pass.
    """

    max_bytes: int | None = None
    heldout_share: float = 0.05
    minimum_bytes: int = 32
    seed: int = 0
    rules: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For the artifact's settings."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Survey:
    """What there is to read, found without reading it: `by_source` maps a label to (files, bytes)."""

    files: int
    bytes: int
    by_source: dict[str, tuple[int, int]]
    fingerprint: str


def survey(sources: Iterable[Source], settings: CorpusSettings) -> Survey:
    """Counts the files, and hashes their names, sizes and times with the settings."""
    digest = hashlib.sha256(json.dumps(settings.to_json(), sort_keys=True).encode())
    by_source: dict[str, tuple[int, int]] = {}
    for source in sources:
        files = size = 0
        digest.update(f"\x1e{source.label}\x1f{source.licence}\x1f{source.first}".encode())
        for entry in source.files():
            if isinstance(entry, FileEntry):
                files, size = files + 1, size + entry.size
                digest.update(f"\x1f{entry.name}:{entry.size}:{entry.modified_ns}".encode("utf-8", "surrogateescape"))
        had = by_source.get(source.label, (0, 0))
        by_source[source.label] = (had[0] + files, had[1] + size)
    totals = [sum(column) for column in zip(*by_source.values(), strict=True)] or [0, 0]
    return Survey(totals[0], totals[1], by_source, digest.hexdigest()[:16])


def fingerprint(sources: Iterable[Source], settings: CorpusSettings) -> str:
    """16 hexadecimal digits that change when a file is added, removed or written to, or a setting changes."""
    return survey(sources, settings).fingerprint


def build_corpus(
    sources: Sequence[Source], settings: CorpusSettings, folder: Path, on_progress: Progress | None = None
) -> dict[str, Any]:
    """Writes `documents.parquet` and `skipped.jsonl` into `folder` and returns the metrics.

    Raises:
        CorpusError: nothing readable was found, or too little to hold anything out; it names the folders and reasons.
    """
    collection = collect(sources, settings, on_progress)
    documents = collection.documents
    if len(documents) < 2:
        raise CorpusError(_nothing(sources, collection))
    chosen = split(documents, settings.heldout_share, settings.seed)
    if not chosen.heldout:
        where = ", ".join(str(source.root) for source in sources)
        raise CorpusError(
            f"The {len(documents)} documents in {where} repeat each other so much that none can be held out to measure "
            "what was learned. Add other documents."
        )
    shared = "shares passages with the training part, so it cannot be held out"
    kept = []
    for index, document in enumerate(documents):
        if index in chosen.dropped:
            collection.skipped.append(Skipped(document.source, shared))
        else:
            kept.append(dataclasses.replace(document, split="heldout" if index in chosen.heldout else "train"))
    write_documents(folder / DOCUMENTS, kept)
    with (folder / SKIPPED).open("w", encoding="utf-8") as file:
        for skipped in collection.skipped:
            file.write(json.dumps(dataclasses.asdict(skipped), ensure_ascii=True) + "\n")
    return {
        **_counts(kept),
        "duplicates": collection.duplicates,
        "skipped": len(collection.skipped),
        "skipped_reasons": _reasons(collection.skipped),
        "undecodable": collection.undecodable,
        "over_budget_files": collection.unread,
        "components": chosen.components,
        "heldout_components": chosen.heldout_components,
        "heldout_unit": chosen.unit,
        "heldout_dropped": len(chosen.dropped),
    }


@dataclass
class Collection:
    """The documents that were read, and what became of the rest."""

    documents: list[Document] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    duplicates: int = 0
    undecodable: int = 0
    unread: int = 0
    bytes: int = 0


def collect(sources: Sequence[Source], settings: CorpusSettings, on_progress: Progress | None = None) -> Collection:
    """Reads files until the budget is spent: sources marked `first` whole, then an equal share of every other one.

    Which files of a source are read is decided by a seeded hash of their names.
    """
    collection = Collection()
    entries = [_listing(source, settings.seed, collection.skipped) for source in sources]
    available = sum(entry.size for each in entries for entry in each)
    budget = available if settings.max_bytes is None else settings.max_bytes
    seen: set[str] = set()
    rules = load_rules(settings.rules)
    for source, entry, place in _in_turn(sources, entries, collection, budget):
        before = collection.bytes
        _read(source, entry, settings, rules, seen, collection)
        place.taken += collection.bytes - before
        if on_progress is not None:
            on_progress(collection.bytes, min(budget, available))
    collection.unread = sum(len(each) for each in entries)
    collection.documents.sort(key=lambda document: document.source)
    return collection


@dataclass
class _Place:
    """How many bytes a source has given so far."""

    taken: int = 0


def _in_turn(
    sources: Sequence[Source], entries: list[list[FileEntry]], collection: Collection, budget: int
) -> Iterator[tuple[Source, FileEntry, _Place]]:
    """The next file of the source that has given least, as long as there is room; `first` ones come first."""
    for wanted in (True, False):
        heap = [(0, number) for number, source in enumerate(sources) if source.first is wanted and entries[number]]
        places = defaultdict[int, _Place](_Place)
        while heap and collection.bytes < budget:
            _, number = heapq.heappop(heap)
            entry = entries[number].pop()
            yield sources[number], entry, places[number]
            if entries[number]:
                heapq.heappush(heap, (places[number].taken, number))


def _listing(source: Source, seed: int, skipped: list[Skipped]) -> list[FileEntry]:
    found = []
    for entry in source.files():
        if isinstance(entry, Skipped):
            skipped.append(entry)
        else:
            found.append(entry)
    key = str(seed).encode()[:64]
    found.sort(key=lambda e: hashlib.blake2b(e.name.encode("utf-8", "surrogateescape"), key=key).digest())
    return found


def _read(
    source: Source,
    entry: FileEntry,
    settings: CorpusSettings,
    rules: Sequence[Rule],
    seen: set[str],
    collection: Collection,
) -> None:
    where = f"{source.label}:{entry.name}".encode("utf-8", "replace").decode()
    try:
        content = entry.path.read_bytes()
    except OSError as error:
        collection.skipped.append(Skipped(where, f"cannot be read ({error.strerror})"))
        return
    text, reason = decode(content)
    if text is None:
        collection.undecodable += reason != "binary"
        collection.skipped.append(Skipped(where, reason))
        return
    for piece in source.pieces(entry.name, text):
        name = f"{source.label}:{piece.name}".encode("utf-8", "replace").decode()
        tidy = normalise(piece.text)
        fault = unworthy(tidy, settings.minimum_bytes, source.limits.line(piece.kind))
        if fault is not None:
            collection.skipped.append(Skipped(name, fault))
            continue
        group = f"{source.label}:{piece.group}"
        document = Document(name, group, source.licence, piece.kind, piece.format, (TextPart(tidy),))
        if document.sha256 in seen:
            collection.duplicates += 1
            collection.skipped.append(Skipped(name, "the same as another document"))
            continue
        if (fault := first_fault(document, rules)) is not None:
            collection.skipped.append(Skipped(name, fault))
            continue
        seen.add(document.sha256)
        collection.documents.append(document)
        collection.bytes += document.bytes


def _counts(documents: Sequence[Document]) -> dict[str, Any]:
    heldout = [document for document in documents if document.split == "heldout"]
    train_bytes = sum(document.bytes for document in documents if document.split == "train")
    licences: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    heldout_kinds: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    for document in documents:
        licences[document.licence] += document.bytes
        kinds[document.kind] += document.bytes
        sources[document.source.partition(":")[0]] += document.bytes
    for document in heldout:
        heldout_kinds[document.kind] += document.bytes
    return {
        "documents": len(documents),
        "bytes": sum(document.bytes for document in documents),
        "train_documents": len(documents) - len(heldout),
        "train_bytes": train_bytes,
        "heldout_documents": len(heldout),
        "heldout_bytes": sum(document.bytes for document in heldout),
        "groups": len({document.group for document in documents}),
        "heldout_groups": len({document.group for document in heldout}),
        "licences": dict(licences.most_common()),
        "kinds": dict(kinds.most_common()),
        "heldout_kinds": dict(heldout_kinds.most_common()),
        "sources": dict(sources.most_common()),
    }


def _reasons(skipped: Iterable[Skipped]) -> dict[str, int]:
    """Reason without its details -> how many, the most frequent first."""
    return dict(Counter(each.reason.partition(" (")[0] for each in skipped).most_common(12))


def _nothing(sources: Sequence[Source], collection: Collection) -> str:
    where = ", ".join(str(source.root) for source in sources) or "no folder"
    found = "one readable document" if collection.documents else "nothing readable"
    reasons = list(_reasons(collection.skipped).items())[:4]
    why = "; ".join(f"{reason}: {count}" for reason, count in reasons)
    left = f" What was left out: {why}." if why else " It is empty."
    if collection.documents and not why:
        left = ""
    return f"There is {found} in {where}, and at least two documents are needed.{left} Name a folder with text or code."


def write_documents(path: Path, documents: Sequence[Document]) -> None:
    """Writes `documents.parquet`: a row a document, compressed with zstd."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = pa.struct([("type", pa.string()), ("text", pa.large_string())])
    text = ("sha256", "source", "group", "licence", "kind", "format", "split")
    schema = pa.schema([*((name, pa.string()) for name in text), ("bytes", pa.int64()), ("content", pa.list_(part))])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(documents), 2_000):
            rows = [document.to_row() for document in documents[start : start + 2_000]]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def read_documents(folder: Path, split: Split | None = None) -> list[Document]:
    """The documents of a corpus artifact's folder, in the order of their names; of one split, if it is given.

    Raises:
        CorpusError: the file is missing or is not a corpus.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / DOCUMENTS if folder.is_dir() else folder
    try:
        filters = None if split is None else [("split", "==", split)]
        table = pq.read_table(path, filters=filters)
        return [Document.from_row(row) for row in table.to_pylist()]
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise CorpusError(f"{path} cannot be read as a corpus ({reason}). Build it again.") from error
