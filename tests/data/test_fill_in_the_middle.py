"""Rearranged documents: nothing lost, both orders, and a pure function of the document."""

from pathlib import Path

import pytest

import foreign_tokenizers
import tiny
from ownlm.data.document import Document
from ownlm.data.fill_in_the_middle import FillInTheMiddle, fim_ids
from ownlm.data.message import TextPart
from ownlm.data.tokenizer import FILL_IN_THE_MIDDLE, Tokenizer
from ownlm.data.tokenizer_files import load_tokenizer
from ownlm.data.tokenizer_protocol import AnyTokenizer
from ownlm.runtime.errors import OwnLMError

TOKENIZER = Tokenizer.train(tiny.CORPUS * 2, 400, FILL_IN_THE_MIDDLE)


def document(number: int, text: str) -> Document:
    return Document(f"notes:{number}.md", "notes", "MIT", "prose", "md", (TextPart(text),))


DOCUMENTS = [document(n, f"{n}: {tiny.SENTENCES[n % len(tiny.SENTENCES)]}") for n in range(400)]


def put_back(ids: list[int], tokenizer: AnyTokenizer) -> tuple[str, str]:
    """The text that a rearranged document was made from, and its order."""
    before, after, between = fim_ids(tokenizer)
    assert ids[0] == before and ids.count(before) == ids.count(after) == ids.count(between) == 1
    rest = ids[1:]
    if rest[0] == after:
        suffix, _, start = split(rest[1:], between)
        return tokenizer.decode(start) + tokenizer.decode(suffix), "SPM"
    prefix, _, rest = split(rest, after)
    suffix, _, middle = split(rest, between)
    return tokenizer.decode_bytes([*prefix, *middle, *suffix]).decode(), "PSM"


def split(ids: list[int], at: int) -> tuple[list[int], int, list[int]]:
    place = ids.index(at)
    return ids[:place], at, ids[place + 1 :]


def test_nothing_is_lost_and_both_orders_come_up() -> None:
    fim = FillInTheMiddle(1.0)
    orders = []
    for each in DOCUMENTS:
        ids = fim.encode(each, TOKENIZER)
        assert ids is not None
        text, order = put_back(ids, TOKENIZER)
        assert text == each.text
        orders.append(order)
    assert 150 < orders.count("PSM") < 250


def test_the_cuts_are_at_characters_and_all_over_the_text() -> None:
    fim = FillInTheMiddle(1.0)
    cuts = [found for each in DOCUMENTS if (found := fim.cut(each))]
    shares = [len(prefix) / len(prefix + middle + suffix) for prefix, middle, suffix, _ in cuts]
    assert min(shares) < 0.02 and max(shares) > 0.9
    # Two uniform places: the middle is a third of the text on average.
    assert sum(len(c[1]) / len(c[0] + c[1] + c[2]) for c in cuts) / len(cuts) == pytest.approx(1 / 3, abs=0.05)
    for each, (prefix, middle, suffix, _) in zip(DOCUMENTS, cuts, strict=True):
        assert prefix + middle + suffix == each.text


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_the_share_of_rearranged_documents(rate: float) -> None:
    found = sum(FillInTheMiddle(rate).encode(each, TOKENIZER) is not None for each in DOCUMENTS)
    assert found / len(DOCUMENTS) == pytest.approx(rate, abs=0.06)


def test_it_depends_on_the_document_and_the_seed_alone() -> None:
    fim = FillInTheMiddle(0.5, seed=3)
    first = [fim.encode(each, TOKENIZER) for each in DOCUMENTS[:50]]
    again = [FillInTheMiddle(0.5, seed=3).encode(each, TOKENIZER) for each in reversed(DOCUMENTS[:50])]
    assert first == again[::-1]
    assert first != [FillInTheMiddle(0.5, seed=4).encode(each, TOKENIZER) for each in DOCUMENTS[:50]]


def test_an_empty_document_and_one_that_names_the_tokens() -> None:
    fim = FillInTheMiddle(1.0)
    before, after, between = fim_ids(TOKENIZER)
    assert fim.encode(document(0, ""), TOKENIZER) == [before, after, between]
    named = document(1, "<|fim_prefix|> is plain here, and <|fim_middle|> too")
    ids = fim.encode(named, TOKENIZER)
    assert ids is not None and put_back(ids, TOKENIZER)[0] == named.text


@pytest.mark.parametrize("marked", [True, False])
def test_another_models_tokens(tmp_path: Path, marked: bool) -> None:
    """Some models do not mark theirs as special."""
    from tokenizers import AddedToken

    made, _, _ = foreign_tokenizers.MAKERS["qwen"]()
    made.add_tokens([AddedToken(text, normalized=False, special=marked) for text in FILL_IN_THE_MIDDLE])
    folder = foreign_tokenizers.write(tmp_path, "qwen")
    made.save(str(folder / "tokenizer.json"))
    tokenizer = load_tokenizer(folder)
    assert [tokenizer.decode([each]) for each in fim_ids(tokenizer)] == list(FILL_IN_THE_MIDDLE)
    for each in DOCUMENTS[:25]:
        if each.text.isascii():
            ids = FillInTheMiddle(1.0).encode(each, tokenizer)
            assert ids is not None and put_back(ids, tokenizer)[0] == each.text


def test_a_vocabulary_without_them() -> None:
    with pytest.raises(OwnLMError, match=r"The tokenizer has no <\|fim_prefix\|>, .* Leave --fim out"):
        FillInTheMiddle(1.0).encode(DOCUMENTS[0], tiny.tokenizer())


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_that_is_no_share(rate: float) -> None:
    with pytest.raises(OwnLMError, match=r"--fim .* between 0 and 1"):
        FillInTheMiddle(rate)
