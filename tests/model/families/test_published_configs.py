"""The config keys of models that people have on disk: all must be understood, with the right sizes."""

from typing import Any

import pytest

from ownlm.model.families import family_of

COMMON = {"transformers_version": "4.40.0", "torch_dtype": "bfloat16", "use_cache": True, "initializer_range": 0.02}


def config(architecture: str, **keys: Any) -> dict[str, Any]:
    return {**COMMON, "architectures": [architecture], "bos_token_id": 1, "eos_token_id": 2, **keys}


PUBLISHED = {
    "gpt2": (
        config(
            "GPT2LMHeadModel", model_type="gpt2", activation_function="gelu_new", attn_pdrop=0.1, embd_pdrop=0.1,
            layer_norm_epsilon=1e-5, n_ctx=1024, n_embd=768, n_head=12, n_layer=12, n_positions=1024, resid_pdrop=0.1,
            summary_activation=None, summary_first_dropout=0.1, summary_proj_to_labels=True, summary_type="cls_index",
            summary_use_proj=True, vocab_size=50257,
            task_specific_params={"text-generation": {"do_sample": True, "max_length": 50}},
        ),
        124_439_808,
    ),
    "Pythia 70M": (
        config(
            "GPTNeoXForCausalLM", model_type="gpt_neox", hidden_act="gelu", hidden_size=512, intermediate_size=2048,
            layer_norm_eps=1e-5, max_position_embeddings=2048, num_attention_heads=8, num_hidden_layers=6,
            rotary_emb_base=10000, rotary_pct=0.25, tie_word_embeddings=False, use_parallel_residual=True,
            vocab_size=50304,
        ),
        70_426_624,
    ),
    "Llama 2 7B": (
        config(
            "LlamaForCausalLM", model_type="llama", hidden_act="silu", hidden_size=4096, intermediate_size=11008,
            max_position_embeddings=4096, num_attention_heads=32, num_hidden_layers=32, num_key_value_heads=32,
            pretraining_tp=1, rms_norm_eps=1e-5, rope_scaling=None, tie_word_embeddings=False, vocab_size=32000,
        ),
        6_738_415_616,
    ),
    "Llama 3.2 1B": (
        config(
            "LlamaForCausalLM", model_type="llama", attention_bias=False, attention_dropout=0.0, head_dim=64,
            hidden_act="silu", hidden_size=2048, intermediate_size=8192, max_position_embeddings=131072,
            mlp_bias=False, num_attention_heads=32, num_hidden_layers=16, num_key_value_heads=8, pretraining_tp=1,
            rms_norm_eps=1e-5, rope_theta=500000.0, tie_word_embeddings=True, vocab_size=128256,
            rope_scaling={"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                          "original_max_position_embeddings": 8192, "rope_type": "llama3"},
            eos_token_id=[128001, 128008, 128009],
        ),
        1_235_814_400,
    ),
    "Mistral 7B 0.1": (
        config(
            "MistralForCausalLM", model_type="mistral", hidden_act="silu", hidden_size=4096, intermediate_size=14336,
            max_position_embeddings=32768, num_attention_heads=32, num_hidden_layers=32, num_key_value_heads=8,
            rms_norm_eps=1e-5, rope_theta=10000.0, sliding_window=4096, tie_word_embeddings=False, vocab_size=32000,
        ),
        7_241_732_096,
    ),
    "Mixtral 8x7B": (
        config(
            "MixtralForCausalLM", model_type="mixtral", attention_dropout=0.0, hidden_act="silu", hidden_size=4096,
            intermediate_size=14336, max_position_embeddings=32768, num_attention_heads=32, num_experts_per_tok=2,
            num_hidden_layers=32, num_key_value_heads=8, num_local_experts=8, output_router_logits=False,
            rms_norm_eps=1e-5, rope_theta=1e6, router_aux_loss_coef=0.02, sliding_window=None,
            tie_word_embeddings=False, vocab_size=32000,
        ),
        46_702_792_704,
    ),
    "Qwen2.5 0.5B": (
        config(
            "Qwen2ForCausalLM", model_type="qwen2", attention_dropout=0.0, hidden_act="silu", hidden_size=896,
            intermediate_size=4864, max_position_embeddings=32768, max_window_layers=24, num_attention_heads=14,
            num_hidden_layers=24, num_key_value_heads=2, rms_norm_eps=1e-6, rope_theta=1e6, sliding_window=32768,
            tie_word_embeddings=True, use_mrope=False, use_sliding_window=False, vocab_size=151936,
        ),
        494_032_768,
    ),
    "Qwen3 0.6B": (
        config(
            "Qwen3ForCausalLM", model_type="qwen3", attention_bias=False, attention_dropout=0.0, head_dim=128,
            hidden_act="silu", hidden_size=1024, intermediate_size=3072, max_position_embeddings=40960,
            max_window_layers=28, num_attention_heads=16, num_hidden_layers=28, num_key_value_heads=8,
            rms_norm_eps=1e-6, rope_scaling=None, rope_theta=1000000, sliding_window=None, tie_word_embeddings=True,
            use_sliding_window=False, vocab_size=151936,
        ),
        596_049_920,
    ),
    "Qwen3 30B A3B": (
        config(
            "Qwen3MoeForCausalLM", model_type="qwen3_moe", attention_bias=False, attention_dropout=0.0,
            decoder_sparse_step=1, head_dim=128, hidden_act="silu", hidden_size=2048, intermediate_size=6144,
            max_position_embeddings=40960, max_window_layers=48, mlp_only_layers=[], moe_intermediate_size=768,
            norm_topk_prob=True, num_attention_heads=32, num_experts=128, num_experts_per_tok=8, num_hidden_layers=48,
            num_key_value_heads=4, output_router_logits=False, rms_norm_eps=1e-6, rope_scaling=None, rope_theta=1e6,
            router_aux_loss_coef=0.001, sliding_window=None, tie_word_embeddings=False, use_sliding_window=False,
            vocab_size=151936,
        ),
        30_532_122_624,
    ),
    "Gemma 2 2B": (
        config(
            "Gemma2ForCausalLM", model_type="gemma2", attention_bias=False, attention_dropout=0.0,
            attn_logit_softcapping=50.0, cache_implementation="hybrid", final_logit_softcapping=30.0, head_dim=256,
            hidden_act="gelu_pytorch_tanh", hidden_activation="gelu_pytorch_tanh", hidden_size=2304,
            intermediate_size=9216, max_position_embeddings=8192, num_attention_heads=8, num_hidden_layers=26,
            num_key_value_heads=4, pad_token_id=0, query_pre_attn_scalar=256, rms_norm_eps=1e-6, rope_theta=10000.0,
            sliding_window=4096, vocab_size=256000,
        ),
        2_614_341_888,
    ),
    "Gemma 3 1B": (
        config(
            "Gemma3ForCausalLM", model_type="gemma3_text", attention_bias=False, attention_dropout=0.0,
            attn_logit_softcapping=None, cache_implementation="hybrid", final_logit_softcapping=None, head_dim=256,
            hidden_activation="gelu_pytorch_tanh", hidden_size=1152, intermediate_size=6912,
            max_position_embeddings=32768, num_attention_heads=4, num_hidden_layers=26, num_key_value_heads=1,
            pad_token_id=0, query_pre_attn_scalar=256, rms_norm_eps=1e-6, rope_local_base_freq=10000,
            rope_scaling=None, rope_theta=1000000, sliding_window=512, sliding_window_pattern=6, vocab_size=262144,
        ),
        999_885_952,
    ),
    "OLMo 2 7B": (
        config(
            "Olmo2ForCausalLM", model_type="olmo2", attention_bias=False, attention_dropout=0.0, hidden_act="silu",
            hidden_size=4096, intermediate_size=11008, max_position_embeddings=4096, num_attention_heads=32,
            num_hidden_layers=32, num_key_value_heads=32, pad_token_id=1, rms_norm_eps=1e-6, rope_scaling=None,
            rope_theta=500000, tie_word_embeddings=False, vocab_size=100352,
        ),
        7_298_617_344,
    ),
    "Phi-3 mini 128k": (
        config(
            "Phi3ForCausalLM", model_type="phi3", attention_bias=False, attention_dropout=0.0, embd_pdrop=0.0,
            auto_map={"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3"},
            hidden_act="silu", hidden_size=3072, intermediate_size=8192, max_position_embeddings=131072,
            num_attention_heads=32, num_hidden_layers=32, num_key_value_heads=32,
            original_max_position_embeddings=4096, pad_token_id=32000, resid_pdrop=0.0, rms_norm_eps=1e-5,
            rope_scaling={"long_factor": [1.0] * 48, "short_factor": [1.0] * 48, "type": "longrope"},
            rope_theta=10000.0, sliding_window=262144, tie_word_embeddings=False, vocab_size=32064,
        ),
        3_821_079_552,
    ),
    "Phi-4 mini": (
        config(
            "Phi3ForCausalLM", model_type="phi3", attention_bias=False, attention_dropout=0.0, embd_pdrop=0.0,
            full_attn_mod=1, hidden_act="silu", hidden_size=3072, intermediate_size=8192, interpolate_factor=1,
            lm_head_bias=False, max_position_embeddings=131072, mlp_bias=False, num_attention_heads=24,
            num_hidden_layers=32, num_key_value_heads=8, original_max_position_embeddings=4096, pad_token_id=199999,
            partial_rotary_factor=0.75, resid_pdrop=0.0, rms_norm_eps=1e-5,
            rope_scaling={"long_factor": [1.0] * 48, "short_factor": [1.0] * 48, "type": "longrope"},
            rope_theta=10000.0, sliding_window=262144, tie_word_embeddings=True, vocab_size=200064,
        ),
        3_836_021_760,
    ),
    "SmolLM3 3B": (
        config(
            "SmolLM3ForCausalLM", model_type="smollm3", attention_bias=False, attention_dropout=0.0,
            hidden_act="silu", hidden_size=2048, intermediate_size=11008, layer_types=["full_attention"] * 36,
            max_position_embeddings=65536, max_window_layers=28, mlp_bias=False, no_rope_layer_interval=4,
            no_rope_layers=[1, 1, 1, 0] * 9, num_attention_heads=16, num_hidden_layers=36, num_key_value_heads=4,
            pad_token_id=128004, pretraining_tp=2, rms_norm_eps=1e-6, rope_scaling=None, rope_theta=5000000.0,
            sliding_window=None, use_sliding_window=False, vocab_size=128256,
        ),
        3_075_098_624,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_is_understood_and_has_the_published_size(name: str) -> None:
    data, parameters = PUBLISHED[name]
    family = family_of(data, "config.json")
    config = family.read_config(data)
    assert config.parameters == parameters
    assert family.read_config(family.write_config(config)) == config
