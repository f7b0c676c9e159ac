"""Models that are one of transformers' own families in all but name.

A pretrained model remains of its family as long as transformers has its extension as a RoPE scaling. A model that is
trained here has RMSNorm and an MLP without a gate, so it is never a Llama, a Qwen or a GPT-2; with RoPE it is an
Arcee: half-split rotation is the interleaved one of permuted dimensions, and the bias of the output projection is 0.

What is exported is compared: logits of transformers' model must be those of the model here.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from posbench.errors import PosbenchError
from posbench.export.source_model import SourceModel
from posbench.lm import hf_check, hf_rope_scaling
from posbench.lm.hf_families import ACTIVATIONS, architecture_from_hf_config
from posbench.lm.hf_loading import load_config
from posbench.lm.hf_positions import ROPE, layer_rope_parameters, stated_len
from posbench.lm.hf_weights import to_hf_state_dict


def as_family(source: SourceModel, bos: int | None) -> Any | None:
    """Returns the transformers model that equals a model, or None if there is none.

    Args:
        bos: id at the start of a document, which also ends one.
    """
    from transformers import AutoModelForCausalLM

    config = pretrained_config(source) if source.pretrained else arcee_config(source, bos)
    if config is None:
        return None
    weights = to_hf_state_dict(source.model, config.model_type)
    if not source.pretrained:
        weights = arcee_weights(source, weights)
    dtype = source.model.embedding.weight.dtype
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    keys = model.load_state_dict(weights, strict=False)
    if source.pretrained:
        model.generation_config = source.generation
    if keys.unexpected_keys or any(not key.endswith("inv_freq") for key in keys.missing_keys):
        return None
    return model.eval() if equal(source, model.eval()) else None


def pretrained_config(source: SourceModel) -> Any | None:
    """Returns the configuration of a pretrained model with the extension as its scaling; None if there is none."""
    assert source.pretrained is not None
    config = copy.deepcopy(load_config(source.pretrained.settings))
    if source.extension.build == source.pretrained.scaling.build:
        return config
    scaling = rope_scaling(source)
    layers = layer_rope_parameters(config)
    if scaling is None or list(layers) != [None]:
        return None
    kept = {key: layers[None][key] for key in ("rope_theta", "partial_rotary_factor") if key in layers[None]}
    config.rope_parameters = kept | scaling
    config.max_position_embeddings = reached(source, scaling)
    config.standardize_rope_params()
    return config


def arcee_config(source: SourceModel, bos: int | None) -> Any | None:
    """Returns the configuration of a model trained here as an Arcee; None unless it has RoPE in every layer."""
    from transformers import AutoConfig

    own, rope = source.model.architecture, source.scheme
    scaling = {"rope_type": "default"} if source.extension.build is None else rope_scaling(source)
    names = [name for name, ours in ACTIVATIONS.items() if ours == own.activation]
    if rope.get("_target_") != ROPE or scaling is None or not names:
        return None
    config = AutoConfig.for_model(
        "arcee",
        vocab_size=len(source.model.embedding.weight),
        hidden_size=own.d_model,
        intermediate_size=own.intermediate_size,
        num_hidden_layers=own.n_layers,
        num_attention_heads=own.n_heads,
        num_key_value_heads=own.n_kv_heads,
        head_dim=own.head_dim,
        hidden_act=names[0],
        rms_norm_eps=own.norm_eps,
        attention_bias=own.qkv_bias,
        mlp_bias=own.mlp_bias,
        tie_word_embeddings=own.tie_embeddings,
        max_position_embeddings=reached(source, scaling),
        rope_parameters={"rope_theta": float(rope.get("rope_theta", 10000.0)), **scaling},
        bos_token_id=bos,
        eos_token_id=bos,
    )
    read = replace(architecture_from_hf_config(config), out_bias=own.out_bias)
    return config if read == own else None


def arcee_weights(source: SourceModel, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights with queries and keys in the order of a half-split rotation, and output biases of 0."""
    own, found = source.model.architecture, dict(weights)
    for name, tensor in weights.items():
        if source.scheme.get("interleaved", True) and ("q_proj" in name or "k_proj" in name):
            pairs = tensor.unflatten(0, (-1, own.head_dim // 2, 2))  # heads, frequencies, the two of a pair
            found[name] = pairs.transpose(1, 2).flatten(0, 2).contiguous()
        if name.endswith("o_proj.weight") and own.qkv_bias and not own.out_bias:
            found[name.replace("weight", "bias")] = torch.zeros_like(tensor[:, 0])
    return found


def rope_scaling(source: SourceModel) -> dict[str, Any] | None:
    """Returns an extension as RoPE parameters of transformers, without rope_theta; None if it has no such form."""
    extension: Any = source.extended().scheme
    given = source.extension.build or {}
    factor, original = (
        getattr(extension, "factor", 1.0),
        {"original_max_position_embeddings": source.train_len},
    )
    match given.get("_target_"):
        case hf_rope_scaling.LINEAR:
            return {"rope_type": "linear", "factor": factor}
        case hf_rope_scaling.DYNAMIC:
            return {"rope_type": "dynamic", "factor": factor}
        case hf_rope_scaling.LLAMA3:
            ends: dict[str, Any] = {
                key: float(given[key]) for key in ("low_freq_factor", "high_freq_factor") if key in given
            }
            return {"rope_type": "llama3", "factor": factor, **original, **ends}
        case hf_rope_scaling.YARN:
            ramp = {"truncate": given.get("ramp", "dimensions") != "fractional_dimensions"}
            betas: dict[str, Any] = {
                key: float(given[key]) for key in ("beta_fast", "beta_slow") if key in given
            }
            scale = {"attention_factor": given.get("temperature", 0.1) * math.log(factor) + 1}
            return {"rope_type": "yarn", "factor": factor, **original, **ramp, **betas, **scale}
        case hf_rope_scaling.LONGROPE:
            factors = {key: given[key] for key in ("long_factor", "short_factor") if given.get(key)}
            return (
                {"rope_type": "longrope", "factor": factor, **original, **factors}
                if len(factors) == 2
                else None
            )
    return None


def reached(source: SourceModel, scaling: dict[str, Any]) -> int:
    """Returns max_position_embeddings: for a scaling that does not state the training length, that length."""
    states_it = "original_max_position_embeddings" in scaling
    return max(source.train_len, source.length or 0) if states_it else source.train_len


def equal(source: SourceModel, model: Any) -> bool:
    """Returns whether logits of a transformers model are those of the model, at a short and at a long length."""
    longest = max(source.train_len, source.length or 0, stated_len(model.config))
    lengths = sorted({min(hf_check.SHORT, longest // 2 + 1), min(longest, hf_check.MAX_TOKENS)})
    texts = hf_check.check_texts(lengths, model.config.vocab_size, torch.device("cpu"))
    ours, extended = [], source.extended()
    try:
        theirs = hf_check.transformers_logits(model, texts, source.label)
    except PosbenchError:
        return False
    for ids_BT in texts:
        with torch.inference_mode():
            hidden_BTW, _ = extended(ids_BT, length=max(source.length or 0, ids_BT.shape[1]))
            ours.append(extended.head(hidden_BTW[0, -hf_check.POSITIONS :]).float())
    dtype = str(extended.embedding.weight.dtype).removeprefix("torch.")
    return hf_check.largest_difference(ours, theirs) <= hf_check.TOLERANCES[dtype]
