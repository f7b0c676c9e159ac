"""Position scheme and RoPE scaling of a pretrained model, read from its transformers configuration.

A converted model keeps the scheme of its pretraining: half-split rotation, in some families without rotation in some
layers or with a sliding window. The configuration's RoPE scaling becomes an extension around that scheme, with the
model's own parameters; it applies unless another extension is requested.

No other module outside `schemes` and `extensions` names any of them; here they stand for the names in a configuration.
"""

from __future__ import annotations

import math
from typing import Any

from posbench.errors import IncompatibleError
from posbench.lm.hf_weights import value_read

Settings = dict[str, Any]

ROPE = "posbench.schemes.rope.RoPE"
NOPE = "posbench.schemes.nope.NoPE"
WINDOW = "posbench.schemes.window.Window"
STACK, LAYERED = "posbench.position.compose.Stack", "posbench.position.compose.Layered"


# Keys of the training length, in the order in which they are looked for.
LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
    "n_ctx",
)


def layer_rope_parameters(config: Any) -> dict[str | None, Settings]:
    """Returns the standardized RoPE parameters by layer type; under None alone if all layers share them.

    Empty for a model without rotation. Layer types without rotation are left out.
    """
    if not getattr(config, "rope_parameters", None):
        return {}
    config.standardize_rope_params()
    parameters = config.rope_parameters
    nested = {key: dict(value) for key, value in parameters.items() if isinstance(value, dict)}
    return nested or {None: dict(parameters)}


def rope_parameters(config: Any) -> Settings:
    """Returns the standardized RoPE parameters of a transformers configuration; empty unless all layers share them."""
    return layer_rope_parameters(config).get(None, {})


def rope_types(config: Any) -> list[str]:
    """Returns transformers' names of the RoPE scalings of all layers; empty without scaling."""
    kinds = {one.get("rope_type", "default") for one in layer_rope_parameters(config).values()}
    return sorted(kinds - {"default"})


def pretraining_len(config: Any) -> int:
    """Returns the training length before RoPE scaling in tokens; 0 if the configuration does not contain it."""
    original = [
        length
        for one in layer_rope_parameters(config).values()
        if (length := one.get("original_max_position_embeddings"))
    ]
    return min(original, default=0) or stated_len(config)


def stated_len(config: Any) -> int:
    """Returns the longest text that the configuration states in tokens; 0 if it states none."""
    given = (getattr(config, key, None) for key in LENGTH_KEYS)
    return next((int(length) for length in given if length), 0)


def scheme_settings(config: Any) -> Settings:
    """Returns the settings that build the scheme of a converted model, without RoPE scaling.

    Raises:
        IncompatibleError: if no scheme of this package has these positions.
    """
    rope = rope_parameters(config)
    if not rope:
        raise IncompatibleError("it does not rotate all layers with one rope_theta")
    # transformers' code of these families reads it for scaled rotations only.
    if rope_types(config) and (rope.get("partial_rotary_factor") or 1.0) != 1.0:
        raise IncompatibleError("it rotates only a part of each head (partial_rotary_factor)")
    rotation: Settings = {"_target_": ROPE, "rope_theta": float(rope["rope_theta"]), "interleaved": False}
    schemes: list[Settings] = []
    layers = []
    for rotates, window in zip(rotary_layers(config), layer_windows(config), strict=True):
        scheme = rotation if rotates else {"_target_": NOPE}
        if window:
            windowed = {"_target_": WINDOW, "window": window}
            scheme = {"_target_": STACK, "schemes": [scheme, windowed]} if rotates else windowed
        if scheme not in schemes:
            schemes.append(scheme)
        layers.append(schemes.index(scheme))
    return schemes[0] if len(schemes) == 1 else {"_target_": LAYERED, "schemes": schemes, "layers": layers}


def rotary_layers(config: Any) -> list[bool]:
    """Returns for each layer whether it rotates queries and keys."""
    rotates = value_read(config, "no_rope_layers")  # despite its name, 1 for layers with RoPE
    n_layers = config.num_hidden_layers
    return [True] * n_layers if rotates is None else [bool(one) for one in rotates[:n_layers]]


