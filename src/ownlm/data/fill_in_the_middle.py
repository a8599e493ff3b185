"""Fill-in-the-middle: documents rearranged so that a left-to-right model learns to fill gaps.

Bavarian et al. 2022, "Efficient Training of Language Models to Fill in the Middle", arXiv 2207.14255: documents are cut
into prefix, middle and suffix at two characters chosen at random, half of them go on in the order prefix, suffix,
middle (PSM), half in the order suffix, prefix, middle (SPM, the paper's second form, section 3).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ownlm.data.document import Document
from ownlm.data.tokenizer import FILL_IN_THE_MIDDLE, Tokenizer
from ownlm.data.tokenizer_protocol import AnyTokenizer, Position
from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.seeds import derive_seed


@dataclass(frozen=True)
class FillInTheMiddle:
    """`rate` is the share of the documents that are rearranged; which ones, and where, follows from `seed`.

    Raises:
        OwnLMError: `rate` is no share.
    """

    rate: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise OwnLMError(f"--fim {self.rate:g}: the share of rearranged documents lies between 0 and 1.")

    def cut(self, document: Document) -> tuple[str, str, str, bool] | None:
        """Prefix, middle, suffix, and whether the order is PSM; None for a document that stays as it is.

        Depends on the document's content and the seed alone.
        """
        chance = random.Random(derive_seed(self.seed, "fill in the middle", document.sha256))
        if chance.random() >= self.rate:
            return None
        text = document.text
        first, second = sorted(chance.randrange(len(text) + 1) for _ in range(2))
        return text[:first], text[first:second], text[second:], chance.random() < 0.5

    def encode(self, document: Document, tokenizer: AnyTokenizer) -> list[int] | None:
        """The ids of a rearranged document; None for one that stays as it is.

        Raises:
            OwnLMError: as `fim_ids`.
        """
        found = self.cut(document)
        if found is None:
            return None
        prefix, middle, suffix, prefix_first = found
        before, after, between = fim_ids(tokenizer)
        suffix_ids = _section(tokenizer, suffix, "after")
        prefix_ids = _section(tokenizer, prefix, "after")
        if prefix_first:
            return [before, *prefix_ids, after, *suffix_ids, between, *_section(tokenizer, middle, "after")]
        rest = _section(tokenizer, middle, "inside" if prefix_ids else "after")
        return [before, after, *suffix_ids, between, *prefix_ids, *rest]


def fim_ids(tokenizer: AnyTokenizer) -> tuple[int, int, int]:
    """The ids of the tokens before the prefix, the suffix and the middle.

    Raises:
        OwnLMError: the vocabulary lacks one of them.
    """
    found = [_id(tokenizer, text) for text in FILL_IN_THE_MIDDLE]
    if None in found:
        missing = [text for text, identifier in zip(FILL_IN_THE_MIDDLE, found, strict=True) if identifier is None]
        raise OwnLMError(
            f"The tokenizer has no {', '.join(missing)}, so its model cannot learn to fill in the middle. "
            "Leave --fim out, or train a model from scratch with it."
        )
    before, after, between = (identifier for identifier in found if identifier is not None)
    return before, after, between


def _id(tokenizer: AnyTokenizer, text: str) -> int | None:
    """A control token's id; some models do not mark theirs as special."""
    if text in tokenizer.special:
        return tokenizer.special[text]
    ids = tokenizer.encode(text)
    return ids[0] if len(ids) == 1 and tokenizer.decode(ids) == text else None


def _section(tokenizer: AnyTokenizer, text: str, position: Position) -> list[int]:
    """The ids of plain text at its place: what looks like a special token in it is none."""
    if isinstance(tokenizer, Tokenizer):
        return tokenizer.encode(text)  # the same at every place
    return tokenizer.encode_chat(text, [(0, len(text))], position)[0] if text else []
