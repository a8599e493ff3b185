"""A tokenizer and a decoder so small that a test makes them in a moment."""

from functools import cache

import torch

from ownlm.data.chat_format import ChatFormat
from ownlm.data.tokenizer import Tokenizer
from ownlm.engine.local import LocalModel
from ownlm.engine.request import ModelFacts
from ownlm.model.config import DecoderConfig
from ownlm.model.decoder import Decoder, initialise
from ownlm.model.rope import Rope

SENTENCES = (
    "def add(first, second):\n    return first + second\n",
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.\n",
    "for index in range(10):\r\n    print(index, index ** 2)\r\n",
    "Größe, façade, naïve: accents; 日本語 and 🙂🙃 too.\n",
    "class Reader:\n    def read(self, size=-1):\n        return self.file.read(size)\n",
)
CORPUS = tuple(sentence * 3 for sentence in SENTENCES)
"""Every byte that a test's greedy model may see is here at least thrice."""

CONFIG = DecoderConfig(
    vocabulary=400, layers=2, width=32, heads=2, kv_heads=1, head_dim=16, ffn=48, context=64, rope=Rope(1000.0)
)


@cache
def tokenizer() -> Tokenizer:
    """About 400 tokens; the exact number is `tokenizer().vocab_size`. Shared: nobody changes a tokenizer."""
    return Tokenizer.train(CORPUS * 2, 400)


def config(**changes: object) -> DecoderConfig:
    """`CONFIG` with the tokenizer's vocabulary and some fields changed."""
    return CONFIG.with_(**{"vocabulary": tokenizer().vocab_size, **changes})


def decoder(seed: int = 0, **changes: object) -> Decoder:
    """Random weights in every path: `initialise` alone leaves blocks that do nothing, and norms that are all ones."""
    made = Decoder(config(**changes))
    initialise(made, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim < 2:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                # Loud blocks: with tied embeddings a quiet one's greedy answer is one token again and again.
                parameter.normal_(0.0, 20 * parameter.shape[1] ** -0.5, generator=generator)
            elif not name.startswith("layers."):
                parameter.mul_(4)
    return made


def model(seed: int = 0, **changes: object) -> LocalModel:
    """The tiny decoder as a language model."""
    made = decoder(seed, **changes)
    facts = ModelFacts("tiny", "0", made.config.context)
    return LocalModel(made, tokenizer(), ChatFormat(), facts)


def random_ids(*shape: int, seed: int = 0) -> torch.Tensor:
    """Plain tokens, no special ones."""
    return torch.randint(tokenizer().vocab_size - 3, shape, generator=torch.Generator().manual_seed(seed))
