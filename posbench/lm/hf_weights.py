"""Weights of transformers models under the names of a GPT of this package.

The projections of queries, keys and values are one matrix here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from posbench.errors import DataError
from posbench.model.architecture import Architecture
from posbench.model.gpt import GPT
from posbench.position.scheme import PositionScheme

HEAD = "lm_head.weight"


@dataclass(frozen=True)
class WeightNames:
    """Names of the weights of a family.

    Attributes:
        embedding, final_norm: modules outside the blocks.
        block: prefix of a block, with its index as {}.
        modules: module of a block of ours -> its modules there, whose rows are concatenated; weights and biases keep
            their names.
        tensors: parameter of a block of ours -> its name there.
        scheme: end of a parameter's name in the scheme -> its name there; stacked over the layers if it is in a block.
        transform: module of ours -> function of (tensor, architecture).
        split: module of a block there -> the modules of ours that share its rows.
    """

    embedding: str = "model.embed_tokens"
    final_norm: str = "model.norm"
    block: str = "model.layers.{}."
    modules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    scheme: Mapping[str, str] = field(default_factory=dict)
    transform: Mapping[str, Callable[[Tensor, Architecture], Tensor]] = field(default_factory=dict)
    split: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def by_head(tensor: Tensor, architecture: Architecture) -> Tensor:
    """Returns rows in the order queries, keys, values of rows in the order heads, then these three."""
    return tensor.unflatten(0, (architecture.n_heads, 3, -1)).transpose(0, 1).flatten(0, 2)


def by_part(tensor: Tensor, architecture: Architecture) -> Tensor:
    """Returns rows in the order heads, then queries, keys, values: the inverse of `by_head`."""
    return tensor.unflatten(0, (3, architecture.n_heads, -1)).transpose(0, 1).flatten(0, 2)


def transposed(tensor: Tensor, architecture: Architecture) -> Tensor:
    """Returns the weight of a linear layer of GPT-2's Conv1D; biases are returned as they are."""
    return tensor.t().contiguous()


ATTENTION = {
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.out": ("self_attn.o_proj",),
    "attention.q_norm": ("self_attn.q_norm",),
    "attention.k_norm": ("self_attn.k_norm",),
}
MLP = {"gate": ("mlp.gate_proj",), "up": ("mlp.up_proj",), "down": ("mlp.down_proj",)}
PRE_NORMS = {"attention_norm": ("input_layernorm",), "mlp_norm": ("post_attention_layernorm",)}
POST_NORMS = {
    "attention_post_norm": ("post_attention_layernorm",),
    "mlp_post_norm": ("post_feedforward_layernorm",),
}
INVERSES: dict[Any, Callable[[Tensor, Architecture], Tensor]] = {by_head: by_part, transposed: transposed}
LLAMA = WeightNames(modules=ATTENTION | MLP | PRE_NORMS)
NAMES = {
    "gemma3_text": WeightNames(
        modules=ATTENTION
        | MLP
        | POST_NORMS
        | {"attention_norm": ("input_layernorm",), "mlp_norm": ("pre_feedforward_layernorm",)}
    ),
    "olmo3": WeightNames(modules=ATTENTION | MLP | POST_NORMS),
    "gpt_oss": WeightNames(
        modules=ATTENTION | PRE_NORMS | {"experts.router": ("mlp.router",)},
        tensors={
            "experts.gate_up_EWI": "mlp.experts.gate_up_proj",
            "experts.gate_up_bias_EI": "mlp.experts.gate_up_proj_bias",
            "experts.down_EIW": "mlp.experts.down_proj",
            "experts.down_bias_EW": "mlp.experts.down_proj_bias",
        },
        scheme={"sink_LH": "self_attn.sinks"},
    ),
    "phi3": WeightNames(
        modules=PRE_NORMS
        | {
            "attention.qkv": ("self_attn.qkv_proj",),
            "attention.out": ("self_attn.o_proj",),
            "down": ("mlp.down_proj",),
        },
        split={"mlp.gate_up_proj": ("gate", "up")},
    ),
    "gpt_neox": WeightNames(
        "gpt_neox.embed_in",
        "gpt_neox.final_layer_norm",
        "gpt_neox.layers.{}.",
        modules=PRE_NORMS
        | {
            "attention.qkv": ("attention.query_key_value",),
            "attention.out": ("attention.dense",),
            "up": ("mlp.dense_h_to_4h",),
            "down": ("mlp.dense_4h_to_h",),
        },
        transform={"attention.qkv": by_head},
    ),
    "gpt2": WeightNames(
        "transformer.wte",
        "transformer.ln_f",
        "transformer.h.{}.",
        modules={
            "attention_norm": ("ln_1",),
            "attention.qkv": ("attn.c_attn",),
            "attention.out": ("attn.c_proj",),
            "mlp_norm": ("ln_2",),
            "up": ("mlp.c_fc",),
            "down": ("mlp.c_proj",),
        },
        scheme={"row_NW": "transformer.wpe.weight"},
        transform=dict.fromkeys(("attention.qkv", "attention.out", "up", "down"), transposed),
    ),
}


