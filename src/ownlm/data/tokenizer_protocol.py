"""What the house needs of a tokenizer: our own and any open-weights model's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

Span = tuple[int, int]
"""First character, and the first one after it."""

Position = Literal["start", "after", "inside"]
"""Where a text stands: at the beginning of all, behind a special token, or in the middle of a sentence.

SentencePiece tokenizers put a space before the first word of a text; where it belongs depends on this.
"""


class TokenDecoder(Protocol):
    """One answer's tokens to text, as they come."""

    def add(self, identifier: int) -> str:
        """The text that is certain after this token; it ends at a whole character."""

    def finish(self) -> str:
        """What is left when the answer ends."""


class AnyTokenizer(Protocol):
    """Text to token ids and back.

    Special tokens (`special`) are never read out of a text by `encode`; `encode_chat` reads them where a chat template
    wrote them.
    """

    @property
    def special(self) -> Mapping[str, int]:
        """The ids of the special tokens by their text."""

    @property
    def variables(self) -> Mapping[str, str]:
        """The tokens that chat templates know by name: `bos_token`, `eos_token`, ..."""

    @property
    def vocab_size(self) -> int:
        """The highest id and one: a model's embedding needs as many rows."""

    @property
    def prefix(self) -> tuple[int, ...]:
        """Ids before a text that stands alone: a beginning-of-text token, our own end-of-text token, or nothing."""

    @property
    def stops(self) -> frozenset[int]:
        """The ids that end an answer."""

    @property
    def begin_of_text(self) -> int | None:
        """The beginning-of-text id, where the tokenizer has one."""

    @property
    def end_of_text(self) -> int:
        """The id that separates documents.

        Raises:
            OwnLMError: the tokenizer has none.
        """

    @property
    def end_of_turn(self) -> int:
        """The id that ends a message; the same as `end_of_text` where there is no other.

        Raises:
            OwnLMError: the tokenizer has none.
        """

    def encode(self, text: str) -> list[int]:
        """The ids of plain text, without prefix."""

    def encode_batch(self, texts: Sequence[str], threads: int = 2) -> list[list[int]]:
        """`encode` of each text, in parallel."""

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of bytes that should be UTF-8."""

    def encode_chat(
        self, text: str, plain: Sequence[Span] = (), position: Position = "start"
    ) -> tuple[list[int], list[Span]]:
        """The ids of what a chat template wrote, and the characters of `text` that each stands for.

        Special tokens count as such unless they touch a span of `plain` (sorted, apart from each other), which is what
        people wrote.
        """

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; what is no UTF-8 becomes U+FFFD."""

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the ids one after the other; special tokens give their own text.

        Raises:
            KeyError: an id outside the vocabulary.
        """

    def token_bytes(self, identifier: int) -> bytes:
        """The bytes of one token."""

    def decoder(self, continues: bool = False) -> TokenDecoder:
        """Decodes one answer token by token: all pieces joined are `decode` of all ids.

        With `continues` the tokens go on from a text, so that the space before the first word stays.
        """

    def save(self, folder: Path, context: int | None = None) -> None:
        """Writes the tokenizer's files as Hugging Face users expect; `context` is the longest text in tokens."""


def touches(spans: Sequence[Span], start: int, end: int) -> bool:
    """Whether one of the sorted spans has a character of `start..end`."""
    low, high = 0, len(spans)
    while low < high:
        middle = (low + high) // 2
        if spans[middle][1] <= start:
            low = middle + 1
        else:
            high = middle
    return low < len(spans) and spans[low][0] < end
