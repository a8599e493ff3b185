"""The architectures of GGUF files that are written and read: what llama.cpp computes under each name.

Each is a function from metadata to a `DecoderConfig`. Whether a model can be written is decided by that same function:
what comes back from the metadata must be the model's own config. The facts are those of
https://github.com/ggml-org/llama.cpp/tree/master/src/models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from ownlm.model.config import DecoderConfig, Experts
from ownlm.model.families.stored import Stored
from ownlm.model.gguf.fields import Fields
from ownlm.model.gguf.rope import DIVISORS, LONG, SHORT, read_rope, rope_keys, rope_tensors
from ownlm.model.gguf.tensors import gguf_tensors
from ownlm.model.rope import Rope
from ownlm.runtime.errors import OwnLMError

HARMLESS = (
    "{arch}.vocab_size", "{arch}.tensor_data_layout", "{arch}.rope.scaling.finetuned", "{arch}.pooling_type",
    "{arch}.attention.causal", "{arch}.expert_weights_norm", "{arch}.rope.dimension_count", "{arch}.rope.freq_base",
    "{arch}.rope.scaling.original_context_length", "{arch}.rope.scaling.attn_factor", "{arch}.expert_shared_count",
)  # fmt: skip
"""Keys that some converters write and that change nothing, or that matter to one kind of scaling only."""
_NO_WINDOWS = ("{arch}.attention.sliding_window", "{arch}.attention.sliding_window_pattern")
"""llama.cpp computes these architectures without windows, whatever the file says."""


@dataclass(frozen=True)
class Architecture:
    """`name` is the value of `general.architecture`, `model_type` the family that reads such a model elsewhere.

    `choices` are the fields of `DecoderConfig` that the name stands for, `finish` adds those that the metadata decide.
    `own_head`: files have an output matrix even where it equals the embedding.
    """

    name: str
    model_type: str
    choices: Mapping[str, Any] = field(default_factory=dict)
    finish: Callable[[Fields, dict[str, Any]], dict[str, Any]] = lambda fields, known: {}
    interleaved: bool = False
    fused_qkv: bool = False
    fused_gate: bool = False
    windows: bool = False
    own_head: bool = False
    square_heads: bool = False
    divisors: tuple[str, ...] = ()

    def tensors(self, config: DecoderConfig) -> list[Stored]:
        """What a file's tensors hold, without the divisors of rotary positions."""
        return gguf_tensors(config, interleaved=self.interleaved, fused_qkv=self.fused_qkv, fused_gate=self.fused_gate)

    def family(self, config: DecoderConfig) -> str:
        """The `model_type` under which others open the model."""
        return "mixtral" if self.name == "llama" and config.experts is not None else self.model_type

    def keys(self, config: DecoderConfig) -> dict[str, Any]:
        """The metadata that describe the network."""
        keys: dict[str, Any] = {
            "{arch}.context_length": config.context,
            "{arch}.embedding_length": config.width,
            "{arch}.block_count": config.layers,
            "{arch}.feed_forward_length": config.ffn,
            "{arch}.attention.head_count": config.heads,
            "{arch}.attention.head_count_kv": config.kv_heads,
            "{arch}.attention.key_length": config.head_dim,
            "{arch}.attention.value_length": config.head_dim,
            "{arch}.vocab_size": config.vocabulary,
        }
        epsilon = "layer_norm_epsilon" if config.norm == "layer" else "layer_norm_rms_epsilon"
        keys["{arch}.attention." + epsilon] = float(config.norm_eps)
        keys |= rope_keys(config)
        if config.experts is not None:
            keys |= {
                "{arch}.expert_count": config.experts.count, "{arch}.expert_used_count": config.experts.active,
                "{arch}.expert_feed_forward_length": config.experts.ffn,
            }  # fmt: skip
        if self.windows and config.sliding_layers:
            keys["{arch}.attention.sliding_window"] = config.sliding_window
            keys["{arch}.attention.sliding_window_pattern"] = _period(config)
        if config.local_rope is not None and self.name == "gemma3":
            keys["{arch}.rope.freq_base_swa"] = float(config.local_rope.theta)
        if config.attention_softcap is not None and self.name == "gemma2":
            keys["{arch}.attn_logit_softcapping"] = float(config.attention_softcap)
        if config.logit_softcap is not None and self.name in ("gemma2", "gemma3"):
            keys["{arch}.final_logit_softcapping"] = float(config.logit_softcap)
        if self.name == "gptneox":
            keys["{arch}.use_parallel_residual"] = config.parallel_residual
        return {key.replace("{arch}", self.name): value for key, value in keys.items()}

    def config(
        self, fields: Fields, names: Collection[str], divisors: Mapping[str, Tensor], vocabulary: int
    ) -> DecoderConfig:
        """The decoder that metadata and the tensors' names describe.

        Raises:
            OwnLMError: a key is missing, or something that the decoder does not compute.
        """
        heads = fields.integer("{arch}.attention.head_count")
        width = fields.integer("{arch}.embedding_length")
        context = fields.integer("{arch}.context_length")
        head_dim = fields.integer("{arch}.attention.key_length", width // max(1, heads))
        layers = fields.integer("{arch}.block_count")
        known: dict[str, Any] = {
            "vocabulary": vocabulary,
            "layers": layers,
            "width": width,
            "heads": heads,
            "kv_heads": fields.integer("{arch}.attention.head_count_kv", heads),
            "head_dim": head_dim,
            "ffn": fields.integer("{arch}.feed_forward_length", width),
            "context": context,
            "tied_embeddings": "output.weight" not in names,
            "qk_norm": None,
            "qkv_bias": bool({"blk.0.attn_q.bias", "blk.0.attn_qkv.bias"} & set(names)),
            "output_bias": "blk.0.attn_output.bias" in names,
            "ffn_bias": "blk.0.ffn_down.bias" in names,
            **self.choices,
        }
        if fields.integer("{arch}.attention.value_length", head_dim) != head_dim:
            raise OwnLMError(f"{fields.where} has values of another length than its keys; the decoder has none such.")
        if "rope" not in known:
            known["rope"] = read_rope(fields, divisors, head_dim, context)
        epsilon = "layer_norm_epsilon" if known.get("norm") == "layer" else "layer_norm_rms_epsilon"
        known["norm_eps"] = fields.number("{arch}.attention." + epsilon)
        if (count := fields.integer("{arch}.expert_count", 0)) > 0:
            active = fields.integer("{arch}.expert_used_count")
            ffn = fields.integer("{arch}.expert_feed_forward_length", known["ffn"])
            known["experts"] = Experts(count, active, ffn, tuple(range(layers)))
        known |= self.finish(fields, known)
        fields.ignore(*HARMLESS, *(_NO_WINDOWS if self.name in ("llama", "qwen2", "qwen3", "qwen3moe", "phi3") else ()))
        if fields.integer("{arch}.expert_gating_func", 1) != 1:
            raise OwnLMError(f"{fields.where} chooses its experts in another way than by softmax.")
        fields.close()
        return DecoderConfig(**known)


def _period(config: DecoderConfig) -> int:
    """Every so manieth layer is a full one; 0 where the layers have no such pattern."""
    full = [layer for layer in range(config.layers) if layer not in config.sliding_layers]
    period = full[0] + 1 if full else config.layers + 1
    return period if config.sliding_layers == _sliding(config.layers, period) else 0


def _sliding(layers: int, period: int) -> tuple[int, ...]:
    return tuple(layer for layer in range(layers) if layer % period < period - 1)


def _windows(fields: Fields, layers: int, period: int, default: int = 0) -> dict[str, Any]:
    """`sliding_window_pattern` is a period, or whether each layer slides."""
    window = fields.integer("{arch}.attention.sliding_window", default)
    pattern = fields.either("{arch}.attention.sliding_window_pattern", period)
    if isinstance(pattern, list):
        sliding = tuple(layer for layer in range(layers) if layer < len(pattern) and pattern[layer])
    else:
        sliding = _sliding(layers, pattern) if pattern > 0 else ()
    sliding = sliding if window else ()
    return {"sliding_window": window if sliding else 0, "sliding_layers": sliding}


def _gemma(fields: Fields, known: dict[str, Any], largest: int) -> dict[str, Any]:
    """Scaled embeddings, and scores divided by the root of the head's size (of width / heads in the 27B models)."""
    size = known["width"] // known["heads"] if known["layers"] == largest else known["head_dim"]
    return {
        "embedding_scale": known["width"] ** 0.5,
        "attention_scale": size**-0.5,
        "logit_softcap": fields.optional_number("{arch}.final_logit_softcapping"),
        "tied_embeddings": True,
    }


def _gemma2(fields: Fields, known: dict[str, Any]) -> dict[str, Any]:
    return {
        **_gemma(fields, known, 46),
        **_windows(fields, known["layers"], 2, 4096),
        "attention_softcap": fields.number("{arch}.attn_logit_softcapping", 50.0),
        "logit_softcap": fields.number("{arch}.final_logit_softcapping", 30.0),
    }


def _gemma3(fields: Fields, known: dict[str, Any]) -> dict[str, Any]:
    local = Rope(fields.number("{arch}.rope.freq_base_swa", 10_000.0))
    return {**_gemma(fields, known, 62), **_windows(fields, known["layers"], 6), "local_rope": local}


def _smollm3(_: Fields, known: dict[str, Any]) -> dict[str, Any]:
    return {"layers_without_rope": tuple(range(3, known["layers"], 4))}


def _gptneox(fields: Fields, _: dict[str, Any]) -> dict[str, Any]:
    return {"parallel_residual": fields.flag("{arch}.use_parallel_residual", True)}


_GEMMA = {"norms": "both", "norm_offset": 1.0, "activation": "gelu_tanh"}
_LAYER_NORM = {"norm": "layer", "gated": False, "activation": "gelu_tanh"}
LLAMA3, LONGROPE = (DIVISORS,), (LONG, SHORT)

ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture("llama", "llama", interleaved=True, divisors=LLAMA3 + LONGROPE),
        Architecture("qwen2", "qwen2", {"qkv_bias": True, "output_bias": False, "ffn_bias": False}),
        Architecture("qwen3", "qwen3", {"qk_norm": "head", "qkv_bias": False, "output_bias": False, "ffn_bias": False}),
        Architecture(
            "qwen3moe", "qwen3_moe", {"qk_norm": "head", "qkv_bias": False, "output_bias": False, "ffn_bias": False}
        ),
        Architecture("gemma2", "gemma2", _GEMMA, _gemma2, windows=True),
        Architecture("gemma3", "gemma3_text", {**_GEMMA, "qk_norm": "head"}, _gemma3, windows=True),
        Architecture("olmo2", "olmo2", {"norms": "post", "qk_norm": "full"}, own_head=True, square_heads=True),
        Architecture(
            "phi3", "phi3", fused_qkv=True, fused_gate=True, square_heads=True, divisors=LONGROPE,
        ),
        Architecture("smollm3", "smollm3", finish=_smollm3, interleaved=True),
        Architecture("gpt2", "gpt2", {**_LAYER_NORM, "rope": None, "learned_positions": True}, fused_qkv=True),
        Architecture(
            "gptneox", "gpt_neox", {**_LAYER_NORM, "activation": "gelu"}, _gptneox, fused_qkv=True, own_head=True,
        ),
    )
}  # fmt: skip
BY_FAMILY = {architecture.model_type: architecture for architecture in ARCHITECTURES.values()} | {
    "mistral": ARCHITECTURES["llama"], "mixtral": ARCHITECTURES["llama"],
}  # fmt: skip


