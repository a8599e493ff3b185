"""The tokenizer of a folder, ours or another's."""

from __future__ import annotations

import json
from pathlib import Path

from ownlm.data.foreign_tokenizer import ForeignTokenizer
from ownlm.data.foreign_tokenizer_config import read_json
from ownlm.data.tokenizer import END_OF_TEXT, END_OF_TURN, FILL_IN_THE_MIDDLE, SPECIAL, Tokenizer
from ownlm.data.tokenizer_protocol import AnyTokenizer
from ownlm.runtime.errors import OwnLMError

_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def load_tokenizer(folder: Path) -> AnyTokenizer:
    """Our own tokenizer where the files are such as it writes (it encodes ten times as fast), else a foreign one.

    Of a `tokenizer.json` and a SentencePiece `tokenizer.model` in one folder the first is read.

    Raises:
        OwnLMError: the folder has neither, or one that cannot be read.
    """
    return _ours(folder) or ForeignTokenizer(folder)


def _ours(folder: Path) -> Tokenizer | None:
    """Our own class, if it encodes as the files say: our special tokens, nothing put before or after a text."""
    path = folder / "tokenizer.json"
    # The beginning of a file of many megabytes decides it for most.
    try:
        with path.open("rb") as file:
            if END_OF_TURN.encode() not in file.read(5_000):
                return None
        data = json.loads(path.read_text("utf-8"))
        added = {token.pop("content"): token for token in data["added_tokens"]}
        plain = all({**token, "id": 0} == {**_PLAIN, "id": 0} for token in added.values())
        config = read_json(folder / "tokenizer_config.json")
        named = (config.get("bos_token"), config.get("eos_token", END_OF_TURN), config.get("pad_token", END_OF_TEXT))
        ours = set(added) in (set(SPECIAL), {*SPECIAL, *FILL_IN_THE_MIDDLE})
        usual = ours and named == (None, END_OF_TURN, END_OF_TEXT)
        return Tokenizer.load(folder) if usual and plain and not data["post_processor"] else None
    except (OwnLMError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
