"""Any open-weights model's tokenizer: `tokenizer.json` or SentencePiece's `tokenizer.model`, and what lies beside."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock

from tokenizers import Encoding
from tokenizers import Tokenizer as Backend

from ownlm.data.foreign_tokenizer_config import (
    PICTURES,
    TEXT_ENDS,
    TURN_ENDS,
    TokenizerConfig,
    ending_ids,
    first_of,
    read_config,
    read_files,
)
from ownlm.data.foreign_tokenizer_decoder import PieceDecoder, Utf8Decoder, WholeDecoder, cleaned, read_rules
from ownlm.data.foreign_tokenizer_variants import Specification, guarded, unprefixed
from ownlm.data.sentencepiece_model import convert
from ownlm.data.tokenizer_protocol import Position, Span, TokenDecoder, touches
from ownlm.runtime import atomic
from ownlm.runtime.errors import OwnLMError

_LONE_SURROGATES = re.compile("[\ud800-\udfff]")

Encoded = tuple[list[int], list[Span]]
"""Token ids, and the characters that each stands for."""


class ForeignTokenizer:
    """A tokenizer that others made; its ids and texts are those of `transformers` for the same folder.

    Two things go beyond that: special tokens are never read out of plain text, and a lone surrogate, which no such
    tokenizer knows, is encoded as U+FFFD. In one thing the file is followed and not `transformers` 5, whose class for
    Llama replaces the normalizer that Llama 2's files ask for: here a space is put before a text that begins with one
    too, and behind special tokens, as SentencePiece, llama.cpp and `transformers` 4 do.

    Raises:
        OwnLMError: the folder has no tokenizer, or one that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._files = folder, read_files(folder)
        config = read_config(folder)
        data = self._read(config)
        self._backend = self._make(data, config)
        self._named = {
            key: token for key, token in config.named.items() if self._backend.token_to_id(token) is not None
        }
        self._lock = Lock()
        self._tokens = {identifier: token for token, identifier in self._backend.get_vocab().items()}
        self._vocab_size = self._without_pictures(max(self._tokens) + 1)
        self._special = {
            token.content: identifier
            for identifier, token in sorted(self._backend.get_added_tokens_decoder().items())
            if token.special and identifier < self._vocab_size
        }
        self._special_texts = {identifier: text for text, identifier in self._special.items()}
        model = data["model"]
        self._unknown: int = model.get("unk_id", self._special.get(model.get("unk_token") or "", -1))
        # What the vocabulary lacks becomes the unknown token, so that one may come out of plain text.
        self._forbidden = frozenset(self._special_texts) - {self._unknown}
        self._clean_up = config.clean_up and model["type"] != "BPE"
        self._rules = None if self._clean_up else read_rules(data.get("decoder"))
        self._prefix = self._added_before()
        self._configured = ending_ids(folder)

    # ---- what it is

    @property
    def special(self) -> Mapping[str, int]:
        """See `AnyTokenizer.special`."""
        return self._special

    @property
    def variables(self) -> Mapping[str, str]:
        """See `AnyTokenizer.variables`."""
        return self._named

    @property
    def vocab_size(self) -> int:
        """See `AnyTokenizer.vocab_size`; placeholders for pictures at the end, which text models lack, do not count."""
        return self._vocab_size

    @property
    def prefix(self) -> tuple[int, ...]:
        """See `AnyTokenizer.prefix`."""
        return self._prefix

    @cached_property
    def stops(self) -> frozenset[int]:
        """See `AnyTokenizer.stops`: what the model's configs and its tokenizer name, and its end of a turn."""
        found = {*self._configured, self._named_id("eos_token"), first_of(TURN_ENDS, self._special)}
        return frozenset(each for each in found if each is not None and 0 <= each < self._vocab_size)

    @property
    def begin_of_text(self) -> int | None:
        """See `AnyTokenizer.begin_of_text`."""
        return self._named_id("bos_token")

    @property
    def end_of_text(self) -> int:
        """See `AnyTokenizer.end_of_text`."""
        named = (first_of(TEXT_ENDS, self._special), self._named_id("eos_token"), *self._configured)
        found = next((each for each in named if each is not None), None)
        if found is None:
            raise OwnLMError(f"{self._folder}: the tokenizer has no end-of-text token; name one as eos_token.")
        return found

    @property
    def end_of_turn(self) -> int:
        """See `AnyTokenizer.end_of_turn`."""
        named = (first_of(TURN_ENDS, self._special), self._named_id("eos_token"))
        return next((each for each in named if each is not None), self.end_of_text)

    # ---- text to ids

    def encode(self, text: str) -> list[int]:
        """See `AnyTokenizer.encode`; a lone surrogate is read as U+FFFD."""
        return self._plain(_whole(text), "start")[0]

    def encode_batch(self, texts: Sequence[str], threads: int = 2) -> list[list[int]]:
        """See `AnyTokenizer.encode_batch`; the library chooses the number of threads."""
        whole = [_whole(text) for text in texts]
        with self._lock:
            self._backend.encode_special_tokens = True
            found = [each.ids for each in self._backend.encode_batch_fast(whole, add_special_tokens=False)]
        doubtful = self._forbidden | {self._unknown}
        return [ids if doubtful.isdisjoint(ids) else self.encode(text) for ids, text in zip(found, whole, strict=True)]

    def encode_bytes(self, data: bytes) -> list[int]:
        """See `AnyTokenizer.encode_bytes`; what is no UTF-8 is read as U+FFFD."""
        return self.encode(data.decode("utf-8", "replace"))

    def encode_chat(self, text: str, plain: Sequence[Span] = (), position: Position = "start") -> Encoded:
        """See `AnyTokenizer.encode_chat`."""
        text = _whole(text)
        with self._lock:
            self._backend.encode_special_tokens = False
            found = self._backend.encode(text, add_special_tokens=False)
        if not plain and position == "start":
            return found.ids, found.offsets
        # The library encodes each section between two special tokens by itself: only some must be encoded anew.
        ids: list[int] = []
        spans: list[Span] = []
        section: Encoded = ([], [])
        begin, forged = 0, False
        for identifier, span in [*zip(found.ids, found.offsets, strict=True), (-1, (len(text), len(text)))]:
            place = self._place(text, identifier, span)
            if place and touches(plain, *place):
                forged = True
            elif place or identifier == -1:
                where: Position = "after" if ids else position
                if forged or where == "inside" or (where == "after" and not ids):
                    again = self._plain(text[begin : span[0]], where)
                    section = (again[0], [(start + begin, end + begin) for start, end in again[1]])
                ids += section[0]
                spans += section[1]
                if place:
                    ids.append(identifier)
                    spans.append(span)
                section, begin, forged = ([], []), span[1], False
                continue
            section[0].append(identifier)
            section[1].append(span)
        return ids, spans

    # ---- ids to text

    def decode(self, ids: Iterable[int]) -> str:
        """See `AnyTokenizer.decode`."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=False)
        return cleaned(text) if self._clean_up else text

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """See `AnyTokenizer.decode_bytes`."""
        return b"".join(self.token_bytes(identifier) for identifier in ids)

    def token_bytes(self, identifier: int) -> bytes:
        """See `AnyTokenizer.token_bytes`; an id inside the vocabulary that no token has gives nothing."""
        token = self._tokens.get(identifier)
        if token is None:
            if not 0 <= identifier < self._vocab_size:
                raise KeyError(identifier)
            return b""
        return self._rules.piece(token)[0] if self._rules else self.decode([identifier]).encode()

    def decoder(self, continues: bool = False) -> TokenDecoder:
        """See `AnyTokenizer.decoder`."""
        if self._rules is None:
            return WholeDecoder(self.decode)
        if self._rules.byte_level:
            return Utf8Decoder(self.token_bytes)
        return PieceDecoder(self._rules, self._tokens.get, continues)

    # ---- files

    def save(self, folder: Path, context: int | None = None) -> None:
        """Writes the files as they were read, byte for byte; `context` is left as the model's makers set it."""
        for name, data in self._files.items():
            with atomic.aside(folder / name) as path:
                path.write_bytes(data)

    # ---- reading

    def _read(self, config: TokenizerConfig) -> Specification:
        """The `tokenizer.json`, made from the SentencePiece model where the folder has only that."""
        if "tokenizer.json" in self._files:
            path = self._folder / "tokenizer.json"
            try:
                data = json.loads(self._files["tokenizer.json"])
                return {**data, "model": {"type": _kind(data["model"]), **data["model"]}}
            except (ValueError, KeyError, TypeError) as error:
                raise OwnLMError(f"{path} is no tokenizer of the `tokenizers` library ({error!r}).") from None
        if "tokenizer.model" not in self._files:
            raise OwnLMError(f"{self._folder} has no tokenizer.json and no tokenizer.model.")
        path = self._folder / "tokenizer.model"
        return convert(self._files["tokenizer.model"], path, add_begin=config.add_begin, add_end=config.add_end)

    def _make(self, data: Specification, config: TokenizerConfig) -> Backend:
        try:
            backend = Backend.from_str(self._files.get("tokenizer.json", b"").decode() or json.dumps(data))
        except Exception as error:  # the library raises bare Exceptions
            raise OwnLMError(f"{self._folder / 'tokenizer.json'} cannot be read: {error}.") from None
        backend.no_truncation()
        backend.no_padding()
        present = list(backend.get_added_tokens_decoder().values())
        known, texts = {repr(token) for token in present}, {token.content for token in present}
        backend.add_tokens([token for token in config.listed if repr(token) not in known])
        texts |= {token.content for token in config.listed}
        backend.add_tokens([token for token in config.missing if token.content not in texts])
        return backend

    def _without_pictures(self, size: int) -> int:
        pictures = {self._named.get(name) for name in PICTURES}
        while size > 1 and self._tokens.get(size - 1) in pictures:
            size -= 1
        return size

    def _named_id(self, name: str) -> int | None:
        return self._backend.token_to_id(self._named[name]) if name in self._named else None

    def _added_before(self) -> tuple[int, ...]:
        """What the post-processor puts before a text."""
        whole = self._backend.encode("a", add_special_tokens=True)
        added = list(whole.special_tokens_mask)
        return tuple(whole.ids[: added.index(0)] if 0 in added else ())

    # ---- plain text

    def _plain(self, text: str, position: Position) -> Encoded:
        """Encodes a text in which special tokens are nothing but characters."""
        found = self._as_plain(self._backend if position == "start" else self._variants[position], text)
        named = self._unknown in found.ids and self._special_texts.get(self._unknown, "\0") in text
        if self._forbidden.isdisjoint(found.ids) and not named:
            return found.ids, found.offsets
        # Some vocabularies hold their special tokens as pieces, which plain characters can make.
        guard, ids = self._guards[position]
        found = self._as_plain(guard, text)
        return [ids[each] for each in found.ids], found.offsets

    def _as_plain(self, backend: Backend, text: str) -> Encoding:
        with self._lock:
            backend.encode_special_tokens = True
            return backend.encode(text, add_special_tokens=False)

    def _place(self, text: str, identifier: int, span: Span) -> Span | None:
        """Where a special token's own characters stand (it may swallow spaces beside it); None if it is none."""
        special = self._special_texts.get(identifier)
        if special is None:
            return None
        start = text.find(special, *span)
        if start < 0:
            return None if identifier == self._unknown else span
        return start, start + len(special)

    @cached_property
    def _specification(self) -> Specification:
        return dict(json.loads(self._backend.to_str()))

    @cached_property
    def _variants(self) -> dict[Position, Backend]:
        """Backends for texts that do not begin at the beginning: the same one where no space is put anywhere."""
        made: dict[Position, Backend] = {}
        places: tuple[Position, ...] = ("after", "inside")
        for place in places:
            data = unprefixed(self._specification, place)
            same = all(data[part] == self._specification[part] for part in ("normalizer", "pre_tokenizer"))
            made[place] = self._backend if same else Backend.from_str(json.dumps(data))
        return made

    @cached_property
    def _guards(self) -> dict[Position, tuple[Backend, dict[int, int]]]:
        """Backends that give no special token to any text, and what their ids are here."""
        places: tuple[Position, ...] = ("start", "after", "inside")
        data, stand_in = guarded(self._specification, frozenset(self._special_texts))
        made = {each: Backend.from_str(json.dumps(unprefixed(data, each))) for each in places}
        ids: dict[int, int] = {
            identifier: int(token.removeprefix(stand_in))
            if token.startswith(stand_in)
            else self._backend.token_to_id(token) or 0
            for token, identifier in made["start"].get_vocab().items()
        }
        return {each: (backend, ids) for each, backend in made.items()}


def _kind(model: Specification) -> str:
    """Older files do not say what their model is."""
    return "BPE" if "merges" in model else "Unigram" if "unk_id" in model else "WordLevel"


def _whole(text: str) -> str:
    return _LONE_SURROGATES.sub("\ufffd", text)
