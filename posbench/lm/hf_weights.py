"""Conversion of pretrained transformers decoders to GPTs of this package, so that every extension applies to them.

Llama (with SmolLM and SmolLM2), Mistral, Qwen2, Qwen3 and SmolLM3: pre-norm, RMSNorm, SwiGLU, grouped-query attention,
half-split rotation. These families share their module names in transformers; here the projections of queries, keys
and values are one matrix. tests/lm/test_convert.py compares logits with transformers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from posbench.errors import DataError, IncompatibleError
from posbench.model.architecture import Architecture
from posbench.model.gpt import GPT
from posbench.position.scheme import PositionScheme

# Optional keys of a configuration that the code of each family in transformers reads. Others have no effect on it.
KEYS_READ = {
    "llama": ("attention_bias", "mlp_bias"),
    "mistral": ("sliding_window",),
    "qwen2": ("sliding_window", "layer_types"),
    "qwen3": ("attention_bias", "sliding_window", "layer_types"),
    "smollm3": ("attention_bias", "mlp_bias", "sliding_window", "layer_types", "no_rope_layers"),
}
SUPPORTED_MODEL_TYPES = tuple(KEYS_READ)
# Modules of a block with one counterpart in transformers; weights and biases keep their names.
MODULES = {
    "attention_norm": "input_layernorm",
    "attention.out": "self_attn.o_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
# Modules whose rows are concatenated to `qkv`.
QKV_MODULES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def architecture_from_hf_config(config: Any) -> Architecture:
    """Returns the architecture that a transformers configuration describes.

    Raises:
        IncompatibleError: if the GPT of this package does not implement it.
    """
    family = config.model_type
    if family not in SUPPORTED_MODEL_TYPES:
        raise IncompatibleError(f"{family} is not one of {', '.join(SUPPORTED_MODEL_TYPES)}")
    if config.hidden_act != "silu":
        raise IncompatibleError(f"its MLP uses {config.hidden_act}, not silu")
    attention_bias = bool(value_read(config, "attention_bias"))
    return Architecture(
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        n_heads=config.num_attention_heads,
        n_kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        gated_mlp=True,
        norm_eps=config.rms_norm_eps,
        qkv_bias=attention_bias or family == "qwen2",
        out_bias=attention_bias,
        mlp_bias=bool(value_read(config, "mlp_bias")),
        qk_norm=family == "qwen3",
        tie_embeddings=bool(config.tie_word_embeddings),
    )


def value_read(config: Any, key: str) -> Any:
    """Returns the value of an optional key, or None if the code of the model's family does not read it."""
    return getattr(config, key, None) if key in KEYS_READ[config.model_type] else None


def from_hf_state_dict(
    state_dict: dict[str, Tensor], architecture: Architecture, scheme: PositionScheme, name: str
) -> GPT:
    """Builds a GPT with the weights of a transformers model, in evaluation mode.

    The embeddings are tied if the loaded model ties them: transformers unties them if the file has an output matrix of
    its own, whatever the configuration says.

    Args:
        state_dict: state dict of the transformers model; emptied, so that no weight is in memory twice for long.
        architecture: see `architecture_from_hf_config`.
        scheme: position scheme of the GPT.
        name: name of the model in error messages.

    Raises:
        DataError: if the weights do not fit the architecture.
    """
    try:
        tied = is_tied(state_dict["model.embed_tokens.weight"], state_dict["lm_head.weight"])
        architecture = replace(architecture, tie_embeddings=tied)
        weights = rename_weights(state_dict, architecture)
    except KeyError as error:
        raise DataError(f"{name} has no weight {error}; check that the folder is complete") from None
    unknown = [key for key in state_dict if not key.endswith("rotary_emb.inv_freq")]
    if unknown:
        raise DataError(
            f"{name} has weights that its family does not, such as {unknown[0]}; choose another model"
        )
    with torch.device("meta"):
        model = GPT(architecture, len(weights["embedding.weight"]), scheme, seed=None)
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise DataError(
            f"{name} does not have the weights that its config.json describes ({first})"
        ) from None
    if architecture.tie_embeddings:  # load_state_dict with assign=True creates two parameters
        model.head.weight = model.embedding.weight
    return model.eval()


def is_tied(embedding: Tensor, head: Tensor) -> bool:
    """Returns whether two matrices are one tensor in memory."""
    return embedding.shape == head.shape and embedding.data_ptr() == head.data_ptr()


def rename_weights(state_dict: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Moves the tensors of a transformers state dict to a new one under the names of the GPT."""
    weights = {
        "embedding.weight": state_dict.pop("model.embed_tokens.weight"),
        "final_norm.weight": state_dict.pop("model.norm.weight"),
    }
    head = state_dict.pop("lm_head.weight")
    weights["head.weight"] = weights["embedding.weight"] if architecture.tie_embeddings else head
    for layer in range(architecture.n_layers):
        hf_block, block = f"model.layers.{layer}.", f"blocks.{layer}."
        for kind in ("weight", "bias"):
            qkv = [f"{hf_block}{module}.{kind}" for module in QKV_MODULES]
            if qkv[0] in state_dict:
                weights[f"{block}attention.qkv.{kind}"] = torch.cat([state_dict.pop(key) for key in qkv])
            for module, hf_module in MODULES.items():
                if f"{hf_block}{hf_module}.{kind}" in state_dict:
                    weights[f"{block}{module}.{kind}"] = state_dict.pop(f"{hf_block}{hf_module}.{kind}")
    return weights
