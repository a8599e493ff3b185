"""A vocabulary as GGUF files hold it: a table of tokens with types, merges or scores, and what special ids mean.

The keys are those of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (section "Tokenizer").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gguf
from gguf import TokenType

from ownlm.model.gguf.fields import Fields
from ownlm.runtime.errors import OwnLMError

BYTE_LEVEL, PIECES = "gpt2", "llama"
"""`tokenizer.ggml.model`: byte-level BPE, and SentencePiece's BPE."""
PADDING = "[PAD{}]"
"""The text of an id that no token has, as llama.cpp's own converter writes it."""
ENDINGS = frozenset({
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
    "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
})  # fmt: skip
"""llama.cpp ends an answer at tokens of these texts, whatever their type."""
_ADD_BEGIN = frozenset({"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
                        "tekken", "chameleon"})  # fmt: skip
"""Ways to split with which llama.cpp puts a beginning-of-text token first unless told otherwise."""


@dataclass(frozen=True)
class TokenTable:
    """`texts`, `types` and (of SentencePiece) `scores` by id; `merges` of a byte-level vocabulary, best first.

    `named` has the ids that are known by a role: bos, eos, eot, unknown, padding.
    """

    model: str
    pre: str
    texts: list[str]
    types: list[int]
    scores: list[float] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    named: dict[str, int] = field(default_factory=dict)
    add_begin: bool = False
    add_end: bool = False
    add_space: bool = False
    template: str | None = None

    def ids(self, *types: TokenType) -> list[int]:
        """The ids of these types."""
        return [identifier for identifier, kind in enumerate(self.types) if kind in types]

    def write(self, writer: gguf.GGUFWriter) -> None:
        """Adds the table to a file's metadata."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.texts)
        if self.scores:
            writer.add_token_scores(self.scores)
        writer.add_token_types(self.types)
        if self.model == BYTE_LEVEL:
            # An empty list would be left out, and llama.cpp wants one.
            writer.add_token_merges(self.merges or [f"{PADDING} {PADDING}"])
        for role, identifier in self.named.items():
            writer.add_uint32(f"tokenizer.ggml.{role}_token_id", identifier)
        writer.add_add_bos_token(self.add_begin)
        writer.add_add_eos_token(self.add_end)
        if self.model == PIECES:
            writer.add_add_space_prefix(self.add_space)
        if self.template is not None:
            writer.add_chat_template(self.template)


ROLES = ("bos", "eos", "eot", "eom", "unknown", "padding")


def read_table(fields: Fields) -> TokenTable:
    """The vocabulary of a file.

    Raises:
        OwnLMError: there is none, one of another kind, or lists of different lengths.
    """
    model = fields.text("tokenizer.ggml.model")
    if model not in (BYTE_LEVEL, PIECES):
        raise OwnLMError(
            f"{fields.where} has a tokenizer of the kind {model!r}; read are byte-level BPE ({BYTE_LEVEL}) and "
            f"SentencePiece's BPE ({PIECES})."
        )
    texts = fields.items("tokenizer.ggml.tokens")
    types = fields.items("tokenizer.ggml.token_type", [int(TokenType.NORMAL)] * len(texts))
    scores = fields.items("tokenizer.ggml.scores", []) if model == PIECES else []
    if len(types) != len(texts) or (model == PIECES and len(scores) != len(texts)):
        raise OwnLMError(f"{fields.where} has {len(texts)} tokens, {len(types)} token types and {len(scores)} scores.")
    pre = fields.text("tokenizer.ggml.pre", "default")
    begin = pre in _ADD_BEGIN if model == BYTE_LEVEL else True
    # What llama.cpp takes for granted in a SentencePiece vocabulary.
    named: dict[str, int] = {"bos": 1, "eos": 2, "unknown": 0} if model == PIECES else {}
    for role in ROLES:
        if (found := fields.integer(f"tokenizer.ggml.{role}_token_id", None)) is not None:
            named[role] = found
    if any(not 0 <= identifier < len(texts) for identifier in named.values()):
        raise OwnLMError(f"{fields.where} names special tokens outside its {len(texts)} tokens: {named}.")
    return TokenTable(
        model=model,
        pre=pre,
        texts=texts,
        types=types,
        scores=scores,
        merges=fields.items("tokenizer.ggml.merges", []) if model == BYTE_LEVEL else [],
        named=named,
        add_begin=fields.flag("tokenizer.ggml.add_bos_token", begin),
        add_end=fields.flag("tokenizer.ggml.add_eos_token", False),
        add_space=fields.flag("tokenizer.ggml.add_space_prefix", model == PIECES),
        template=fields.text("tokenizer.chat_template", None),
    )


def listed(texts: list[Any], limit: int = 5) -> str:
    """The first of many, for a message."""
    shown = ", ".join(repr(text) for text in texts[:limit])
    return shown + (f" and {len(texts) - limit:,} more" if len(texts) > limit else "")
