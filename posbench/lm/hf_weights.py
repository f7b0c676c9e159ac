"""Pretrained decoders as models of ours, so that every extension applies to them.

Llama (SmolLM and SmolLM2 among them), Mistral, Qwen2, Qwen3 and SmolLM3: pre-norm, RMSNorm, SwiGLU, grouped
queries, half-split rotation. Their modules have one set of names in transformers; queries, keys and values are
one map here. Held to transformers' own logits in tests/lm/test_convert.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from posbench.errors import DataError, IncompatibleError
from posbench.model.architecture import Architecture
from posbench.model.gpt import GPT
from posbench.position.scheme import PositionScheme

SUPPORTED_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
# Everything below one of these in a block is a linear map or a norm of the same name with weight and bias.
SINGLE = {
    "attention_norm": "input_layernorm",
    "attention.out": "self_attn.o_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
STACKED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def architecture_from_hf_config(config: Any) -> Architecture:
    """What a transformers configuration describes, in our switches.

    Raises:
        IncompatibleError: for a family that our model is not made for.
    """
    family = config.model_type
    if family not in SUPPORTED_MODEL_TYPES:
        raise IncompatibleError(f"{family} is none of {', '.join(SUPPORTED_MODEL_TYPES)}")
    if config.hidden_act != "silu":
        raise IncompatibleError(f"its MLP has {config.hidden_act}, not silu")
    biased = bool(getattr(config, "attention_bias", False))
    return Architecture(
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        n_heads=config.num_attention_heads,
        n_kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        gated_mlp=True,
        norm_eps=config.rms_norm_eps,
        qkv_bias=biased or family == "qwen2",
        out_bias=biased,
        mlp_bias=bool(getattr(config, "mlp_bias", False)),
        qk_norm=family == "qwen3",
        tie_embeddings=bool(config.tie_word_embeddings),
    )


def from_hf_state_dict(
    theirs: dict[str, Tensor], own: Architecture, scheme: PositionScheme, name: str
) -> GPT:
    """A model of ours with their weights, in evaluation mode.

    Args:
        theirs: transformers' state dict; emptied on the way, so that no weight is held twice for long.
        name: for the error.

    Raises:
        DataError: if the weights are not those of the architecture.
    """
    try:
        weights = renamed(theirs, own)
    except KeyError as error:
        raise DataError(f"{name} has no weight {error}: is the folder whole?") from None
    left = [key for key in theirs if not key.endswith("rotary_emb.inv_freq")]
    if left:
        raise DataError(
            f"{name} has weights that its family does not, such as {left[0]}: choose another model"
        )
    with torch.device("meta"):
        model = GPT(own, len(weights["embedding.weight"]), scheme, seed=None)
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise DataError(
            f"{name} does not have the weights that its config.json describes ({first})"
        ) from None
    if own.tie_embeddings:  # assigning gave each a parameter of its own
        model.head.weight = model.embedding.weight
    return model.eval()


def renamed(theirs: dict[str, Tensor], own: Architecture) -> dict[str, Tensor]:
    """Their tensors under our names, taken out of `theirs`."""
    ours = {
        "embedding.weight": theirs.pop("model.embed_tokens.weight"),
        "final_norm.weight": theirs.pop("model.norm.weight"),
    }
    head = theirs.pop("lm_head.weight")
    ours["head.weight"] = ours["embedding.weight"] if own.tie_embeddings else head
    for layer in range(own.n_layers):
        there, here = f"model.layers.{layer}.", f"blocks.{layer}."
        for part in ("weight", "bias"):
            if f"{there}{STACKED[0]}.{part}" in theirs:
                ours[f"{here}attention.qkv.{part}"] = torch.cat(
                    [theirs.pop(f"{there}{one}.{part}") for one in STACKED]
                )
            for name, their_name in SINGLE.items():
                if f"{there}{their_name}.{part}" in theirs:
                    ours[f"{here}{name}.{part}"] = theirs.pop(f"{there}{their_name}.{part}")
    return ours
