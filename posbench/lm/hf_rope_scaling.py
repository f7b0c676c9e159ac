"""RoPE scaling of a pretrained model as an extension around its scheme, with the model's own parameters.

It applies unless another extension is requested. Layer types with a scaling of their own, such as the full-attention
layers of OLMo 3 and Gemma 3, are extended alone.
"""

from __future__ import annotations

import math
from typing import Any

from posbench.errors import IncompatibleError
from posbench.lm.hf_families import KEYS_READ
from posbench.lm.hf_positions import (
    Settings,
    is_scaled,
    layer_rotations,
    pretraining_len,
    rope_types,
    rotated_share,
)

LINEAR = "posbench.extensions.pi.PositionInterpolation"
DYNAMIC = "posbench.extensions.dynamic_ntk.DynamicNTK"
LLAMA3 = "posbench.extensions.llama3.Llama3"
YARN = "posbench.extensions.yarn.YaRN"
LONGROPE = "posbench.extensions.longrope.LongRoPE"
ROTARY_SCALE = "posbench.position.rotary_scale.RotaryScale"
ON_LAYERS, CHAIN = "posbench.position.on_layers.OnLayers", "posbench.position.on_layers.Chain"


def scaling_settings(config: Any) -> Settings | None:
    """Returns the settings that build the configuration's RoPE scaling as an extension; None if it has no scaling.

    Raises:
        IncompatibleError: if no extension of this package equals the scaling.
    """
    if config.model_type == "gpt2":
        return None
    rotations = layer_rotations(config)
    found: list[tuple[Settings, list[int]]] = []
    for layer, rope in enumerate(rotations):
        if rope is None or not is_scaled(rope):
            continue
        extension = extension_settings(config, rope)
        for known, layers in found:
            if known == extension:
                layers.append(layer)
                break
        else:
            found.append((extension, [layer]))
    parts = [
        extension
        if len(layers) == len(rotations)
        else {"_target_": ON_LAYERS, "extension": extension, "layers": layers}
        for extension, layers in found
    ]
    return {"_target_": CHAIN, "extensions": parts} if len(parts) > 1 else next(iter(parts), None)


def ignored_keys(config: Any, requested: Settings) -> list[str]:
    """Returns the requested RoPE parameters that transformers replaces, or does not read beside the others.

    Args:
        config: a configuration whose standardized `rope_parameters` come from `requested`.
    """
    found = [key for key, value in requested.items() if config.rope_parameters.get(key) != value]
    temperature = [key for key in ("mscale", "mscale_all_dim") if requested.get(key)]
    if temperature and (len(temperature) == 1 or requested.get("attention_factor") is not None):
        found += temperature  # of yarn: both, in place of attention_factor
    is_partial = "partial_rotary_factor" in KEYS_READ.get(config.model_type, ("partial_rotary_factor",))
    if "partial_rotary_factor" in requested and not is_partial and not is_scaled(requested):
        found.append("partial_rotary_factor")
    return found


def at_own_length(config: Any, build: Settings | None, train_len: int) -> Settings | None:
    """Returns the settings of a scaling that scales from the configuration's length, where `train_len` is another."""
    own_len = pretraining_len(config)
    if build is None or own_len in (0, train_len) or rope_types(config) == ["linear"]:
        return build
    return {"_target_": CHAIN, "extensions": [build], "train_len": own_len}


def extension_settings(config: Any, rope: Settings) -> Settings:
    """Returns the settings of the extension that equals the scaling in RoPE parameters."""
    kind, train_len, given = rope["rope_type"], pretraining_len(config), rope.get("factor")
    original = rope.get("original_max_position_embeddings")
    if kind in ("llama3", "yarn", "longrope") and original != train_len:
        raise IncompatibleError("the scalings of its layer types begin at different lengths")
    factor = float(config.max_position_embeddings / train_len if given is None else given)
    if kind == "linear":
        return {"_target_": LINEAR, "factor": factor}
    if kind == "dynamic":
        # Unlike other types, transformers' dynamic scaling does not read original_max_position_embeddings.
        limit = config.max_position_embeddings
        own = {} if limit == train_len else {"original_max_position_embeddings": limit}
        return {"_target_": DYNAMIC, "factor": factor, **own}
    if kind == "llama3":
        ends = {key: float(rope[key]) for key in ("low_freq_factor", "high_freq_factor")}
        return {"_target_": LLAMA3, "factor": factor, **ends}
    partial = rotated_share(config, rope) != 1
    if kind == "yarn":
        value = attention_factor(rope, yarn_attention_factor(rope, factor))
        # transformers reads it at the top level, also where layer types have parameters of their own.
        ramp = {} if config.rope_parameters.get("truncate", True) else {"ramp": "fractional_dimensions"}
        extension = {
            "_target_": YARN,
            "factor": factor,
            **ramp,
            "beta_fast": float(rope.get("beta_fast") or 32),
            "beta_slow": float(rope.get("beta_slow") or 1),
            "temperature": 0.0 if partial else temperature(value, factor),
        }
        return scale_rotated_part(config, rope, extension, value) if partial else extension
    if kind == "longrope":
        # The temperature is 1 + ln k / ln L. A configured attention_factor is converted to the k that yields it.
        default = math.sqrt(1 + math.log(max(1.0, factor)) / math.log(train_len))
        value = attention_factor(rope, default)
        extension = {
            "_target_": LONGROPE,
            "factor": 1.0 if partial else math.exp((value**2 - 1) * math.log(train_len)),
            "long_factor": [float(one) for one in rope["long_factor"]],
            "short_factor": [float(one) for one in rope["short_factor"]],
        }
        return scale_rotated_part(config, rope, extension, value) if partial else extension
    raise IncompatibleError(f"its rope type {kind!r} is not one of linear, dynamic, yarn, llama3, longrope")


def scale_rotated_part(config: Any, rope: Settings, extension: Settings, value: float) -> Settings:
    """Returns the settings of an extension with a factor on the rotated dimensions, where a part of the head rotates."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    dims = int(rotated_share(config, rope) * head_dim)
    return {
        "_target_": CHAIN,
        "extensions": [extension, {"_target_": ROTARY_SCALE, "dims": dims, "scale": value}],
    }


def yarn_attention_factor(rope: Settings, factor: float) -> float:
    """Returns the factor on rotated queries and keys that transformers' yarn has by default."""
    mscale, mscale_all_dim, log = rope.get("mscale"), rope.get("mscale_all_dim"), math.log(factor)
    if mscale and mscale_all_dim:
        return (0.1 * mscale * log + 1) / (0.1 * mscale_all_dim * log + 1)
    return 0.1 * log + 1


def temperature(value: float, factor: float) -> float:
    """Returns t of YaRN's attention scaling, `value` = t * ln k + 1 on queries and keys each, with k = `factor`.

    Raises:
        IncompatibleError: if attention is scaled although `factor` is 1.
    """
    if factor == 1 and value != 1:
        raise IncompatibleError("its yarn has a temperature at factor 1")
    return 0.0 if factor == 1 else (value - 1) / math.log(factor)


def attention_factor(rope: Settings, default: float) -> float:
    """Returns the factor on rotated queries and keys; raises IncompatibleError if it is below 1."""
    given = rope.get("attention_factor")
    value = default if given is None else float(given)
    if value < 1:
        raise IncompatibleError(f"its attention_factor {value} is below 1")
    return value
