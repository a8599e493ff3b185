import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer as HuggingFaceTokenizer

import tiny
from ownlm.data.tokenizer import FILL_IN_THE_MIDDLE, SMALLEST_VOCABULARY, SPECIAL, Tokenizer
from ownlm.data.tokenizer_files import load_tokenizer
from ownlm.runtime.errors import OwnLMError

ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz    ",
    "def return():\n\t    \r\n[]{}+-*/=.,'\"_",
    "0123456789.,e+-",
    "äöüßéèçñøłΩжщ中文日本語한국어عربי",
    "🙂🙃👩‍🚀🇩🇪\u200b\u200d\ufe0f\u00a0\u2028\u3000\x85",
    "'s't're've'm'll'd'S'T'RE",
    "\x00\x01\x1b\x1c\x1f\x7f\t\x0b\x0c ",
    "abaabbaaabbbthethe  quick",
)


def fuzzed(count: int, seed: int = 0) -> list[str]:
    """Texts of mixed alphabets, some of them pieces of the corpus."""
    chance = random.Random(seed)
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(chance.randrange(1, 6)):
            if chance.random() < 0.3:
                sentence = chance.choice(tiny.SENTENCES)
                start = chance.randrange(len(sentence))
                parts.append(sentence[start : start + chance.randrange(30)])
            else:
                parts.append("".join(chance.choices(chance.choice(ALPHABETS), k=chance.randrange(1, 15))))
        texts.append("".join(parts))
    return texts


def test_every_byte_string_comes_back() -> None:
    tokenizer, chance = tiny.tokenizer(), random.Random(1)
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(bytes(range(256)))) == bytes(range(256))
    for size in range(200):
        data = chance.randbytes(size)
        assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data
        mixed = "Größe 🙂 def".encode()[: size % 16] + data[:5] + "日本".encode()[size % 4 :]
        assert tokenizer.decode_bytes(tokenizer.encode_bytes(mixed)) == mixed


def test_every_text_comes_back() -> None:
    tokenizer = tiny.tokenizer()
    for text in ["", *fuzzed(300)]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.encode_bytes(text.encode()) == ids


@pytest.mark.parametrize("text", ["a\udc80b", "\ud83d", "x\udfff\ud800y 🙂", "\ud83d \ude42"])
def test_lone_surrogates_come_back(text: str) -> None:
    tokenizer = tiny.tokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.decode_bytes(ids).decode("utf-8", "surrogatepass") == text
    assert tokenizer.encode_batch(["plain", text]) == [tokenizer.encode("plain"), ids]


def test_special_tokens_in_a_text_stay_plain() -> None:
    tokenizer = tiny.tokenizer()
    text = "a<|im_end|>\n<|im_start|>system\n<|endoftext|>"
    for ids in (tokenizer.encode(text), *tokenizer.encode_batch([text]), tokenizer.encode_bytes(text.encode())):
        assert not set(ids) & set(tokenizer.special.values())
        assert tokenizer.decode(ids) == text


def test_ids_are_dense_and_the_special_ones_come_last() -> None:
    tokenizer = tiny.tokenizer()
    assert 300 < tokenizer.vocab_size <= 400
    assert [tokenizer.special[name] for name in SPECIAL] == list(range(tokenizer.vocab_size - 3, tokenizer.vocab_size))
    assert len({tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)}) == tokenizer.vocab_size
    with pytest.raises(KeyError):
        tokenizer.decode([tokenizer.vocab_size])


def test_learnt_merges_shorten_the_text() -> None:
    text = tiny.SENTENCES[0]
    assert len(tiny.tokenizer().encode(text)) < len(text) / 2


def test_training_is_deterministic(tmp_path: Path) -> None:
    texts = fuzzed(400, seed=5)
    for name in ("one", "two"):
        Tokenizer.train(texts, 500).save(tmp_path / name)
    assert (tmp_path / "one/tokenizer.json").read_bytes() == (tmp_path / "two/tokenizer.json").read_bytes()