def architecture_of(model_type: str) -> Architecture:
    """The architecture under which a family's models are written.

    Raises:
        OwnLMError: llama.cpp is not known to compute this family; the message lists what can be written.
    """
    if model_type not in BY_FAMILY:
        raise OwnLMError(
            f"Models of type {model_type!r} cannot be written as GGUF; there is: {', '.join(sorted(BY_FAMILY))}."
        )
    return BY_FAMILY[model_type]


def fit(architecture: Architecture, config: DecoderConfig) -> tuple[DecoderConfig, list[str]]:
    """The config that the file describes, and what a user must know where that is less than the model's own.

    Sliding windows where llama.cpp has none, and longrope, whose long divisors llama.cpp takes by its context and not
    by the text: the file's context ends where both compute the same.

    Raises:
        OwnLMError: naming each field of the config that llama.cpp does not compute under this architecture.
    """
    fitted, notes = config, []
    if config.sliding_layers and not architecture.windows:
        fitted = fitted.with_(context=min(config.context, config.sliding_window), sliding_layers=(), sliding_window=0)
        notes.append(
            f"llama.cpp has no sliding windows in {architecture.name} models, so the file's context is "
            f"{fitted.context:,} tokens, within which the answers are the same."
        )
    if (rope := config.rope) is not None and rope.kind == "longrope":
        fitted = fitted.with_(context=min(fitted.context, rope.original_context), rope=_without_factor(rope))
        notes.append(
            f"llama.cpp chooses longrope's divisors by its own context, so the file's is {fitted.context:,} tokens, "
            "within which the answers are the same; a larger --ctx-size switches to those of long texts."
        )
    if architecture.name == "gptneox":
        notes.append("llama.cpp computes GELU by its tanh approximation, which is off by up to 0.0005.")
    if architecture.own_head:
        fitted = fitted.with_(tied_embeddings=False)
    _refuse(architecture, fitted)
    return fitted, notes