def from_hf_state_dict(
    state_dict: dict[str, Tensor],
    architecture: Architecture,
    scheme: PositionScheme,
    name: str,
    family: str = "llama",
) -> GPT:
    """Builds a GPT with the weights of a transformers model, in evaluation mode.

    The embeddings are tied if the loaded model ties them: transformers unties them if the file has an output matrix of
    its own, whatever the configuration has.

    Args:
        state_dict: state dict of the transformers model; emptied, so that no weight is in memory twice for long.
        architecture: see `architecture_from_hf_config`.
        scheme: position scheme of the GPT.
        name: name of the model in error messages.
        family: model type in transformers.

    Raises:
        DataError: if the weights do not fit the architecture.
    """
    names = NAMES.get(family, LLAMA)
    try:
        tied = is_tied(state_dict[f"{names.embedding}.weight"], state_dict[HEAD])
        architecture = replace(architecture, tie_embeddings=tied)
        weights = rename_weights(state_dict, architecture, names, scheme)
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
            f"{name} does not have the weights that its config.json describes ({first}): check that the folder is complete"
        ) from None
    if architecture.tie_embeddings:  # load_state_dict with assign=True creates two parameters
        model.head.weight = model.embedding.weight
    return model.eval()


def is_tied(embedding: Tensor, head: Tensor) -> bool:
    """Returns whether two matrices are one tensor in memory."""
    return embedding.shape == head.shape and embedding.data_ptr() == head.data_ptr()


def rename_weights(
    state_dict: dict[str, Tensor], architecture: Architecture, names: WeightNames, scheme: PositionScheme
) -> dict[str, Tensor]:
    """Moves the tensors of a transformers state dict to a new one under the names of the GPT."""
    head = state_dict.pop(HEAD)
    weights = {"embedding.weight": state_dict.pop(f"{names.embedding}.weight")}
    weights["head.weight"] = weights["embedding.weight"] if architecture.tie_embeddings else head
    weights["final_norm.weight"] = state_dict.pop(f"{names.final_norm}.weight")
    if architecture.norm == "layer":
        weights["final_norm.bias"] = state_dict.pop(f"{names.final_norm}.bias")
    for end, there in names.scheme.items():
        if there in state_dict:
            tensor = state_dict.pop(there)
        else:
            blocks = [names.block.format(layer) for layer in range(architecture.n_layers)]
            tensor = torch.stack([state_dict.pop(f"{block}{there}") for block in blocks])
        ours = [key for key in scheme.state_dict() if key.endswith(end)]
        weights |= {f"scheme.{key}": tensor for key in ours}
    for layer in range(architecture.n_layers):
        hf_block, block = names.block.format(layer), f"blocks.{layer}."
        for hf_module, modules in names.split.items():
            parts = state_dict.pop(f"{hf_block}{hf_module}.weight").chunk(len(modules))
            weights |= {f"{block}{one}.weight": part for one, part in zip(modules, parts, strict=True)}
        for parameter, there in names.tensors.items():
            weights[block + parameter] = state_dict.pop(hf_block + there)
        for kind in ("weight", "bias"):
            for module, hf_modules in names.modules.items():
                keys = [f"{hf_block}{one}.{kind}" for one in hf_modules]
                if keys[0] not in state_dict:
                    continue
                tensors = [state_dict.pop(key) for key in keys]
                joined = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
                if module in names.transform:
                    joined = names.transform[module](joined, architecture)
                weights[f"{block}{module}.{kind}"] = joined
    # gpt-oss keeps its norms in float32 when it is loaded in bfloat16, in which they are stored.
    dtype = weights["embedding.weight"].dtype
    return {key: tensor.to(dtype) if "norm" in key else tensor for key, tensor in weights.items()}


def to_hf_state_dict(model: GPT, family: str) -> dict[str, Tensor]:
    """Returns the weights of a GPT under the names of a family of transformers: the inverse of `from_hf_state_dict`.

    Args:
        model: under the scheme without an extension.
        family: model type in transformers.
    """
    names, architecture = NAMES.get(family, LLAMA), model.architecture
    ours = model.state_dict()
    outside = {
        "embedding": names.embedding,
        "final_norm": names.final_norm,
        "head": HEAD.removesuffix(".weight"),
    }
    found = {
        f"{there}.{kind}": ours[f"{module}.{kind}"]
        for module, there in outside.items()
        for kind in ("weight", "bias")
        if f"{module}.{kind}" in ours
    }
    blocks = [(f"blocks.{layer}.", names.block.format(layer)) for layer in range(architecture.n_layers)]
    for end, there in names.scheme.items():
        tensor = next(
            tensor for key, tensor in ours.items() if key.startswith("scheme.") and key.endswith(end)
        )
        if there.endswith(".weight"):  # of the model, not of a block
            found[there] = tensor
        else:
            found |= {f"{hf_block}{there}": one for (_, hf_block), one in zip(blocks, tensor, strict=True)}
    for block, hf_block in blocks:
        found |= {f"{hf_block}{there}": ours[block + name] for name, there in names.tensors.items()}
        for hf_module, parts in names.split.items():
            found[f"{hf_block}{hf_module}.weight"] = torch.cat(
                [ours[f"{block}{one}.weight"] for one in parts]
            )
        for module, hf_modules in names.modules.items():
            for kind in ("weight", "bias"):
                if (tensor := ours.get(f"{block}{module}.{kind}")) is None:
                    continue
                if module in names.transform:
                    tensor = INVERSES[names.transform[module]](tensor, architecture)
                pieces = tensor.split(architecture.qkv_sizes) if len(hf_modules) > 1 else [tensor]
                found |= {
                    f"{hf_block}{one}.{kind}": part for one, part in zip(hf_modules, pieces, strict=True)
                }
    return {key: tensor.contiguous() for key, tensor in found.items()}
