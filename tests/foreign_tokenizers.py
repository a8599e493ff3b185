"""Small tokenizers in the manner of the families', as model folders; their merges are learnt in a moment."""

import io
import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import tiny
from ownlm.data import tokenizer as tokenizer_module

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "def add(first, second):\n    return first + second  # naïve\n",
    "for i in range(10):\r\n\tprint(i, i ** 2)\r\n",
    "  two leading spaces, and   three inside and trailing  ",
    "1234567 + 89,000.50 = 3.1415e-10",
    "Größe, façade, naïve, Ærøskøbing; “quotes” – dashes…",
    "cafe\u0301 Ze\u0301ro A\u030angstro\u0308m \u1100\u1161\u11a8",
    "日本語のテキスト、中文文本。한국어 텍스트",
    "🙂🙃👩\u200d🚀🇩🇪 emoji",
    "שלום עולם مرحبا بالعالم हिन्दी ไทย",
    "\n\n\nnew\n\nlines\n",
    "\ttabs\t\tand\u00a0nbsp\u3000ideographic",
    "it's we'll I'M you'Re they'd",
    "\x00\x01\x7f control",
    "a",
    " ",
    "",
    "HTTPServer2Client_fooBar::baz->qux(*ptr)[0] != {'k': \"v\"}",
)
"""What tokenizers stumble over."""

GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN_SPLIT = tokenizer_module.SPLIT
LLAMA3_SPLIT = QWEN_SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|")
CORPUS = [*tiny.CORPUS, *(text for text in TEXTS[:8] for _ in range(4))]


def special(*texts: str, **flags: bool) -> list[AddedToken]:
    return [AddedToken(text, special=True, normalized=False, **flags) for text in texts]


def byte_level(split: str | None, size: int = 420) -> Tokenizer:
    """Byte-level BPE without special tokens."""
    made = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    made.pre_tokenizer = (
        level if split is None else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), level])
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    return made


def changed(made: Tokenizer, **changes: Any) -> Tokenizer:
    """With other fields in the model's part of its file."""
    data = json.loads(made.to_str())
    data["model"] |= changes
    return Tokenizer.from_str(json.dumps(data))


def begins_with(made: Tokenizer, token: str) -> None:
    made.post_processor = processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token}:1 $B:1", special_tokens=[(token, made.token_to_id(token))]
    )


@cache
def spiece(kind: str = "bpe", **options: Any) -> bytes:
    """A SentencePiece model with Llama's settings."""
    out = io.BytesIO()
    settings = {
        "vocab_size": 460, "byte_fallback": True, "remove_extra_whitespaces": False, "unk_id": 0, "bos_id": 1,
        "eos_id": 2, "normalization_rule_name": "identity", "hard_vocab_limit": False, "minloglevel": 2,
        "num_threads": 1, **options,
    }  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=out, model_type=kind, **settings
    )
    return out.getvalue()


def spiece_bpe(prefix: bool) -> Tokenizer:
    """Its pieces in the `tokenizers` library, joined by transformers' rule."""
    from transformers.tokenization_utils_base import generate_merges

    processor = sentencepiece.SentencePieceProcessor(model_proto=spiece())
    vocabulary = {processor.id_to_piece(index): index for index in range(processor.vocab_size())}
    merges = generate_merges(vocabulary, skip_tokens={"<s>", "</s>", "<unk>"})
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", "▁")
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prefix else replace
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    made.add_special_tokens(special("<unk>", "<s>", "</s>"))
    begins_with(made, "<s>")
    return made


def gpt2() -> tuple[Tokenizer, dict[str, Any], str]:
    made = byte_level(None)
    made.add_special_tokens(special("<|endoftext|>"))
    end = "<|endoftext|>"
    return made, {"tokenizer_class": "GPT2Tokenizer", "bos_token": end, "eos_token": end, "unk_token": end}, "gpt2"


def neox() -> tuple[Tokenizer, dict[str, Any], str]:
    made = byte_level(GPT2_SPLIT)
    made.normalizer = normalizers.NFC()
    made.add_special_tokens(special("<|endoftext|>", "<|padding|>"))
    made.add_tokens([AddedToken(" " * count, normalized=True) for count in (4, 3, 2)])
    config = {"tokenizer_class": "GPTNeoXTokenizer", "eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    return made, {**config, "unk_token": "<|endoftext|>"}, "gpt_neox"


def llama3() -> tuple[Tokenizer, dict[str, Any], str]:
    made = byte_level(LLAMA3_SPLIT)
    vocabulary = json.loads(made.to_str())["model"]["vocab"]
    words = [word for word in ("Ġjumps", "Ġleading", "Client", "ĠtextĠ") if word not in vocabulary]
    made = changed(made, ignore_merges=True, vocab=vocabulary | {w: len(vocabulary) + i for i, w in enumerate(words)})
    names = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    made.add_special_tokens(special(*names, "<|eom_id|>", "<|python_tag|>"))
    begins_with(made, names[0])
    return made, {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": names[0], "eos_token": names[4]}, "llama"


def qwen() -> tuple[Tokenizer, dict[str, Any], str]:
    made = byte_level(QWEN_SPLIT)
    made.normalizer = normalizers.NFC()
    made.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    made.add_tokens([AddedToken(text, normalized=False) for text in ("<think>", "</think>", "<tool_call>")])
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return made, {**config, "bos_token": None, "add_bos_token": False}, "qwen3"


def llama2() -> tuple[Tokenizer, dict[str, Any], str]:
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return spiece_bpe(True), {"tokenizer_class": "PreTrainedTokenizerFast", **named, "legacy": False}, "llama"


def metaspace() -> tuple[Tokenizer, dict[str, Any], str]:
    """As transformers 5 writes Llama's: a space before the first word only, and none where the text has one."""
    made, config, kind = llama2()
    made.normalizer = None
    made.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    return made, {**config, "tokenizer_class": "LlamaTokenizer"}, kind


def phi3() -> tuple[Tokenizer, dict[str, Any], str]:
    made, config, _ = llama2()
    made.add_special_tokens(special("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>", rstrip=True))
    return made, {**config, "tokenizer_class": "LlamaTokenizer", "eos_token": "<|endoftext|>"}, "phi3"


def gemma() -> tuple[Tokenizer, dict[str, Any], str]:
    made = spiece_bpe(False)
    made.add_special_tokens(special("<pad>", "<start_of_turn>", "<end_of_turn>"))
    made.add_tokens([AddedToken(text, normalized=False) for text in ("\n\n", "\n\n\n", "<code>")])
    config = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return made, {**config, "unk_token": "<unk>", "mask_token": "<unk>"}, "gemma2"


def unigram() -> tuple[Tokenizer, dict[str, Any], str]:
    """T5's: no bytes, words marked at their beginning, `</s>` at the end."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "unk_token": "<unk>"}
    return made, {**config, "pad_token": "<pad>"}, "t5"


MAKERS: dict[str, Callable[[], tuple[Tokenizer, dict[str, Any], str]]] = {
    maker.__name__: maker for maker in (gpt2, neox, llama3, qwen, llama2, metaspace, phi3, gemma, unigram)
}


def write(folder: Path, name: str, **config: Any) -> Path:
    """The folder of one of `MAKERS`, with more keys in its tokenizer's config."""
    made, settings, kind = MAKERS[name]()
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **config}))
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    return folder


def theirs(folder: Path) -> Any:
    """What transformers makes of the folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


def plain_ids(tokenizer: Any, texts: Iterable[str]) -> list[list[int]]:
    return [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
