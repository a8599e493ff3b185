"""Tokenizers inside GGUF files: llama.cpp must read the same tokens as the model's own folder does."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import foreign_tokenizers
import tiny
from llama_cpp import LlamaCpp
from ownlm.data.tokenizer_files import load_tokenizer
from ownlm.model.files import save_model, save_weights
from ownlm.model.gguf.read import read_gguf
from ownlm.model.gguf.splits import GPT4O, LLAMA3, QWEN35, TEKKEN
from ownlm.model.gguf.write import write_gguf
from ownlm.runtime.errors import OwnLMError

SIZES = {"width": 32, "heads": 1, "kv_heads": 1, "head_dim": 32, "ffn": 32, "layers": 1}
TEXTS = (
    "def add(first, second):\n    return first + second\n\n\nclass Reader:\n\tpass\n",
    "for index in range(10):\r\n    print(index, index ** 2)  # 1234567.89e-10\r\n",
    "They'll say it's 42, WE'VE 12345 and don't; I'd go.  Two  spaces   three.",
    "Größe, façade, naïve: e\u0301 accents — “quotes”",
    "日本語 and 🙂🙃 family 👩‍👩‍👧, ไทย, ру́сский, العربية",
    "   leading and trailing   \n \n  ",
    "<|im_end|> is plain here, and so is </s>.",
    "x" * 70 + " " * 37 + "y\t\t\tz",
)


def pattern(expression: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(expression), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


WAYS: dict[str, tuple[pre_tokenizers.PreTokenizer, bool]] = {
    "llama-bpe": (pattern(LLAMA3), True),
    "smaug-bpe": (pattern(LLAMA3), False),
    "gpt-2": (pre_tokenizers.ByteLevel(add_prefix_space=False), False),
    "smollm": (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]), False,
    ),
    "qwen35": (pattern(QWEN35), False),
    "tekken": (pattern(TEKKEN), True),
    "gpt-4o": (pattern(GPT4O), False),
}  # fmt: skip


def byte_level(folder: Path, way: str) -> None:
    """A trained byte-level tokenizer with special tokens at both ends and one that is no special token."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=WAYS[way][1]))
    tokenizer.pre_tokenizer = WAYS[way][0]
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=450, special_tokens=["<|begin|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(tiny.CORPUS * 2, trainer)
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.add_tokens(["<tool>"])
    begin = [("<|begin|>", 0)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=begin)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "chat_template": "{{ messages[0].content }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))


def sentencepiece_bpe(folder: Path, **options: Any) -> None:
    """A SentencePiece model as Llama 2's and Gemma's are made."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(tiny.CORPUS), model_writer=model, vocab_size=400, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.99,
        split_digits=True, allow_whitespace_only_pieces=True, minloglevel=2, **options,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True})
    )


def gguf_of(folder: Path, rows: int | None = None) -> Path:
    """A tiny model around the folder's tokenizer, with a few rows of embedding to spare."""
    vocabulary = rows or load_tokenizer(folder).vocab_size + 5
    save_weights(folder, tiny.decoder(**{**SIZES, "vocabulary": vocabulary}))
    write_gguf(folder, folder / "model.gguf", "f32")
    return folder / "model.gguf"


def same_tokens(folder: Path, file: Path) -> None:
    """Compares plain texts, and a text with what stands before it."""
    tokenizer, judge = load_tokenizer(folder), LlamaCpp(file)
    for text in TEXTS:
        assert judge.tokens(text) == tokenizer.encode(text), text
    assert judge.tokens("add", special=True) == [*tokenizer.prefix, *tokenizer.encode("add")]


def test_our_own_splits_as_here(tmp_path: Path) -> None:
    save_model(tmp_path, tiny.decoder(**SIZES), tiny.tokenizer())
    write_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    judge = LlamaCpp(tmp_path / "model.gguf")
    for text in (*TEXTS, *tiny.SENTENCES):
        assert judge.tokens(text) == tiny.tokenizer().encode(text), text
    assert judge.tokens("<|im_start|>user\nHi<|im_end|>", special=True) == [
        tiny.tokenizer().special["<|im_start|>"], *tiny.tokenizer().encode("user\nHi"), tiny.tokenizer().end_of_turn,
    ]  # fmt: skip
    messages = [{"role": "user", "content": "What does add do?"}]
    assert judge.chat(messages) == "<|im_start|>user\nWhat does add do?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("way", WAYS)
def test_byte_level_tokenizers_of_others(way: str, tmp_path: Path) -> None:
    byte_level(tmp_path, way)
    same_tokens(tmp_path, gguf_of(tmp_path))


SENTENCEPIECE = [
    pytest.param({}, id="a space before the text"),
    pytest.param({"add_dummy_prefix": False}, id="none"),
    pytest.param({"user_defined_symbols": ["<tool>", "▁▁▁▁"], "control_symbols": ["<turn>"]}, id="own symbols"),
]


@pytest.mark.parametrize("options", SENTENCEPIECE)
def test_sentencepiece(options: dict[str, Any], tmp_path: Path) -> None:
    sentencepiece_bpe(tmp_path, **options)
    same_tokens(tmp_path, gguf_of(tmp_path))


@pytest.mark.parametrize("way", ["llama-bpe", "smollm", "sentencepiece", "own"])
def test_what_comes_back_encodes_the_same(way: str, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.mkdir()
    back.mkdir()
    if way == "own":
        tiny.tokenizer().save(source, 64)
    elif way == "sentencepiece":
        sentencepiece_bpe(source)
    else:
        byte_level(source, way)
    read_gguf(gguf_of(source), back)
    theirs, ours = load_tokenizer(source), load_tokenizer(back)
    assert type(theirs) is type(ours)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text), text
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
    for name in ("prefix", "special", "stops", "vocab_size", "begin_of_text", "end_of_text"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_transformers_opens_what_comes_back(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    byte_level(tmp_path, "llama-bpe")
    (tmp_path / "back").mkdir()
    read_gguf(gguf_of(tmp_path), tmp_path / "back")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "back")
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == [0, *load_tokenizer(tmp_path).encode(text)]
    assert tokenizer.eos_token == "<|end|>"
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi"


UNLIKE = {
    "qwen": ({"cafe\u0301 Ze\u0301ro A\u030angstro\u0308m \u1100\u1161\u11a8"}, "does not compose accents (NFC)"),
    "neox": ({"cafe\u0301 Ze\u0301ro A\u030angstro\u0308m \u1100\u1161\u11a8"}, "does not compose accents (NFC)"),
    "metaspace": ({"  two leading spaces, and   three inside and trailing  ", " "}, "a space before every text"),
}
"""Texts that llama.cpp reads otherwise, and the note that says so."""


@pytest.mark.parametrize("name", [name for name in foreign_tokenizers.MAKERS if name != "unigram"])
def test_tokenizers_in_the_manner_of_the_families(name: str, tmp_path: Path) -> None:
    foreign_tokenizers.write(tmp_path, name)
    tokenizer = load_tokenizer(tmp_path)
    save_weights(tmp_path, tiny.decoder(**{**SIZES, "vocabulary": tokenizer.vocab_size + 3}))
    written = write_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    judge = LlamaCpp(tmp_path / "model.gguf")
    unlike, note = UNLIKE.get(name, (set(), ""))
    assert {text for text in foreign_tokenizers.TEXTS if judge.tokens(text) != tokenizer.encode(text)} == unlike
    assert note in " ".join(written.notes)
    assert bool(written.notes) == bool(note)
    assert judge.tokens("add it", special=True) == [*tokenizer.prefix, *tokenizer.encode("add it")]


def edited(folder: Path, **changes: Any) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_another_split_is_refused(tmp_path: Path) -> None:
    tiny.tokenizer().save(tmp_path, 64)
    data = json.loads((tmp_path / "tokenizer.json").read_text())
    data["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{L}+|\s+"
    edited(tmp_path, **data)
    with pytest.raises(OwnLMError, match="tokenizer.json splits text by .*which llama.cpp does not know"):
        gguf_of(tmp_path)
    assert not (tmp_path / "model.gguf").exists()


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    byte_level(tmp_path, "gpt-2")
    edited(tmp_path, normalizer={"type": "Lowercase"})
    with pytest.raises(OwnLMError, match="asks for the normalizer Lowercase, which llama.cpp has not"):
        gguf_of(tmp_path)
    tokenizer = Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0)], 0, False))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(OwnLMError, match="of the kind Unigram, which cannot be written as GGUF"):
        gguf_of(tmp_path)


