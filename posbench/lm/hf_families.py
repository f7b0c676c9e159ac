"""The architectures of pretrained transformers decoders that are converted to GPTs of this package.

Llama (with SmolLM and SmolLM2), Mistral, Qwen2, Qwen3, SmolLM3 and Phi-3: norms before attention and the MLP, RMSNorm,
SwiGLU, grouped-query attention. Gemma 3 and OLMo 3 have norms behind them, gpt-oss a mixture of experts, GPT-NeoX
(Pythia) and GPT-2 LayerNorms and biases, Arcee an MLP without a gate. tests/lm/test_convert.py compares logits with transformers.
"""

from __future__ import annotations

from typing import Any

from posbench.errors import IncompatibleError
from posbench.model.architecture import Architecture

# Optional keys of a configuration that the code of each family in transformers reads. Others have no effect on it.
KEYS_READ = {
    "llama": ("attention_bias", "mlp_bias"),
    "arcee": ("attention_bias", "mlp_bias"),
    "mistral": ("sliding_window",),
    "qwen2": ("sliding_window", "layer_types"),
    "qwen3": ("attention_bias", "sliding_window", "layer_types"),
    "smollm3": ("attention_bias", "mlp_bias", "sliding_window", "layer_types", "no_rope_layers"),
    "gemma3_text": (
        "attention_bias",
        "sliding_window",
        "layer_types",
        "query_pre_attn_scalar",
        "final_logit_softcapping",
        "use_bidirectional_attention",
    ),
    "olmo3": ("attention_bias", "sliding_window", "layer_types"),
    "gpt_oss": ("attention_bias", "sliding_window", "layer_types", "swiglu_alpha", "swiglu_limit"),
    "phi3": ("sliding_window", "partial_rotary_factor"),
    "gpt_neox": ("attention_bias", "use_parallel_residual", "partial_rotary_factor"),
    "gpt2": ("n_inner", "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "add_cross_attention"),
}
SUPPORTED_MODEL_TYPES = tuple(KEYS_READ)
# Families whose heads share the width equally, with one head of keys and values for each of queries.
EQUAL_HEADS = ("gpt_neox", "gpt2")
# Of transformers -> of `model.gpt`. gelu_new, gelu_fast and gelu_pytorch_tanh are one function.
ACTIVATIONS = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
# Names of one value in different families.
ACTIVATION_KEYS = ("hidden_activation", "hidden_act", "activation_function")
NORM_EPS_KEYS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon")


def architecture_from_hf_config(config: Any) -> Architecture:
    """Returns the architecture that a transformers configuration describes.

    Raises:
        IncompatibleError: if the GPT of this package does not implement it.
    """
    family = config.model_type
    if family not in SUPPORTED_MODEL_TYPES:
        raise IncompatibleError(f"{family} is not one of {', '.join(SUPPORTED_MODEL_TYPES)}")
    activation = first_value(config, ACTIVATION_KEYS)
    if activation not in ACTIVATIONS:
        raise IncompatibleError(f"its MLP uses {activation}, not one of {', '.join(ACTIVATIONS)}")
    for key in ("use_bidirectional_attention", "scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        if value_read(config, key):
            raise IncompatibleError(f"its configuration has {key}")
    n_heads, attention_bias = config.num_attention_heads, bool(value_read(config, "attention_bias"))
    own_head_dim = None if family in EQUAL_HEADS else getattr(config, "head_dim", None)
    own_kv_heads = None if family in EQUAL_HEADS else config.num_key_value_heads
    shape = {
        "n_layers": config.num_hidden_layers,
        "d_model": config.hidden_size,
        "n_heads": n_heads,
        "n_kv_heads": own_kv_heads or n_heads,
        "head_dim": own_head_dim or config.hidden_size // n_heads,
        "intermediate_size": None if family == "gpt2" else config.intermediate_size,
        "activation": ACTIVATIONS[activation],
        "norm_eps": first_value(config, NORM_EPS_KEYS),
        "gated_mlp": True,
        "qkv_bias": attention_bias,
        "out_bias": attention_bias,
        "mlp_bias": bool(value_read(config, "mlp_bias")),
        "tie_embeddings": bool(config.tie_word_embeddings),
    }
    return Architecture(**shape | family_switches(config, shape["head_dim"]))


def family_switches(config: Any, head_dim: int) -> dict[str, Any]:
    """Returns the fields of an architecture in which its family differs from Llama."""
    family = config.model_type
    if family == "qwen2":
        return {"qkv_bias": True}
    if family == "arcee":
        return {"gated_mlp": False}
    if family == "qwen3":
        return {"qk_norm": "head"}
    if family == "gemma3_text":
        return {
            "norm": "offset_rms",
            "post_norm": True,
            "qk_norm": "head",
            "query_scale": (head_dim / config.query_pre_attn_scalar) ** 0.5,
            "embedding_scale": config.hidden_size**0.5,
            "logit_softcap": value_read(config, "final_logit_softcapping") or 0.0,
        }
    if family == "olmo3":
        return {"pre_norm": False, "post_norm": True, "qk_norm": "projection"}
    if family == "gpt_oss":
        return {
            "n_experts": config.num_local_experts,
            "experts_per_token": config.num_experts_per_tok,
            "swiglu_alpha": config.swiglu_alpha,
            "swiglu_limit": config.swiglu_limit,
        }
    if family == "gpt_neox":
        return {
            "norm": "layer",
            "gated_mlp": False,
            "mlp_bias": True,
            "parallel_residual": bool(value_read(config, "use_parallel_residual")),
        }
    if family == "gpt2":
        biases = dict.fromkeys(("qkv_bias", "out_bias", "mlp_bias"), True)
        query_scale = 1.0 if value_read(config, "scale_attn_weights") else head_dim**0.5
        hidden = value_read(config, "n_inner") or 4 * config.hidden_size
        return {
            "norm": "layer",
            "gated_mlp": False,
            "intermediate_size": hidden,
            "query_scale": query_scale,
            **biases,
        }
    return {}


def value_read(config: Any, key: str) -> Any:
    """Returns the value of an optional key, or None if the code of the model's family does not read it."""
    return getattr(config, key, None) if key in KEYS_READ[config.model_type] else None


def first_value(config: Any, keys: tuple[str, ...]) -> Any:
    """Returns the value of the first of several keys that a configuration has."""
    return next((getattr(config, key) for key in keys if hasattr(config, key)), None)
