"""From a model folder's tokenizer to the table of a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gguf import TokenType
from tokenizers import Tokenizer as Backend

from ownlm.data.foreign_tokenizer_config import PICTURES, ending_ids, read_config, read_templates
from ownlm.data.sentencepiece_model import convert
from ownlm.model.gguf.splits import NAMES, split_of
from ownlm.model.gguf.tokens import BYTE_LEVEL, ENDINGS, PADDING, PIECES, TokenTable, listed
from ownlm.runtime.errors import OwnLMError

_ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
_SPACE = "▁"


def table_of(folder: Path, vocabulary: int) -> tuple[TokenTable, list[str]]:
    """The folder's tokenizer for an embedding of `vocabulary` rows, and what llama.cpp does otherwise.

    Raises:
        OwnLMError: there is no tokenizer, it has more tokens than the embedding rows, or llama.cpp would split text in
            another way.
    """
    path, data = _specification(folder)
    notes: list[str] = []
    split = split_of(data)
    try:
        if data["model"]["type"] != "BPE":
            raise OwnLMError(
                f"{path} is a tokenizer of the kind {data['model']['type']}, which cannot be written as GGUF; BPE can."
            )
        texts, types = _vocabulary(path, folder, data, vocabulary)
        if split is not None:
            if split not in NAMES:
                raise OwnLMError(
                    f"{path} splits text by {split.pattern or 'a rule'!r}, which llama.cpp does not know: there the "
                    "model would read other tokens than here."
                )
            _refuse_options(path, data, byte_fallback=False)
            normalizer = (data.get("normalizer") or {}).get("type")
            if normalizer not in (None, "NFC"):
                raise OwnLMError(f"{path} asks for the normalizer {normalizer}, which llama.cpp has not.")
            if normalizer:
                notes.append("llama.cpp does not compose accents (NFC): text with separate ones becomes other tokens.")
            kind: dict[str, Any] = {"model": BYTE_LEVEL, "pre": NAMES[split], "merges": _merges(data)}
        else:
            _refuse_options(path, data, byte_fallback=True)
            kind = {
                "model": PIECES, "pre": "default", "add_space": _adds_space(path, data, notes),
                "scores": _scores(path, data, types, texts),
            }  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise OwnLMError(f"{path} is no tokenizer that can be written as GGUF ({error!r}).") from None
    begin, end = _added_around(data)
    table = TokenTable(
        texts=texts, types=types, named=_named(folder, texts), add_begin=begin is not None, add_end=end,
        template=read_templates(folder).get("default"), **kind,
    )  # fmt: skip
    if begin is not None and table.named.get("bos") != begin:
        raise OwnLMError(f"{path} begins texts with {texts[begin]!r}, which is not its bos_token.")
    plain = [texts[each] for each in table.ids(TokenType.NORMAL) if texts[each] in ENDINGS]
    if plain:
        notes.append(f"llama.cpp ends an answer at {listed(plain)}, which is plain text to this model.")
    return table, notes


def _specification(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The `tokenizer.json`, or what a SentencePiece model is as such."""
    path, config = folder / "tokenizer.json", read_config(folder)
    if not path.is_file():
        path = folder / "tokenizer.model"
        if not path.is_file():
            raise OwnLMError(f"{folder} has no tokenizer.json and no tokenizer.model.")
    try:
        if path.suffix == ".model":
            data = convert(path.read_bytes(), path, add_begin=config.add_begin, add_end=config.add_end)
        else:
            data = json.loads(path.read_text("utf-8"))
        backend = Backend.from_str(json.dumps(data))
    except OwnLMError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        raise OwnLMError(f"{path} cannot be read: {error}.") from None
    beside = [token for token in (*config.listed, *config.missing) if backend.token_to_id(token.content) is None]
    if beside:
        backend.add_tokens(beside)
        data = json.loads(backend.to_str())
    return path, data


