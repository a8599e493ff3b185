import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from ownlm.data.message import Message
from ownlm.engine.open import open_folder
from ownlm.engine.request import SamplingParams
from ownlm.model.files import load_model, save_model
from ownlm.model.folder import WEIGHTS, read_config
from ownlm.model.rope import Rope
from ownlm.runtime.errors import OwnLMError

SHAPES = [
    pytest.param({}, id="grouped queries, tied"),
    pytest.param({"kv_heads": 2, "tied_embeddings": False, "rope": Rope(50_000.0)}, id="untied"),
    pytest.param({"heads": 4, "kv_heads": 2, "norm_eps": 1e-3, "context": 100}, id="other sizes"),
]
TEXTS = (
    "def f(x):\n        return x  ** 2\t# odd\n\n\n",
    "Größe, façade e\u0301 naïve — “quotes”",
    "🙂🙃 family: 👩‍👩‍👧 日本語",
    "line\r\nline\r\n\r\n  indented\r",
    "a" + " " * 37 + "b   \n   c 1234567 'll 'LL",
    "",
)
CONVERSATION = [
    Message.of("system", "Be brief."),
    Message.of("user", "What does  add  do?\n"),
    Message.of("assistant", "It adds: größer 🙂"),
    Message.of("user", "More."),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved tiny model."""
    save_model(tmp_path, tiny.decoder(), tiny.tokenizer())
    return tmp_path


@pytest.mark.parametrize("changes", SHAPES)
def test_transformers_computes_the_same(changes: dict[str, object], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    decoder = tiny.decoder(**changes)
    save_model(tmp_path, decoder, tiny.tokenizer())
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert sum(parameter.numel() for parameter in theirs.parameters()) == decoder.config.parameters

    ids = tiny.random_ids(2, 60)
    with torch.no_grad():
        expected, found = theirs(ids).logits, decoder(ids)
    assert float((found - expected).abs().max()) <= 1e-4 * float(expected.abs().max())

    # Greedy, 64 tokens, from the same plain ids; neither side may end early.
    model = open_folder(tmp_path, "tiny")
    their_tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    prompt = [model.tokenizer.end_of_text]
    length = min(64, decoder.config.context - len(prompt))
    answer = model.generate([prompt], SamplingParams(max_tokens=length, temperature=0))[0]
    generated = theirs.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                                do_sample=False, max_new_tokens=length)  # fmt: skip
    same = [token for token in generated[0, len(prompt) :].tolist() if token != model.tokenizer.end_of_turn]
    assert list(answer.token_ids) == same and len(same) >= 20 and len(set(same)) > 5
    assert answer.text == their_tokenizer.decode(same)


def test_transformers_tokenises_and_renders_the_same(folder: Path) -> None:
    from transformers import AutoTokenizer

    ours, theirs = open_folder(folder, "tiny"), AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert ours.tokenizer.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
        assert theirs.decode(theirs(text)["input_ids"]) == text
    for count in range(1, len(CONVERSATION) + 1):
        messages = CONVERSATION[:count]
        data = [{"role": message.role, "content": message.text} for message in messages]
        for prompt in (False, True):
            rendered = theirs.apply_chat_template(data, tokenize=False, add_generation_prompt=prompt)
            assert ours.chat.render(messages, prompt) == rendered
            ids = theirs.apply_chat_template(data, add_generation_prompt=prompt, return_dict=True)["input_ids"]
            assert ours.chat.encode(ours.tokenizer, messages, prompt)[0] == ids
        # Typed parts are what transformers' pipelines send.
        parts = [message.to_json() for message in messages]
        assert theirs.apply_chat_template(parts, tokenize=False) == ours.chat.render(messages)
    assert (theirs.eos_token_id, theirs.pad_token_id) == (ours.tokenizer.end_of_turn, ours.tokenizer.end_of_text)
    assert theirs.model_max_length == 64


def test_transformers_stops_at_both_ends(folder: Path) -> None:
    from transformers import GenerationConfig

    ends = GenerationConfig.from_pretrained(folder).eos_token_id
    assert set(ends) == {tiny.tokenizer().end_of_turn, tiny.tokenizer().end_of_text}


@pytest.mark.parametrize("changes", SHAPES)
def test_a_folder_gives_the_same_weights_back(changes: dict[str, object], tmp_path: Path) -> None:
    decoder = tiny.decoder(**changes)
    save_model(tmp_path, decoder, tiny.tokenizer())
    again = load_model(tmp_path)
    assert again.config == decoder.config
    pairs = zip(decoder.named_parameters(), again.named_parameters(), strict=True)
    assert all(one == two and torch.equal(a, b) for (one, a), (two, b) in pairs)


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=90, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, head_dim=8,
        num_key_value_heads=2, max_position_embeddings=50, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 777.0},
    )  # fmt: skip
    theirs = Qwen3ForCausalLM(config).eval()
    # In several files, as large checkpoints are.
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    ids = torch.randint(90, (2, 40))
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path)(ids), theirs(ids).logits, rtol=1e-4, atol=1e-5)


def change(folder: Path, **config: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))


def change_tensors(folder: Path, remove: str = "", **new: torch.Tensor) -> None:
    tensors = {**load_file(folder / WEIGHTS), **new}
    tensors.pop(remove, None)
    save_file(tensors, folder / WEIGHTS)


NORM = "model.layers.1.self_attn.q_norm.weight"


def test_missing_and_unexpected_tensors_are_named(folder: Path) -> None:
    change_tensors(folder, remove=NORM, **{"model.extra.weight": torch.zeros(3), "bias": torch.zeros(1)})
    with pytest.raises(OwnLMError) as caught:
        load_model(folder)
    assert f"lacks {NORM}" in str(caught.value) and "unexpected bias, model.extra.weight" in str(caught.value)


def test_a_tensor_of_another_shape_is_named(folder: Path) -> None:
    change_tensors(folder, **{NORM: torch.zeros(1)})
    with pytest.raises(OwnLMError, match=rf"{NORM} has shape \(1,\), not \(16,\)"):
        load_model(folder)


@pytest.mark.parametrize("size", [0, 5, 300, -1])
def test_a_file_cut_short_is_no_whole_file(folder: Path, size: int) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:size])
    with pytest.raises(OwnLMError, match=r"model\.safetensors is no whole safetensors file"):
        load_model(folder)


def test_pickles_are_refused_and_the_way_out_is_told(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(OwnLMError, match=r"only pickles \(pytorch_model\.bin\).*convert them to safetensors"):
        load_model(folder)


def test_no_weights_at_all(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(OwnLMError, match=r"has no \.safetensors file"):
        load_model(folder)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "is not JSON"), ("[]", "not a JSON object"), (None, "it has no config.json")]
)
def test_a_config_that_cannot_be_read(folder: Path, content: str | None, message: str) -> None:
    path = folder / "config.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(OwnLMError, match=message):
        read_config(folder)


def test_an_unknown_type_lists_the_known_ones(folder: Path) -> None:
    change(folder, model_type="mystery")
    with pytest.raises(OwnLMError, match=r"type 'mystery'; the known types are: .*qwen3"):
        read_config(folder)