def test_merges_that_sentencepiece_could_not_make_are_refused(tmp_path: Path) -> None:
    sentencepiece_bpe(tmp_path)
    write = tmp_path / "tokenizer.json"
    file = gguf_of(tmp_path)
    read_gguf(file, tmp_path)
    data = json.loads(write.read_text())
    data["model"]["merges"] = data["model"]["merges"][1:]
    edited(tmp_path, **data)
    with pytest.raises(OwnLMError, match="does not merge .* SentencePiece, and so llama.cpp, would"):
        gguf_of(tmp_path)


def test_a_vocabulary_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    byte_level(tmp_path, "gpt-2")
    with pytest.raises(OwnLMError, match="tokenizer.json has the token .* with id 300, the embedding only 300 rows"):
        gguf_of(tmp_path, rows=300)


def test_a_model_that_names_no_end_is_refused(tmp_path: Path) -> None:
    byte_level(tmp_path, "gpt-2")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(OwnLMError, match="does not say which token ends a text; name it as eos_token"):
        gguf_of(tmp_path)


def test_plain_text_at_which_llama_cpp_would_stop_is_told(tmp_path: Path) -> None:
    byte_level(tmp_path, "gpt-2")
    data = json.loads((tmp_path / "tokenizer.json").read_text())
    text = next(text for text, i in data["model"]["vocab"].items() if i == 300)
    data["model"]["vocab"] = {("<EOT>" if key == text else key): i for key, i in data["model"]["vocab"].items()}
    data["model"]["merges"] = []
    edited(tmp_path, **data)
    save_weights(tmp_path, tiny.decoder(**{**SIZES, "vocabulary": 460}))
    written = write_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    assert written.notes == ("llama.cpp ends an answer at '<EOT>', which is plain text to this model.",)
