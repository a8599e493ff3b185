"""Tiny models made by transformers and adapters made by PEFT: what adapters are compared with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import transformers

SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "num_hidden_layers": 1}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {**SIZES, "tie_word_embeddings": False}),
    "qwen3": ("Qwen3", {**SIZES, "head_dim": 16, "tie_word_embeddings": True}),
    "phi3": ("Phi3", {**SIZES, "pad_token_id": 0, "tie_word_embeddings": False}),
    "gpt2": ("GPT2", {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "gpt_neox": ("GPTNeoX", {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}),
    "mixtral": ("Mixtral", {**SIZES, **EXPERTS, "num_local_experts": 3}),
    "qwen3_moe": ("Qwen3Moe", {**SIZES, **EXPERTS, "head_dim": 16, "num_experts": 3, "moe_intermediate_size": 24}),
}


def make_base(kind: str, folder: Path, seed: int = 0, **changes: object) -> Any:
    """A random model of that type in a folder; biases and norms are random too."""
    name, fields = CONFIGS[kind]
    torch.manual_seed(seed)
    config = getattr(transformers, f"{name}Config")(**{**fields, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(folder)
    return model.eval()


def make_adapter(base: Any, folder: Path, seed: int = 0, **fields: Any) -> Any:
    """An adapter of `base` as training leaves one, in a folder; `base` is wrapped."""
    torch.manual_seed(seed)
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **fields))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_magnitude" in name:
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
            elif "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    return model.eval()


def open_with_peft(base: Any, folder: Path) -> Any:
    """What PEFT makes of an adapter folder."""
    return peft.PeftModel.from_pretrained(base, str(folder)).eval()


def random_ids(rows: int = 2, time: int = 12, seed: int = 1) -> torch.Tensor:
    """Tokens of the tiny models."""
    return torch.randint(0, 96, (rows, time), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """fp32 logits of a model of transformers or of a decoder."""
    found = model(ids)
    return found.logits if hasattr(found, "logits") else found  # type: ignore[no-any-return]
