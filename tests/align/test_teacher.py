"""Draws from a teacher: unbiased, from the right place in the right document, the same however they were made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tiny
from ownlm.align import teacher as teacher_module
from ownlm.align.teacher import DRAWS, Teacher, draw, draw_documents, read_draws, write_draws
from ownlm.data.shards import TokenStream

VOCABULARY = tiny.tokenizer().vocab_size
END = tiny.tokenizer().end_of_text
LENGTHS = (5, 0, 150, 64, 63, 1, 97)


def stream(lengths: tuple[int, ...] = LENGTHS, before: tuple[int, ...] = ()) -> TokenStream:
    """Documents of random tokens; the tiny decoder's context is 64."""
    documents = [np.array([*before, *tiny.random_ids(n, seed=i).tolist(), END]) for i, n in enumerate(lengths)]
    starts = np.cumsum([0, *map(len, documents)])
    names = [str(index) for index in range(len(lengths))]
    return TokenStream(np.concatenate(documents), starts, names, names, np.array(lengths), names)


def made(stream: TokenStream, given: int = 0, count: int = 4, **changes: object) -> NDArray[np.int64]:
    """All draws, written as `write_draws` does; -1 where nothing was drawn."""
    teacher = Teacher(tiny.decoder(**changes), VOCABULARY, END)
    found = np.full((len(stream.ids), count), -1)
    for begin, part in draw_documents(teacher, stream, given, range(len(stream)), count, 7):
        found[begin : begin + len(part)] = part
    return found


def test_draws_give_the_distribution_back() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.04, 0.01]).expand(20_000, -1)
    found = draw(probabilities, np.arange(20_000), 24, seed=1)
    shares = np.bincount(found.flatten(), minlength=5) / found.size
    # Two standard errors of independent draws would be 0.0014 for the largest.
    assert shares == pytest.approx(probabilities[0].numpy(), abs=0.0014)
    # Each row holds the likely ones as often as they should come, give or take one.
    counts = (found[:, :, None] == np.arange(5)).sum(1)
    assert np.abs(counts - 24 * probabilities[0].numpy()).max() <= 1 + 1e-4
    assert (counts[:, 4] == 1).mean() == pytest.approx(0.24, abs=0.015)


def test_draws_depend_on_the_place_and_the_seed() -> None:
    probabilities = torch.rand(6, 50, generator=torch.Generator().manual_seed(0)).softmax(-1)
    whole = draw(probabilities, np.arange(100, 106), 8, seed=1)
    assert np.array_equal(whole[2:4], draw(probabilities[2:4], np.arange(102, 104), 8, seed=1))
    assert not np.array_equal(whole, draw(probabilities, np.arange(100, 106), 8, seed=2))
    assert not np.array_equal(whole, draw(probabilities, np.arange(200, 206), 8, seed=1))


def test_sure_things_are_always_drawn() -> None:
    probabilities = torch.zeros(40, 9)
    probabilities[:, 8] = 1.0
    assert (draw(probabilities, np.arange(40), 24, 0) == 8).all()
    probabilities[:, 8] = 0.0
    probabilities[:, 0] = 1.0
    assert (draw(probabilities, np.arange(40), 24, 0) == 0).all()


def test_every_token_is_asked_for_in_its_own_document() -> None:
    """Against each document by itself, through the whole logits; what is drawn follows from them and the place."""
    tokens = stream((5, 0, 40, 64, 63, 1))
    decoder = tiny.decoder()
    found = made(tokens)
    for index in range(len(tokens)):
        begin, end = int(tokens.starts[index]), int(tokens.starts[index + 1])
        read = torch.tensor([END, *tokens.ids[begin : end - 1].tolist()])[None]
        probabilities = decoder(read)[0, -(end - begin) :].softmax(-1)
        low = end - begin > 64  # the last token of a text of 64 lies beyond the first window
        expected = draw(probabilities, np.arange(begin, end), 4, 7)
        size = 64 if low else end - begin
        assert (found[begin : begin + size] == expected[:size]).mean() > 0.995


def test_long_documents_are_read_in_windows_with_half_a_context_before_each_token() -> None:
    tokens = stream((150,))
    decoder, found = tiny.decoder(), made(tokens)
    assert (found >= 0).all()
    read = torch.tensor([END, *tokens.ids[:-1].tolist()])
    # Windows 0-64, 32-96, 64-128, 96-151: place 70 is asked with what stands from 32 on.
    for begin, places in ((0, range(64)), (32, range(64, 96)), (64, range(96, 128)), (96, range(128, 151))):
        window = decoder(read[None, begin : begin + 64])[0].softmax(-1)
        expected = draw(window[[place - begin for place in places]], np.array(places), 4, 7)
        assert (found[places.start : places.stop] == expected).mean() > 0.99


def test_the_token_that_begins_a_document_is_certain() -> None:
    begin = 7
    tokens = stream((5, 80, 1), before=(begin,))
    found = made(tokens, given=1)
    assert (found >= 0).all()
    for index in range(3):
        assert found[tokens.starts[index]].tolist() == [begin] * 4
    alone = stream((5,), before=(begin,))
    probabilities = tiny.decoder()(torch.from_numpy(alone.ids[:-1])[None])[0].softmax(-1)
    assert np.array_equal(found[1:7], draw(probabilities, np.arange(1, 7), 4, 7))


def test_padded_rows_of_an_embedding_are_never_drawn() -> None:
    tokens = stream((40,))
    assert made(tokens, vocabulary=VOCABULARY + 200).max() < VOCABULARY


def test_a_file_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_module, "_GROUP", 2)
    tokens = stream()
    teacher = Teacher(tiny.decoder(), VOCABULARY, END)
    places = {name: (tmp_path / name, tmp_path / f"{name}-state") for name in ("whole", "cut")}
    for each in places.values():
        for folder in each:
            folder.mkdir()
    seen: list[int] = []
    size = write_draws(teacher, tokens, 0, *places["whole"], 4, 7, seen.append)
    assert seen == tokens.starts[[2, 4, 6, 7]].tolist() and size == len(tokens.ids) * 4 * 2

    def stop(done: int) -> None:
        if done == tokens.starts[4]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_draws(teacher, tokens, 0, *places["cut"], 4, 7, stop)
    assert json.loads((places["cut"][1] / "drawn.json").read_text()) == 4
    again: list[int] = []
    write_draws(teacher, tokens, 0, *places["cut"], 4, 7, again.append)
    assert again == seen[2:]
    one, two = (read_draws(folder, len(tokens.ids), VOCABULARY) for folder, _ in places.values())
    assert one.shape == (len(tokens.ids), 4) and one.dtype == np.uint16
    assert np.array_equal(one, two) and np.array_equal(one, made(tokens))


def test_a_file_of_another_size_is_made_anew(tmp_path: Path) -> None:
    tokens = stream((30,))
    teacher = Teacher(tiny.decoder(), VOCABULARY, END)
    (tmp_path / "drawn.json").write_text("1")
    (tmp_path / DRAWS).write_bytes(bytes(10))
    write_draws(teacher, tokens, 0, tmp_path, tmp_path, 4, 7, lambda _: None)
    assert np.array_equal(read_draws(tmp_path, len(tokens.ids), VOCABULARY), made(tokens))