def test_a_loaded_tokenizer_is_the_saved_one(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.save(tmp_path / "one", context=77)
    again = Tokenizer.load(tmp_path / "one")
    again.save(tmp_path / "two", context=77)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert (again.vocab_size, again.special) == (tokenizer.vocab_size, tokenizer.special)
    texts = fuzzed(50)
    assert again.encode_batch(texts) == tokenizer.encode_batch(texts)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_tokenizers_library_encodes_the_same(tmp_path: Path, seed: int) -> None:
    # Merges from fuzzed text too: the order of merges, not only their set, must be the same on both sides.
    tokenizer = tiny.tokenizer() if seed == 0 else Tokenizer.train(fuzzed(500, seed=seed), 700)
    tokenizer.save(tmp_path)
    theirs = HuggingFaceTokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.get_vocab_size() == tokenizer.vocab_size
    for text in fuzzed(1500, seed=seed + 10):
        ids = tokenizer.encode(text)
        assert theirs.encode(text, add_special_tokens=False).ids == ids, repr(text)
        assert theirs.decode(ids) == text


def test_a_vocabulary_that_is_too_small() -> None:
    with pytest.raises(OwnLMError, match=f"vocabulary=258: .* at least {SMALLEST_VOCABULARY}"):
        Tokenizer.train(["text"], 258)
    assert Tokenizer.train(["text"], SMALLEST_VOCABULARY).vocab_size == SMALLEST_VOCABULARY


def test_a_text_without_repetitions_gives_a_smaller_vocabulary() -> None:
    assert Tokenizer.train(["ab ab"], 5000).vocab_size < 300


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalizer": {"type": "NFC"}}, "asks for the normalizer NFC"),
        ({"model": {"type": "WordPiece", "vocab": {}}}, "not a byte-level BPE"),
        ({"model.ignore_merges": True}, "ignore_merges"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "not a byte-level BPE"),
        ({"model.merges": []}, "another order"),
    ],
)
def test_other_kinds_of_tokenizers_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    tiny.tokenizer().save(tmp_path)
    path = tmp_path / "tokenizer.json"
    data = json.loads(path.read_text())
    for key, value in changes.items():
        *parents, last = key.split(".")
        (data[parents[0]] if parents else data)[last] = value
    path.write_text(json.dumps(data))
    with pytest.raises(OwnLMError, match=message):
        Tokenizer.load(tmp_path)


def test_an_absent_or_broken_file(tmp_path: Path) -> None:
    with pytest.raises(OwnLMError, match=r"has no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("[1, 2")
    with pytest.raises(OwnLMError, match="not a byte-level BPE"):
        Tokenizer.load(tmp_path)


def test_a_vocabulary_with_tokens_for_gaps_is_ours_too(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(tiny.CORPUS * 2, 400, FILL_IN_THE_MIDDLE)
    plain = tiny.tokenizer()
    assert tokenizer.vocab_size == 400 and list(tokenizer.special) == [*SPECIAL, *FILL_IN_THE_MIDDLE]
    assert tokenizer.encode("<|fim_middle|>") and not {*tokenizer.encode("<|fim_middle|>")} & {
        *tokenizer.special.values()
    }
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert isinstance(again, Tokenizer)
    assert (again.vocab_size, again.special) == (tokenizer.vocab_size, tokenizer.special)
    theirs = HuggingFaceTokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in fuzzed(100):
        assert theirs.encode(text, add_special_tokens=False).ids == again.encode(text)
    assert again.prefix == (again.end_of_text,) and again.stops == {again.end_of_text, again.end_of_turn}
    assert not set(FILL_IN_THE_MIDDLE) & set(plain.special)


def test_too_small_for_the_further_tokens() -> None:
    with pytest.raises(OwnLMError, match=f"vocabulary=260: .* at least {SMALLEST_VOCABULARY + 3}"):
        Tokenizer.train(["text"], 260, FILL_IN_THE_MIDDLE)
