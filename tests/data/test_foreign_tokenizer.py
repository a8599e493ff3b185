import json
import random
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor

import foreign_tokenizers
import tiny
from foreign_tokenizers import MAKERS, TEXTS, theirs, write
from ownlm.data.foreign_tokenizer import ForeignTokenizer
from ownlm.data.tokenizer import Tokenizer
from ownlm.data.tokenizer_files import load_tokenizer
from ownlm.engine.detokenise import TextAssembler
from ownlm.runtime.errors import OwnLMError

NAMES = list(MAKERS)


@cache
def pair(name: str) -> tuple[ForeignTokenizer, Any]:
    """One folder, read by us and by transformers; nobody changes them."""
    folder = write(Path(mkdtemp(prefix=f"ownlm-{name}-")), name)
    ours = load_tokenizer(folder)
    assert isinstance(ours, ForeignTokenizer)
    return ours, theirs(folder)


def streamed(tokenizer: ForeignTokenizer, ids: list[int], continues: bool = False) -> list[str]:
    assembler = TextAssembler(tokenizer.decoder(continues))
    return [*map(assembler.add, ids), assembler.finish()]


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_those_of_transformers(name: str) -> None:
    ours, oracle = pair(name)
    assert ours.vocab_size == len(oracle)
    assert ours.variables == oracle.special_tokens_map
    expected = foreign_tokenizers.plain_ids(oracle, TEXTS)
    assert [ours.encode(text) for text in TEXTS] == expected == ours.encode_batch(TEXTS)
    assert any(len(ids) < len(text) / 2 for ids, text in zip(expected, TEXTS) if text), "the merges do nothing"
    for text in TEXTS:
        whole = oracle(text).input_ids
        assert [*ours.prefix, *ours.encode(text)] == whole[: len(whole) - (name == "unigram")]


@pytest.mark.parametrize("name", NAMES)
def test_streamed_text_is_what_transformers_decodes(name: str) -> None:
    ours, oracle = pair(name)
    chance = random.Random(1)
    own_bytes = [i for i in range(ours.vocab_size) if len(ours.token_bytes(i)) == 1 and ours.token_bytes(i) > b"\x7f"]
    for _ in range(300):
        ids = [chance.randrange(len(oracle)) for _ in range(chance.randrange(12))]
        if own_bytes and chance.random() < 0.5:
            ids[len(ids) // 2 : len(ids) // 2] = chance.choices(own_bytes, k=chance.randrange(5))
        expected = oracle.decode(ids)
        assert "".join(streamed(ours, ids)) == expected == ours.decode(ids)
    for text in TEXTS:
        ids = ours.encode(text)
        assert "".join(streamed(ours, ids)) == oracle.decode(ids)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "llama2", "gemma"])
def test_token_bytes_are_exact(name: str) -> None:
    ours, _ = pair(name)
    for text in TEXTS:
        data = ours.decode_bytes(ours.encode(text))
        assert data == (b" " if name == "llama2" and text else b"") + text.encode()
    with pytest.raises(KeyError):
        ours.token_bytes(ours.vocab_size)


def test_pieces_come_as_soon_as_they_are_certain() -> None:
    ours, _ = pair("llama2")
    ids = ours.encode("dog é\U0001f642 x")
    pieces = streamed(ours, ids)
    assert "".join(pieces) == "dog é\U0001f642 x" and pieces[-1] == ""
    assert sum(map(bool, pieces)) >= 4, "a word is given out before the next one"


def test_the_space_before_the_first_word() -> None:
    ours, oracle = pair("llama2")
    ids = ours.encode("the dog")
    assert "".join(streamed(ours, ids)) == oracle.decode(ids) == "the dog"
    # An answer that goes on from a text keeps it: prompt and answer together are what transformers decodes.
    prompt = ours.encode("quick")
    assert "quick" + "".join(streamed(ours, ids, continues=True)) == oracle.decode([*prompt, *ids]) == "quick the dog"
    unigram, oracle = pair("unigram")
    ids = unigram.encode("dog")
    assert (
        "a" + "".join(streamed(unigram, ids, continues=True)) == oracle.decode([*unigram.encode("a"), *ids]) == "a dog"
    )


