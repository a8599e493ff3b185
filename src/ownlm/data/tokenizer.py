"""Byte-level BPE: trained by rustbpe, encoded by tiktoken, kept as a `tokenizer.json` that everybody opens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rustbpe
import tiktoken
from tokenizers import Tokenizer as HuggingFaceTokenizer

from ownlm.data.byte_alphabet import to_bytes, to_characters
from ownlm.data.chat_template import CHATML_TEMPLATE
from ownlm.data.foreign_tokenizer_decoder import Utf8Decoder
from ownlm.data.tokenizer_protocol import Position, Span, TokenDecoder, touches
from ownlm.runtime import atomic
from ownlm.runtime.errors import OwnLMError

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's split expression: llama.cpp (`pre = qwen2`), vLLM and transformers split the same way."""

END_OF_TEXT, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (END_OF_TEXT, START_OF_TURN, END_OF_TURN)
FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE = "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"
FILL_IN_THE_MIDDLE = (FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE)
"""What a vocabulary has besides where a model is to fill gaps; other code models call them so too."""
SMALLEST_VOCABULARY = 256 + len(SPECIAL)

_LONE_BYTES = re.compile("[\udc80-\udcff]")


def _is_utf8(text: str) -> bool:
    """Whether `text` holds no lone surrogate; costs a hundredth of encoding it to tokens."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class Tokenizer:
    """Text to token ids and back; every string and every byte string round-trips.

    `special` maps the special tokens to their ids. They are never read out of text: `encode("<|im_end|>")` gives the
    plain characters, so that a document cannot end a turn. Only the chat format places them.
    """

    def __init__(self, ranks: dict[bytes, int], special: dict[str, int], split: str = SPLIT) -> None:
        self.special = special
        self.split = split
        self._ranks = ranks
        self._encoding = tiktoken.Encoding("ownlm", pat_str=split, mergeable_ranks=ranks, special_tokens=special)
        self._pieces = {rank: piece for piece, rank in ranks.items()}
        self._pieces.update({identifier: text.encode() for text, identifier in special.items()})
        self._sizes = np.array([len(self._pieces[identifier]) for identifier in sorted(self._pieces)], np.int64)
        longest_first = sorted(special, key=len, reverse=True)
        self._specials = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int, more: Sequence[str] = ()) -> Tokenizer:
        """Learns merges from `texts` until the vocabulary, special tokens included, has the size asked for.

        `more` are special tokens besides the usual three. A text with too few repetitions gives a smaller vocabulary.
        The same texts in the same order give the same ids.

        Raises:
            OwnLMError: `vocabulary` cannot even hold the 256 bytes and the special tokens.
        """
        special = (*SPECIAL, *more)
        smallest = SMALLEST_VOCABULARY + len(more)
        if vocabulary < smallest:
            raise OwnLMError(f"vocabulary={vocabulary}: a byte-level vocabulary needs at least {smallest}.")
        trainer = rustbpe.Tokenizer()
        trainer.train_from_iterator(iter(texts), vocabulary - len(special), pattern=SPLIT)
        ranks = {bytes(piece): rank for piece, rank in trainer.get_mergeable_ranks()}
        return cls(ranks, {text: len(ranks) + index for index, text in enumerate(special)})

    # ---- use

    @property
    def vocab_size(self) -> int:
        """Tokens in all, special ones included."""
        return len(self._pieces)

    @property
    def end_of_text(self) -> int:
        """The id that separates documents."""
        return self.special[END_OF_TEXT]

    @property
    def end_of_turn(self) -> int:
        """The id that ends a message."""
        return self.special[END_OF_TURN]

    @property
    def begin_of_text(self) -> int | None:
        """None: documents are separated by `end_of_text`, which stands before the first one too."""
        return None

    @property
    def prefix(self) -> tuple[int, ...]:
        """The end-of-text token: in training each document follows one."""
        return (self.end_of_text,)

    @property
    def stops(self) -> frozenset[int]:
        """The ends of a turn and of a text."""
        return frozenset((self.end_of_turn, self.end_of_text))

    @property
    def variables(self) -> Mapping[str, str]:
        """The tokens that chat templates know by name, as `save` writes them."""
        return {"eos_token": END_OF_TURN, "pad_token": END_OF_TEXT}

    def encode(self, text: str) -> list[int]:
        """The ids of plain text; a lone surrogate becomes the tokens of its three bytes ("surrogatepass")."""
        # tiktoken by itself would put U+FFFD in a surrogate's place.
        if _is_utf8(text):
            return self._encoding.encode_ordinary(text)
        return self.encode_bytes(text.encode("utf-8", "surrogatepass"))

    def encode_batch(self, texts: Sequence[str], threads: int = 2) -> list[list[int]]:
        """`encode` of each text, in parallel."""
        if not all(map(_is_utf8, texts)):
            return [self.encode(text) for text in texts]
        return self._encoding.encode_ordinary_batch(list(texts), num_threads=threads)

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of any bytes; those that are not UTF-8 become single-byte tokens."""
        text, ids, last = data.decode("utf-8", "surrogateescape"), [], 0
        for match in _LONE_BYTES.finditer(text):
            ids += self._encoding.encode_ordinary(text[last : match.start()])
            ids.append(self._ranks[bytes([ord(match.group()) - 0xDC00])])
            last = match.end()
        return ids + self._encoding.encode_ordinary(text[last:])

    def encode_chat(
        self, text: str, plain: Sequence[Span] = (), position: Position = "start"
    ) -> tuple[list[int], list[Span]]:
        """See `AnyTokenizer.encode_chat`; where a text stands makes no difference here."""
        ids: list[int] = []
        spans: list[Span] = []
        last = 0
        matches = [match for match in self._specials.finditer(text) if not touches(plain, *match.span())]
        for start, end in [*(match.span() for match in matches), (len(text), len(text))]:
            section = self.encode(text[last:start])
            ids += section
            spans += self._spans(text[last:start], section, last)
            if end > start:
                ids.append(self.special[text[start:end]])
                spans.append((start, end))
            last = end
        return ids, spans

    def _spans(self, text: str, ids: Sequence[int], begin: int) -> list[Span]:
        """The characters of each token; a character in several tokens counts for each of them."""
        ends = np.cumsum(self._sizes[ids]) if ids else np.zeros(0, np.int64)
        starts = ends - self._sizes[ids] if ids else ends
        if not text.isascii():
            codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
            offsets = np.cumsum(1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000))
            starts = np.searchsorted(offsets, starts, "right")
            ends = np.searchsorted(offsets, ends - 1, "right") + 1
        return list(zip((starts + begin).tolist(), (ends + begin).tolist(), strict=True))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the ids; special tokens give their own text.

        Raises:
            KeyError: an id outside the vocabulary.
        """
        return b"".join(self._pieces[identifier] for identifier in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def token_bytes(self, identifier: int) -> bytes:
        """The bytes of one token."""
        return self._pieces[identifier]

    def decoder(self, continues: bool = False) -> TokenDecoder:
        """See `AnyTokenizer.decoder`; a text and its continuation are the same here."""
        return Utf8Decoder(self.token_bytes)

    # ---- files

    def save(self, folder: Path, context: int | None = None) -> None:
        """Writes `tokenizer.json` and `tokenizer_config.json` (with the chat template) as Hugging Face users expect."""
        atomic.write_json(folder / "tokenizer.json", self._to_hugging_face())
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": None,
            "eos_token": END_OF_TURN,
            "pad_token": END_OF_TEXT,
            "unk_token": None,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHATML_TEMPLATE,
        }
        if context is not None:
            config["model_max_length"] = context
        atomic.write_json(folder / "tokenizer_config.json", config)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Reads a `tokenizer.json` of a byte-level BPE whose ids follow the order of its merges, as ours do.

        Raises:
            OwnLMError: the file is absent, is no JSON, or holds another kind of tokenizer (nothing is ignored).
        """
        path = folder / "tokenizer.json"
        try:
            data = json.loads(path.read_text("utf-8"))
            model, pre = data["model"], data["pre_tokenizer"]
            split = pre["pretokenizers"][0]["pattern"]["Regex"]
            other = _other_kind(data)
            special = {entry["content"]: entry["id"] for entry in data["added_tokens"]}
            ranks = {to_bytes(piece): rank for piece, rank in model["vocab"].items() if piece not in special}
            # Pairs, or as older files have it one string with a space, which the byte alphabet does not hold.
            merged = [to_bytes("".join(pair).replace(" ", "")) for pair in model["merges"]]
        except FileNotFoundError:
            raise OwnLMError(f"{folder} has no tokenizer.json.") from None
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise OwnLMError(f"{path} is not a byte-level BPE tokenizer that can be read here ({error!r}).") from None
        if other:
            raise OwnLMError(f"{path} asks for {other}, which this tokenizer does not do.")
        by_rank = sorted(ranks, key=ranks.__getitem__)
        if [piece for piece in by_rank if len(piece) > 1] != merged or list(ranks.values()) != list(range(len(ranks))):
            raise OwnLMError(f"{path} numbers its tokens in another order than it merges them: not readable here yet.")
        return cls(ranks, special, split)

    def _to_hugging_face(self) -> dict[str, Any]:
        ordered = sorted(self._ranks.items(), key=lambda item: item[1])
        vocabulary = {to_characters(piece): rank for piece, rank in ordered} | self.special
        merges = [
            [to_characters(part) for part in self._parents(piece, rank)] for piece, rank in ordered if len(piece) > 1
        ]
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
        data = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, "content": text, **flags} for text, i in self.special.items()],
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": self.split}, "behavior": "Isolated", "invert": False},
                    byte_level,
                ],
            },
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                "vocab": vocabulary, "merges": merges,
            },
        }  # fmt: skip
        HuggingFaceTokenizer.from_str(json.dumps(data))  # an invalid file fails here, where it is made
        return data

    def _parents(self, piece: bytes, rank: int) -> tuple[bytes, bytes]:
        """The two tokens whose merge made `piece`: what BPE leaves of it with the earlier ranks only."""
        parts = [piece[i : i + 1] for i in range(len(piece))]
        while len(parts) > 2:
            joined = [self._ranks.get(a + b, rank) for a, b in pairwise(parts)]
            best = min(range(len(joined)), key=joined.__getitem__)
            if joined[best] >= rank:
                raise OwnLMError(f"token {rank} of the vocabulary cannot be made from earlier ones")
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        return parts[0], parts[1]


def _other_kind(data: dict[str, Any]) -> str | None:
    """What a `tokenizer.json` asks for beyond splitting, bytes and merges; None if nothing."""
    model, (split, *levels) = data["model"], data["pre_tokenizer"]["pretokenizers"]
    if data.get("normalizer"):
        return f"the normalizer {data['normalizer'].get('type')}"
    if (split["type"], split["behavior"], split["invert"]) != ("Split", "Isolated", False):
        return "another way to split"
    if [level["type"] for level in levels] != ["ByteLevel"] or levels[0]["add_prefix_space"] or levels[0]["use_regex"]:
        return "other pre-tokenizers than one split and bytes"
    for key in ("ignore_merges", "byte_fallback", "dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            return f"{key}={model[key]!r}"
    return None