def _without_factor(rope: Rope) -> Rope:
    """longrope's factor only gave `attention_factor`."""
    return dataclasses.replace(rope, factor=1.0)


def _refuse(architecture: Architecture, config: DecoderConfig) -> None:
    reasons = []
    rope = config.rope
    divisors = rope_tensors(config)
    if rope is not None:
        if rope.kind == "dynamic":
            reasons.append("RoPE of the kind 'dynamic', which llama.cpp has not")
        if any(name not in architecture.divisors for name in divisors):
            reasons.append(f"RoPE of the kind {rope.kind!r}, which llama.cpp has not in {architecture.name} models")
        if rope.share != 1.0 and architecture.name not in ("phi3", "gptneox"):
            reasons.append(f"rotary positions in {rope.share:.0%} of each head")
    if architecture.square_heads and config.heads * config.head_dim != config.width:
        reasons.append(f"{config.heads} heads of {config.head_dim} beside a width of {config.width}")
    if config.experts is not None and config.experts.layers != tuple(range(config.layers)):
        reasons.append("layers with and without experts")
    if not reasons:
        values = {"general.architecture": architecture.name, **architecture.keys(config)}
        names = [stored.name for stored in architecture.tensors(config)]
        read = architecture.config(Fields(values, "the file"), names, divisors, config.vocabulary)
        if rope is not None and rope.kind == "llama3":  # its divisors are in the file, whatever made them
            read = read.with_(rope=rope)
        reasons = _differences(_plain(config), _plain(read))
    if reasons:
        raise OwnLMError(
            f"This model cannot be written as GGUF: llama.cpp does not compute {'; '.join(reasons)} "
            f"({architecture.name})."
        )


def _differences(config: dict[str, Any], read: dict[str, Any]) -> list[str]:
    return [f"{name}={value!r} (but {read[name]!r})" for name, value in config.items() if read[name] != value]


def _plain(config: DecoderConfig) -> dict[str, Any]:
    """The fields, with numbers in the file's precision and defaults spelt out."""
    values = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
    if config.attention_scale is None:
        values["attention_scale"] = config.head_dim**-0.5
    for name, value in values.items():
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            values[name] = {key: _rounded(part) for key, part in dataclasses.asdict(value).items()}
        else:
            values[name] = _rounded(value)
    return values


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(np.float32(value))
    return tuple(map(_rounded, value)) if isinstance(value, tuple) else value