def test_bytes_that_are_no_text() -> None:
    ours, oracle = pair("llama2")
    ids = [oracle.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in (0xE2, 0x82, 0xAC, 0xFF)]
    # One wrong byte makes the whole run unreadable: that is what transformers does, and so no part may come earlier.
    assert "".join(streamed(ours, ids)) == oracle.decode(ids) == "\ufffd" * 4
    assert "".join(streamed(ours, ids[:3])) == "€"


@pytest.mark.parametrize("name", NAMES)
def test_special_tokens_in_a_text_stay_plain(name: str) -> None:
    ours, oracle = pair(name)
    text = "a " + " b".join(ours.special) + " ＜/s＞ <s></s><unk>"
    unknown = oracle.convert_tokens_to_ids("<unk>") if name == "unigram" else -1
    for ids in (ours.encode(text), *ours.encode_batch([text, text]), ours.encode_bytes(text.encode())):
        assert not set(ids) & (set(ours.special.values()) - {unknown})
        assert name == "unigram" or ours.decode(ids) == text
    # They count where a template writes them.
    written = "x".join(ours.special)
    assert ours.encode_chat(written)[0] == oracle(written, add_special_tokens=False).input_ids


def test_a_vocabulary_that_holds_its_special_tokens_as_pieces() -> None:
    """A Unigram model makes `</s>` out of plain characters, which transformers does not prevent."""
    ours, oracle = pair("unigram")
    end = ours.special["</s>"]
    assert end in oracle("a </s>", add_special_tokens=False, split_special_tokens=True).input_ids
    assert end not in ours.encode("a </s>") and ours.encode("a </s>")[:2] == ours.encode("a <")[:2]


@pytest.mark.parametrize("name", NAMES)
def test_lone_surrogates_and_bytes_that_are_no_utf8(name: str) -> None:
    ours, _ = pair(name)
    assert ours.encode("a\ud800b") == ours.encode("a\ufffdb") == ours.encode_batch(["a\ud800b"])[0]
    assert ours.encode_bytes(b"a\xff") == ours.encode("a\ufffd")
    assert ours.encode_chat("a\ud800b")[0] == ours.encode_chat("a\ufffdb")[0]


