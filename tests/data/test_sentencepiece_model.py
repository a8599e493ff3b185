import json
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor

from foreign_tokenizers import TEXTS, spiece, write
from ownlm.data.sentencepiece_model import convert, parse
from ownlm.data.tokenizer_files import load_tokenizer
from ownlm.runtime.errors import OwnLMError

SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("bpe", {}),
    "no prefix": ("bpe", {"add_dummy_prefix": False}),
    "squeezed": ("bpe", {"remove_extra_whitespaces": True, "normalization_rule_name": "nfkc"}),
    "unigram": ("unigram", {}),
    "t5": ("unigram", {
        "byte_fallback": False, "remove_extra_whitespaces": True, "normalization_rule_name": "nmt_nfkc", "bos_id": -1,
    }),
}  # fmt: skip


def folder_of(folder: Path, kind: str, options: dict[str, Any], **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.model").write_bytes(spiece(kind, **options))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", list(SETTINGS))
def test_ids_and_texts_are_sentencepieces(tmp_path: Path, name: str) -> None:
    kind, options = SETTINGS[name]
    ours = load_tokenizer(folder_of(tmp_path, kind, options))
    oracle = SentencePieceProcessor(model_proto=spiece(kind, **options))
    assert ours.vocab_size == oracle.vocab_size()
    assert ours.prefix == (() if name == "t5" else (oracle.bos_id(),))
    # The library composes no Hangul from its parts where a normalisation table asks for it.
    texts = [text for text in TEXTS if "\u1100" not in text or name in ("llama", "no prefix", "unigram")]
    for text in [*texts, "</s>x<s> <unk>", "＜/s＞"]:
        ids = oracle.encode(text)
        assert ours.encode(text) == ids, text
        if oracle.unk_id() not in ids:
            assert ours.decode(ids) == oracle.decode(ids)


def test_it_is_the_tokenizer_that_transformers_makes_of_the_same_pieces(tmp_path: Path) -> None:
    """transformers itself reads such a file with protobuf alone; `llama2` is what it would make."""
    ours = load_tokenizer(folder_of(tmp_path / "model", "bpe", {}, bos_token="<s>", eos_token="</s>"))
    json_only = load_tokenizer(write(tmp_path / "json", "llama2"))
    for text in (*TEXTS, "<s>[INST] hi [/INST] yo</s>x", "a<s>"):
        assert ours.encode_chat(text) == json_only.encode_chat(text)
        assert ours.encode(text) == json_only.encode(text)
    assert ours.special == json_only.special and ours.stops == json_only.stops


def test_a_tokenizer_json_wins(tmp_path: Path) -> None:
    folder = folder_of(write(tmp_path, "gpt2"), "bpe", {})
    assert "Ġthe" in json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("é") != SentencePieceProcessor(model_proto=spiece()).encode("é")
    tokenizer.save(tmp_path / "copy")
    assert (tmp_path / "copy/tokenizer.model").read_bytes() == spiece()


@pytest.mark.parametrize(
    ("config", "prefix", "last"),
    [
        ({}, (1,), None),
        ({"add_bos_token": False}, (), None),
        ({"add_bos_token": True, "add_eos_token": True}, (1,), 2),
    ],
)
def test_what_stands_around_a_text(tmp_path: Path, config: dict[str, bool], prefix: tuple[int], last: int) -> None:
    tokenizer = load_tokenizer(folder_of(tmp_path, "bpe", {}, **config))
    assert tokenizer.prefix == prefix
    post = convert(spiece(), tmp_path, add_begin=config.get("add_bos_token"), add_end=config.get("add_eos_token"))
    assert ((post["post_processor"] or {"single": [{}]})["single"][-1] == {
        "SpecialToken": {"id": "</s>", "type_id": 0}
    }) == (last == 2)  # fmt: skip


def test_users_symbols_are_tokens_everywhere_and_control_symbols_nowhere(tmp_path: Path) -> None:
    options = {"user_defined_symbols": "<think>,</think>", "control_symbols": "<ctl>"}
    ours = load_tokenizer(folder_of(tmp_path, "bpe", options))
    oracle = SentencePieceProcessor(model_proto=spiece("bpe", **options))
    think, control = oracle.piece_to_id("<think>"), oracle.piece_to_id("<ctl>")
    assert think in ours.encode("a<think>b") and control not in ours.encode("a<ctl>b")
    assert control in ours.encode_chat("a<ctl>b")[0] and ours.special["<ctl>"] == control


@pytest.mark.parametrize("cut", [1, 100, 4000])
def test_a_file_cut_short(tmp_path: Path, cut: int) -> None:
    (tmp_path / "tokenizer.model").write_bytes(spiece()[:-cut])
    with pytest.raises(OwnLMError, match=r"tokenizer\.model is no SentencePiece model"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("data", [b"", b"not a model at all", b"IQ== 0\nIg== 1\n", b"\x80\x02}q\x00.", b"\x0a\x00"])
def test_a_file_of_another_kind(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(OwnLMError, match=r"tokenizer\.model is no SentencePiece model"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("char", {}, r"model_type=4; only unigram \(1\) and BPE \(2\)"),
        ("word", {}, "model_type=3"),
        ("bpe", {"treat_whitespace_as_suffix": True}, "marks spaces at the end of words"),
    ],
)
def test_kinds_that_cannot_be_read(tmp_path: Path, kind: str, options: dict[str, Any], message: str) -> None:
    (tmp_path / "tokenizer.model").write_bytes(spiece(kind, **options))
    with pytest.raises(OwnLMError, match=message):
        load_tokenizer(tmp_path)


def test_the_fields_of_the_file() -> None:
    model = parse(spiece("unigram", bos_id=-1, eos_id=1), Path("x"))
    assert (model.bos_id, model.eos_id, model.byte_fallback, model.dummy_prefix, model.squeeze) == (
        -1, 1, True, True, False,
    )  # fmt: skip
    oracle = SentencePieceProcessor(model_proto=spiece("unigram", bos_id=-1, eos_id=1))
    assert [piece.text for piece in model.pieces] == [oracle.id_to_piece(i) for i in range(oracle.vocab_size())]
    assert [piece.score for piece in model.pieces] == [oracle.get_score(i) for i in range(oracle.vocab_size())]