def layer_windows(config: Any) -> list[int]:
    """Returns the sliding window of each layer in tokens, the query's own included; 0 for full attention.

    Raises:
        IncompatibleError: if a window is longer than the training length.
    """
    window = value_read(config, "sliding_window") or 0
    layer_types = value_read(config, "layer_types") or ["sliding_attention"] * config.num_hidden_layers
    windows = [window if one == "sliding_attention" else 0 for one in layer_types]
    if any(windows) and window > pretraining_len(config):
        raise IncompatibleError(f"its window of {window} tokens is longer than its training length")
    return windows


def scaling_settings(config: Any) -> Settings | None:
    """Returns the settings that build the configuration's RoPE scaling as an extension; None if it has no scaling.

    Raises:
        IncompatibleError: if no extension of this package equals the scaling.
    """
    rope, train_len = rope_parameters(config), pretraining_len(config)
    if not rope_types(config):
        return None
    (kind,) = rope_types(config)
    given = rope.get("factor")
    factor = float(config.max_position_embeddings / train_len if given is None else given)
    if kind == "linear":
        return {"_target_": "posbench.extensions.pi.PositionInterpolation", "factor": factor}
    if kind == "dynamic":
        # Unlike other types, transformers' dynamic scaling does not read original_max_position_embeddings.
        limit = config.max_position_embeddings
        own = {} if limit == train_len else {"original_max_position_embeddings": limit}
        return {"_target_": "posbench.extensions.dynamic_ntk.DynamicNTK", "factor": factor, **own}
    if kind == "llama3":
        return {
            "_target_": "posbench.extensions.llama3.Llama3",
            "factor": factor,
            "low_freq_factor": float(rope["low_freq_factor"]),
            "high_freq_factor": float(rope["high_freq_factor"]),
        }
    if kind == "yarn":
        if not rope.get("truncate", True):
            raise IncompatibleError("its yarn ramp starts and ends at fractional indices (truncate: false)")
        return {
            "_target_": "posbench.extensions.yarn.YaRN",
            "factor": factor,
            "beta_fast": float(rope.get("beta_fast") or 32),
            "beta_slow": float(rope.get("beta_slow") or 1),
            "temperature": temperature(config, factor),
        }
    if kind == "longrope":
        # The temperature is 1 + ln k / ln L. A configured attention_factor is converted to the k that yields it.
        default = math.sqrt(1 + math.log(max(1.0, factor)) / math.log(train_len))
        qk_scale = attention_factor(config, default) ** 2
        return {
            "_target_": "posbench.extensions.longrope.LongRoPE",
            "factor": math.exp((qk_scale - 1) * math.log(train_len)),
            "long_factor": [float(one) for one in rope["long_factor"]],
            "short_factor": [float(one) for one in rope["short_factor"]],
        }
    raise IncompatibleError(f"its rope type {kind!r} is not one of linear, dynamic, yarn, llama3, longrope")


def temperature(config: Any, factor: float) -> float:
    """Returns t of YaRN's attention scaling, t * ln k + 1 on queries and keys each, with k = `factor`.

    Raises:
        IncompatibleError: if attention is scaled although `factor` is 1.
    """
    rope = rope_parameters(config)
    mscale, mscale_all_dim = rope.get("mscale"), rope.get("mscale_all_dim")
    log = math.log(factor)
    default = 0.1 * log + 1
    if mscale and mscale_all_dim:
        default = (0.1 * mscale * log + 1) / (0.1 * mscale_all_dim * log + 1)
    value = attention_factor(config, default)
    if factor == 1 and value != 1:
        raise IncompatibleError("its yarn has a temperature at factor 1")
    return 0.0 if factor == 1 else (value - 1) / log


def attention_factor(config: Any, default: float) -> float:
    """Returns the factor on rotated queries and keys.

    Raises:
        IncompatibleError: if it is below 1, or some layers do not rotate and thus are not scaled.
    """
    given = rope_parameters(config).get("attention_factor")
    value = default if given is None else float(given)
    if value < 1:
        raise IncompatibleError(f"its attention_factor {value} is below 1")
    if value != 1 and not all(rotary_layers(config)):
        raise IncompatibleError("it has a temperature in its rotary layers only")
    return value