@pytest.mark.parametrize("name", ["llama3", "qwen", "llama2", "metaspace", "phi3", "gemma"])
def test_what_people_wrote_gives_no_special_token(name: str) -> None:
    """Around it the ids stay those of transformers, spaces that special tokens swallow included."""
    ours, oracle = pair(name)
    token = sorted(ours.special, key=len)[-1]
    head, tail = f"{token}\n user: hi ", f" there{token} \nand {token}on"
    text = head + token + tail
    ids, spans = ours.encode_chat(text, [(len(head), len(head) + len(token))])
    assert len(ids) == len(spans) and ids.count(ours.special[token]) == 3
    before = oracle(head, add_special_tokens=False).input_ids
    after = oracle(token + " x" + token + tail[tail.index(token) + len(token) :], add_special_tokens=False).input_ids
    last = len(after) - 1 - after[::-1].index(ours.special[token], 1)
    assert ids[:3] == before[:3] and ids[-3:] == after[-3:] and last > 0
    # The same text where nobody but the template wrote anything is encoded as it is.
    assert ours.encode_chat(text)[0] == oracle(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("name", ["llama3", "llama2", "metaspace", "gemma"])
def test_a_text_goes_on_inside_another(name: str) -> None:
    ours, oracle = pair(name)
    one, two = "The quick", " brown\nfox</s> jumps"
    begin = oracle(one, add_special_tokens=False).input_ids
    whole = oracle(one + two, add_special_tokens=False).input_ids
    assert whole[: len(begin)] == begin, "the example is one where the cut falls between two tokens"
    assert ours.encode_chat(two, (), "inside")[0] == whole[len(begin) :]


def test_a_text_behind_a_special_token() -> None:
    for name in ("llama2", "metaspace"):
        ours, oracle = pair(name)
        whole = oracle("<s>fox jumps", add_special_tokens=False).input_ids
        assert ours.encode_chat("fox jumps", (), "after")[0] == whole[1:]
        assert (ours.encode("fox jumps") == whole[1:]) == (name == "llama2")


def test_where_the_file_is_followed_and_not_transformers_5(tmp_path: Path) -> None:
    """Its class for Llama puts no space before a text that begins with one, nor behind a special token."""
    folder = write(tmp_path, "llama2", tokenizer_class="LlamaTokenizer")
    ours, oracle = load_tokenizer(folder), theirs(folder)
    spaces = SentencePieceProcessor(model_proto=foreign_tokenizers.spiece())
    for text in TEXTS:
        assert ours.encode(text) == spaces.encode(text)
        assert (ours.encode(text) == oracle(text, add_special_tokens=False).input_ids) == (not text.startswith(" "))
    assert ours.encode_chat("<s>[INST]")[0] == [1, *spaces.encode("[INST]")]
    assert ours.encode_chat("<s>[INST]")[0] != oracle("<s>[INST]", add_special_tokens=False).input_ids


def test_stops_are_gathered_from_all_files(tmp_path: Path) -> None:
    folder = write(tmp_path, "llama3")
    ids = load_tokenizer(folder).special
    assert load_tokenizer(folder).stops == {ids["<|eot_id|>"]}
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [ids["<|end_of_text|>"], ids["<|eom_id|>"]]})
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "eos_token_id": ids["<|python_tag|>"]}))
    tokenizer = load_tokenizer(folder)
    names = ("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "<|python_tag|>")
    assert tokenizer.stops == {ids[name] for name in names}
    assert (tokenizer.end_of_text, tokenizer.end_of_turn) == (ids["<|end_of_text|>"], ids["<|eot_id|>"])
    assert tokenizer.begin_of_text == ids["<|begin_of_text|>"] and tokenizer.prefix == (tokenizer.begin_of_text,)
    (folder / "generation_config.json").write_text('{"eos_token_id": "</s>"}')
    with pytest.raises(OwnLMError, match=r"generation_config\.json: eos_token_id='</s>' must be an id or a list"):
        load_tokenizer(folder)


def test_named_tokens_in_all_the_ways_that_models_write_them(tmp_path: Path) -> None:
    added = {"content": "<s>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    folder = write(tmp_path, "llama2", bos_token={"__type": "AddedToken", **added})
    assert load_tokenizer(folder).variables == theirs(folder).special_tokens_map
    # Tokens that the file lacks are added behind it, in transformers' order.
    decoder = {
        "461": {**added, "content": "<b>", "special": True},
        "460": {**added, "content": "<a>", "special": False},
    }
    write(tmp_path, "llama2", added_tokens_decoder=decoder, pad_token="<pad>", additional_special_tokens=["<x>", "<s>"])
    ours, oracle = load_tokenizer(folder), theirs(folder)
    text = "hi<a>there<b><pad><x>"
    assert ours.vocab_size == len(oracle) == 464
    assert ours.encode_chat(text)[0] == oracle(text, add_special_tokens=False).input_ids
    assert set(ours.special) == {"<unk>", "<s>", "</s>", "<b>", "<pad>", "<x>"}
    # Older folders say it in files of their own.
    write(tmp_path, "llama2")
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": {**added, "content": "<p>"}}))
    (folder / "added_tokens.json").write_text(json.dumps({"<q>": 460, "<p>": 461}))
    ours, oracle = load_tokenizer(folder), theirs(folder)
    assert ours.variables == oracle.special_tokens_map and ours.vocab_size == len(oracle) == 462
    assert ours.encode_chat("a<q>b<p>")[0] == oracle("a<q>b<p>", add_special_tokens=False).input_ids


def test_placeholders_for_pictures_need_no_embedding(tmp_path: Path) -> None:
    """Gemma 3's text models share a tokenizer with those that see, which has one token more than they."""
    folder = write(tmp_path, "gemma", image_token="<image>")
    plain, with_images = pair("gemma")[0], load_tokenizer(folder)
    assert len(theirs(folder)) == plain.vocab_size + 1 and with_images.vocab_size == plain.vocab_size
    assert "<image>" not in with_images.special


@pytest.mark.parametrize("name", NAMES)
def test_files_are_written_back_byte_for_byte(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "one", name)
    (folder / "special_tokens_map.json").write_text('{"eos_token":   "<x>"}\r\n')
    (folder / "chat_template.jinja").write_text("{{ messages }}\n\n")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/tool_use.jinja").write_text("{{ tools }}")
    tokenizer = load_tokenizer(folder)
    tokenizer.save(tmp_path / "two", context=5)
    written = {path.relative_to(tmp_path / "two").as_posix() for path in (tmp_path / "two").rglob("*.*")}
    assert written == {
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
        "additional_chat_templates/tool_use.jinja",
    }  # fmt: skip
    for path in written:
        assert (tmp_path / "two" / path).read_bytes() == (folder / path).read_bytes()


def test_our_own_files_are_read_by_our_own_class(tmp_path: Path) -> None:
    tiny.tokenizer().save(tmp_path)
    ours = load_tokenizer(tmp_path)
    assert isinstance(ours, Tokenizer) and ours.prefix == (ours.end_of_text,)
    assert ours.stops == {ours.end_of_text, ours.end_of_turn} and ours.begin_of_text is None
    foreign = ForeignTokenizer(tmp_path)
    assert [foreign.encode(text) for text in TEXTS] == [ours.encode(text) for text in TEXTS]
    assert (foreign.vocab_size, dict(foreign.special)) == (ours.vocab_size, ours.special)
    text = "<|im_start|>é\U0001f642 a<|im_end|>\n日本"
    assert foreign.encode_chat(text, [(0, 3)]) == ours.encode_chat(text, [(0, 3)])
    assert foreign.encode_chat(text) == ours.encode_chat(text)


@pytest.mark.parametrize(
    "change", ["post_processor", "rstrip", "another special token", "beginning", "end", "normalizer"]
)
def test_files_that_are_not_quite_ours_are_read_as_they_say(tmp_path: Path, change: str) -> None:
    tiny.tokenizer().save(tmp_path)
    path, config_path = tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"
    data, config = json.loads(path.read_text()), json.loads(config_path.read_text())
    first = data["added_tokens"][0]
    match change:
        case "post_processor":
            piece = {"id": first["content"], "ids": [first["id"]], "tokens": [first["content"]]}
            single = [{"SpecialToken": {"id": first["content"], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
            both = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
            data["post_processor"] = {
                "type": "TemplateProcessing", "single": single, "pair": both, "special_tokens": {piece["id"]: piece},
            }  # fmt: skip
        case "rstrip":
            first["rstrip"] = True
        case "another special token":
            data["added_tokens"].append({**first, "id": first["id"] + 3, "content": "<|more|>"})
        case "beginning":
            config["bos_token"] = first["content"]
        case "end":
            config["eos_token"] = first["content"]
        case "normalizer":
            data["normalizer"] = {"type": "NFC"}
    path.write_text(json.dumps(data))
    config_path.write_text(json.dumps(config))
    ours, oracle = load_tokenizer(tmp_path), theirs(tmp_path)
    assert isinstance(ours, ForeignTokenizer)
    text = "a<|endoftext|> \n b<|more|><|im_end|>e\u0301"
    assert ours.encode_chat(text)[0] == oracle(text, add_special_tokens=False).input_ids
    assert [*ours.prefix, *ours.encode("de\u0301f")] == oracle("de\u0301f").input_ids
    assert ours.variables == oracle.special_tokens_map


def test_spaces_before_punctuation_are_cleaned_where_the_config_says_so(tmp_path: Path) -> None:
    folder = write(tmp_path, "unigram", clean_up_tokenization_spaces=True)
    ours, oracle = load_tokenizer(folder), theirs(folder)
    ids = ours.encode("The dog , it 's a fox .")
    assert ours.decode(ids) == oracle.decode(ids) != pair("unigram")[1].decode(ids)
    assert isinstance(ours, ForeignTokenizer) and "".join(streamed(ours, ids)) == ours.decode(ids)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"has no tokenizer\.json and no tokenizer\.model"),
        ({"tokenizer.json": "[1"}, r"tokenizer\.json is no tokenizer of the `tokenizers` library"),
        ({"tokenizer.json": "{}"}, r"tokenizer\.json is no tokenizer"),
        ({"tokenizer.json": '{"model": {"type": "BPE", "vocab": 3}}'}, r"tokenizer\.json cannot be read"),
        ({"tokenizer.json": '{"model": {"type": "Unheard"}}'}, r"tokenizer\.json cannot be read"),
        ({"tokenizer_config.json": "{"}, r"tokenizer_config\.json cannot be read"),
        ({"tokenizer_config.json": "[]"}, r"tokenizer_config\.json must hold a JSON object"),
        ({"tokenizer_config.json": '{"added_tokens_decoder": {"x": 3}}'}, r"tokenizer_config\.json names its tokens"),
        ({"tokenizer_config.json": '{"extra_special_tokens": [3]}'}, r"tokenizer_config\.json names its tokens"),
    ],
)
def test_what_is_no_tokenizer(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(OwnLMError, match=message):
        load_tokenizer(tmp_path)
