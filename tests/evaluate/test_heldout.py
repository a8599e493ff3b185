import json
from pathlib import Path

import numpy as np
import pytest

from evaluate.fakes import Bytes, FromNgram
from ownlm.data.document import Document
from ownlm.data.message import TextPart
from ownlm.evaluate.compression import join, start_primed
from ownlm.evaluate.heldout import run_heldout
from ownlm.evaluate.ngram import NgramModel
from ownlm.evaluate.suite import read_suite
from ownlm.runtime.progress import Screen


def document(i: int, kind: str) -> Document:
    text = "".join(f"value_{j % 7} = compute({j % 5}, {i})\n" for j in range(40))
    return Document(f"d{i}", "g", "MIT", kind, "py", (TextPart(text),))


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return [document(i, "code" if i % 3 else "prose") for i in range(12)]


def test_everything_is_measured_and_written(
    documents: list[Document], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, heldout = documents[:9], documents[9:]
    tokenizer = Bytes()
    stream = np.array([token for each in train for token in (0, *tokenizer.encode(each.text))])
    ngram = NgramModel.train(stream, 257, 4, 0)
    suite = tmp_path / "s.yaml"
    suite.write_text("cases: [{prompt: value_, score: {min_characters: 1}}]\nsampling: {logprobs: 2, max_tokens: 4}\n")
    result = run_heldout(
        model=FromNgram(ngram),
        ngram=ngram,
        tokenizer=tokenizer,
        train=train,
        heldout=heldout,
        xz=start_primed(join(train), join(heldout)),
        suite=read_suite(suite),
        excerpts=2,
        characters=80,
        screen=Screen(),
    )
    result.write(tmp_path)
    data = json.loads((tmp_path / "results.json").read_text())
    bits = data["bits_per_byte"]
    assert bits["model"]["value"] == pytest.approx(bits["ngram"]["value"] + 0.1)
    assert bits["model_minus_ngram"]["low"] == pytest.approx(0.1)
    assert 0 < bits["xz_primed"] < bits["xz_cold"] and bits["ngram_order"] == 4
    assert set(data["by_kind"]) == {"code", "prose"}
    assert data["keystrokes"]["model"]["n"] == 2 and data["keystrokes"]["words"]["value"] >= 0
    assert data["keystrokes"]["model"]["characters"] == 160
    assert data["suite"]["pass_rate"]["value"] == 1 and (tmp_path / "samples.jsonl").read_text().count("\n") == 1
    assert len(data["notes"]) == 5
    assert capsys.readouterr().out.count("\n") == 4


def test_parts_can_be_left_out(documents: list[Document]) -> None:
    tokenizer = Bytes()
    ngram = NgramModel.train(np.array([0, *tokenizer.encode(documents[0].text)]), 257, 2, 0)
    result = run_heldout(
        model=FromNgram(ngram), ngram=ngram, tokenizer=tokenizer, train=[], heldout=documents[1:3], excerpts=0
    )
    data = result.to_json()
    assert data["keystrokes"] is None and data["suite"] is None and data["bits_per_byte"]["xz_cold"] is None
