"""llama.cpp itself (xllamacpp), as the judge of GGUF files: greedy tokens and tokenisation."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import torch
import xllamacpp

from ownlm.model.decoder import Decoder

STEPS = 48
CLOSE = 1e-3
"""Where the two best logits are closer than this, rounding errors may choose."""


class LlamaCpp:
    """A GGUF file opened by llama.cpp: fp32 key/value cache, no flash attention, one thread."""

    def __init__(self, file: Path) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx, params.n_parallel = 256, 1
        params.warmup = False
        params.verbosity = -1
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        self._server = xllamacpp.Server(params)

    def _post(self, path: str, data: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._server.listening_address + path, json.dumps(data).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def greedy(self, ids: Sequence[int], steps: int = STEPS) -> list[int]:
        """The likeliest tokens after `ids`; those that would end the answer are never chosen."""
        answer = self._post("/completion", {
            "prompt": list(ids), "n_predict": steps, "temperature": 0, "ignore_eos": True, "return_tokens": True,
            "cache_prompt": False,
        })  # fmt: skip
        return [int(token) for token in answer["tokens"]]

    def tokens(self, text: str, special: bool = False) -> list[int]:
        """The ids of a text; `special`: special tokens are read out of it, and the usual ones put before it."""
        data = {"content": text, "add_special": special, "parse_special": special}
        return [int(token) for token in self._post("/tokenize", data)["tokens"]]

    def chat(self, messages: list[dict[str, str]]) -> str:
        """The prompt that the chat template inside the file makes."""
        return str(self._post("/apply-template", {"messages": messages})["prompt"])


@torch.no_grad()
def greedy(
    decoder: Decoder, ids: Sequence[int], ends: Sequence[int], steps: int = STEPS
) -> tuple[list[int], list[float]]:
    """The likeliest tokens after `ids` but for `ends`, and how far the two best logits are apart at each step."""
    known, gaps = list(ids), []
    for _ in range(steps):
        logits = decoder(torch.tensor([known]))[0, -1]
        logits[list(ends)] = float("-inf")
        best = logits.topk(2)
        gaps.append(float(best.values[0] - best.values[1]))
        known.append(int(best.indices[0]))
    return known[len(ids) :], gaps


def until_close(tokens: Sequence[int], gaps: Sequence[float]) -> list[int]:
    """The tokens before the first choice that was too close to call."""
    end = next((step for step, gap in enumerate(gaps) if gap < CLOSE), len(gaps))
    return list(tokens[:end])


@torch.no_grad()
def round_to(decoder: Decoder, file_type: str) -> Decoder:
    """Rounds a decoder's matrices in place as a file of that type holds them."""
    for name, parameter in decoder.named_parameters():
        kind = gguf.GGMLQuantizationType[file_type.upper()]
        if parameter.ndim < 2 or "router" in name or "embed_positions" in name:
            continue
        if file_type == "q4_0" and name in ("embed_tokens.weight", "lm_head.weight"):
            kind = gguf.GGMLQuantizationType.Q8_0
        if parameter.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = gguf.GGMLQuantizationType.F16
        data = gguf.quants.quantize(parameter.detach().float().numpy(), kind)
        parameter.copy_(torch.from_numpy(gguf.quants.dequantize(data, kind).reshape(parameter.shape)))
    return decoder


def learn_by_heart(decoder: Decoder, ids: Sequence[int], steps: int = 150, length: int = 48) -> Decoder:
    """Trains until the decoder is sure of how `ids` goes on: its choices outlive a coarse rounding."""
    rows = torch.tensor(ids).unfold(0, length, length // 3)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(steps):
        logits = decoder(rows[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return decoder