def _vocabulary(path: Path, folder: Path, data: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Texts and types by id; ids that no token has are filled, as an embedding often has more rows than tokens."""
    texts = [PADDING.format(identifier) for identifier in range(size)]
    types = [int(TokenType.UNUSED)] * size
    unknown = data["model"].get("unk_token")
    bytes_ = bool(data["model"].get("byte_fallback"))
    added = {entry["content"]: (entry["id"], entry["special"]) for entry in data.get("added_tokens") or []}
    pictures = {token for name, token in read_config(folder).named.items() if name in PICTURES}
    for text, identifier in [*data["model"]["vocab"].items(), *((text, i) for text, (i, _) in added.items())]:
        if identifier >= size and text in pictures:
            continue
        if identifier >= size:
            raise OwnLMError(f"{path} has the token {text!r} with id {identifier}, the embedding only {size} rows.")
        texts[identifier] = text
        if text == unknown:
            kind = TokenType.UNKNOWN
        elif text in added:
            kind = TokenType.CONTROL if added[text][1] else TokenType.USER_DEFINED
        elif bytes_ and len(text) == 6 and text.startswith("<0x"):
            kind = TokenType.BYTE
        else:
            kind = TokenType.NORMAL
        types[identifier] = int(kind)
    if len(set(texts)) != len(texts):
        twice = sorted({text for text in texts if texts.count(text) > 1})
        raise OwnLMError(f"{path} has several tokens of one text: {listed(twice)}.")
    return texts, types


def _refuse_options(path: Path, data: dict[str, Any], byte_fallback: bool) -> None:
    model = data["model"]
    wrong = [key for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
    if bool(model.get("byte_fallback")) != byte_fallback:
        wrong.append("byte_fallback")
    if wrong:
        raise OwnLMError(f"{path} has {', '.join(f'{key}={model.get(key)!r}' for key in wrong)}: llama.cpp has not.")


def _merges(data: dict[str, Any]) -> list[str]:
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in data["model"]["merges"]]


def _pairs(data: dict[str, Any]) -> list[tuple[str, str]]:
    found = []
    for pair in data["model"]["merges"]:
        left, right = pair.split(" ", 1) if isinstance(pair, str) else pair
        found.append((left, right))
    return found


def _scores(path: Path, data: dict[str, Any], types: list[int], texts: list[str]) -> list[float]:
    """What SentencePiece would score each token with: the earlier its merge, the higher.

    SentencePiece merges the pair whose joined text scores best, so all pairs that make a token have its score, and
    every pair of tokens that makes a token is a merge. Merges that are not of this form are refused.
    """
    pairs = _pairs(data)
    scores = [-float(len(pairs) + identifier) for identifier in range(len(texts))]
    ids = data["model"]["vocab"]
    last, finished = "", set[str]()
    for rank, (left, right) in enumerate(pairs):
        joined = left + right
        if joined != last:
            if joined in finished:
                raise OwnLMError(f"{path} merges {joined!r} at several ranks, which SentencePiece cannot.")
            finished.add(last)
            scores[ids[joined]] = -float(rank)
            last = joined
    known = set(pairs)
    plain = {text for text, kind in zip(texts, types, strict=True) if kind == TokenType.NORMAL}
    for text in plain:
        for cut in range(1, len(text)):
            pair = text[:cut], text[cut:]
            if pair not in known and pair[0] in plain and pair[1] in plain:
                raise OwnLMError(
                    f"{path} does not merge {pair[0]!r} and {pair[1]!r}, although it has {text!r}: SentencePiece, and "
                    "so llama.cpp, would."
                )
    return scores


def _adds_space(path: Path, data: dict[str, Any], notes: list[str]) -> bool:
    """Whether a text gets a space before its first word.

    Raises:
        OwnLMError: the text is changed in a way that is not SentencePiece's plain one.
    """
    normalizer = data.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    first = data.get("pre_tokenizer") or {}
    adds = escapes = False
    for step in steps:
        match step:
            case {"type": "Prepend", "prepend": "▁"}:
                adds = True
            case {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}:
                escapes = True
            case _:
                raise OwnLMError(f"{path} asks for the normalizer {step.get('type')}, which llama.cpp has not.")
    match first:
        case {"type": "Metaspace", "replacement": "▁"}:
            escapes = True
            if first.get("prepend_scheme", "always") != "never":
                adds = True
                notes.append("llama.cpp puts a space before every text, also before one that begins with a space.")
            if first.get("split", True):
                raise OwnLMError(f"{path} splits text at spaces before merging, which llama.cpp does not.")
        case {} | {"type": "Split", "pattern": {"String": " "}} if escapes or not first:
            pass
        case _:
            raise OwnLMError(f"{path} asks for the pre-tokenizer {first.get('type')}, which llama.cpp has not.")
    if not escapes:
        raise OwnLMError(f"{path} is neither a byte-level tokenizer nor one in SentencePiece's manner.")
    return adds


def _added_around(data: dict[str, Any]) -> tuple[int | None, bool]:
    """The id that the post-processor puts before a text, and whether it puts one behind."""
    found = Backend.from_str(json.dumps({**data, "truncation": None, "padding": None})).encode("a")
    mask: list[int] = found.special_tokens_mask
    return (found.ids[0] if mask and mask[0] else None), bool(mask and mask[-1])


def _named(folder: Path, texts: list[str]) -> dict[str, int]:
    """The ids of special roles; a second end of answers that llama.cpp would not guess becomes `eot`."""
    ids = {text: identifier for identifier, text in enumerate(texts)}
    config = read_config(folder)
    named = {role: ids[config.named[key]] for role, key in _ROLES.items() if config.named.get(key) in ids}
    ends = [each for each in ending_ids(folder) if 0 <= each < len(texts)]
    if "eos" not in named and ends:
        named["eos"] = ends[0]
    others = [each for each in dict.fromkeys(ends) if each != named.get("eos") and texts[each] not in ENDINGS]
    named |= dict(zip(("eot", "eom"), others, strict=False))
    if "eos" not in named:
        raise OwnLMError(
            f"{folder} does not say which token ends a text; name it as eos_token in tokenizer_config.json (llama.cpp "
            "would end at token 11)."
        )
    # Without one llama.cpp takes token 11; it is not put before a text unless `add_begin` says so.
    named.setdefault("bos", named.get("padding", named["eos"]))
    return named
