from pathlib import Path
from typing import cast

import numpy as np
import pytest

import foreign_tokenizers
import tiny
from ownlm.data.document import Document, Split
from ownlm.data.fill_in_the_middle import FillInTheMiddle
from ownlm.data.message import TextPart
from ownlm.data.shards import read_shards, token_dtype, write_shards
from ownlm.data.tokenizer import FILL_IN_THE_MIDDLE, Tokenizer
from ownlm.data.tokenizer_files import load_tokenizer


def document(number: int, text: str, split: Split = "train") -> Document:
    kind = "code" if number % 2 else "prose"
    return Document(f"notes:{number}.md", "notes", "MIT", kind, "md", (TextPart(text),), split)


DOCUMENTS = [
    document(0, "first document\n"),
    document(1, "kept out: größer 🙂\n", "heldout"),
    document(2, ""),
    document(3, "<|endoftext|> is plain here"),
    document(4, "last\n" * 40),
    document(5, "also kept out", "heldout"),
]


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_spans_are_those_of_the_documents(tmp_path: Path, split: Split) -> None:
    tokenizer = tiny.tokenizer()
    write_shards(DOCUMENTS, tokenizer, tmp_path)
    stream = read_shards(tmp_path, split, tokenizer.vocab_size)
    chosen = [each for each in DOCUMENTS if each.split == split]
    assert len(stream) == len(chosen) and stream.starts[0] == 0 and stream.starts[-1] == len(stream.ids)
    for index, each in enumerate(chosen):
        assert tokenizer.decode(stream.document(index).tolist()) == each.text
        assert stream.ids[stream.starts[index + 1] - 1] == tokenizer.end_of_text
    assert (stream.ids == tokenizer.end_of_text).sum() == len(chosen)
    assert stream.sources == [each.source for each in chosen]
    assert stream.kinds == [each.kind for each in chosen]
    assert stream.bytes.tolist() == [each.bytes for each in chosen]


def test_the_counts(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    metrics = write_shards(DOCUMENTS, tokenizer, tmp_path)
    for split in ("train", "heldout"):
        chosen = [each for each in DOCUMENTS if each.split == split]
        assert metrics[f"{split}_bytes"] == sum(each.bytes for each in chosen)
        assert metrics[f"{split}_tokens"] == sum(len(tokenizer.encode(each.text)) + 1 for each in chosen)
    assert metrics["bytes_per_token"] == pytest.approx(metrics["train_bytes"] / metrics["train_tokens"], abs=1e-3)


def test_more_documents_than_a_batch_keep_their_order(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    many = [document(number, f"number {number}") for number in range(600)]
    write_shards(many, tokenizer, tmp_path)
    stream = read_shards(tmp_path, "train", tokenizer.vocab_size)
    for index in (0, 255, 256, 511, 599):
        assert tokenizer.decode(stream.document(index).tolist()) == f"number {index}"


def test_no_held_out_documents(tmp_path: Path) -> None:
    write_shards(DOCUMENTS[:1], tiny.tokenizer(), tmp_path)
    stream = read_shards(tmp_path, "heldout", tiny.tokenizer().vocab_size)
    assert len(stream) == 0 and len(stream.ids) == 0


class Large:
    """A tokenizer with ids that need more than 16 bits."""

    vocab_size, end_of_text, prefix = 70_000, 69_999, (69_999,)

    def encode_batch(self, texts: list[str], threads: int) -> list[list[int]]:
        return [[65_535, 65_536, ord(text[0])] for text in texts]


def test_a_large_vocabulary_takes_32_bits(tmp_path: Path) -> None:
    assert token_dtype(1 << 16) is np.uint16 and token_dtype((1 << 16) + 1) is np.uint32
    metrics = write_shards([document(0, "A")], cast(Tokenizer, Large()), tmp_path)
    stream = read_shards(tmp_path, "train", Large.vocab_size)
    assert stream.ids.tolist() == [65_535, 65_536, 65, 69_999]
    assert metrics["dtype"] == "uint32"


def test_documents_keep_their_ids(tmp_path: Path) -> None:
    write_shards(DOCUMENTS, tiny.tokenizer(), tmp_path)
    stream = read_shards(tmp_path, "train", tiny.tokenizer().vocab_size)
    assert stream.sha256 == [each.sha256 for each in DOCUMENTS if each.split == "train"]


@pytest.mark.parametrize(("name", "beginning"), [("llama3", "<|begin_of_text|>"), ("gpt2", None), ("qwen", None)])
def test_documents_begin_as_the_tokenizer_has_it(tmp_path: Path, name: str, beginning: str | None) -> None:
    tokenizer = load_tokenizer(foreign_tokenizers.write(tmp_path / "tokenizer", name))
    metrics = write_shards(DOCUMENTS, tokenizer, tmp_path)
    stream = read_shards(tmp_path, "train", tokenizer.vocab_size)
    before = [] if beginning is None else [tokenizer.special[beginning]]
    for index, each in enumerate(each for each in DOCUMENTS if each.split == "train"):
        assert stream.document(index).tolist() == [*before, *tokenizer.encode(each.text)]
        assert stream.ids[stream.starts[index + 1] - 1] == tokenizer.end_of_text
    assert metrics["train_tokens"] == stream.starts[-1] == len(stream.ids)


def test_training_documents_are_rearranged_and_held_out_ones_are_not(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(tiny.CORPUS * 2, 400, FILL_IN_THE_MIDDLE)
    fim = FillInTheMiddle(1.0)
    metrics = write_shards(DOCUMENTS, tokenizer, tmp_path, fim=fim)
    train = read_shards(tmp_path, "train", tokenizer.vocab_size)
    chosen = [each for each in DOCUMENTS if each.split == "train"]
    assert [train.document(n).tolist() for n in range(len(train))] == [fim.encode(each, tokenizer) for each in chosen]
    heldout = read_shards(tmp_path, "heldout", tokenizer.vocab_size)
    assert tokenizer.decode(heldout.document(0).tolist()) == DOCUMENTS[1].text
    assert metrics["rearranged"] == len(chosen)
