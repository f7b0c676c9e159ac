"""The positions of a pretrained model, as its configuration names them, in schemes and extensions of ours.

A converted model has the scheme that it was pretrained with: half-split rotation, in some families not in every
layer, in some within a window. What its configuration scales the rotation by is an extension of ours around that,
with the model's own numbers: the one in place while nobody asks for another.

The one place outside their files that names schemes and extensions: a configuration names them too.
"""

from __future__ import annotations

import math
from typing import Any

from posbench.errors import IncompatibleError

Settings = dict[str, Any]

ROTATION = "posbench.schemes.rope.RoPE"
NO_POSITIONS = "posbench.schemes.nope.NoPE"
WINDOW = "posbench.schemes.window.Window"
STACK, LAYERED = "posbench.position.compose.Stack", "posbench.position.compose.Layered"


def rope_parameters(config: Any) -> Settings:
    """The rope parameters of a transformers configuration, as transformers completes them; empty if it has none."""
    found = getattr(config, "rope_parameters", None) or {}
    if not found or any(isinstance(value, dict) for value in found.values()):
        return {}
    config.standardize_rope_params()
    return dict(config.rope_parameters)


def rope_type(config: Any) -> str:
    """transformers' name of what a configuration scales its rotation by; "default" is nothing."""
    return rope_parameters(config).get("rope_type", "default")


def pretraining_len(config: Any) -> int:
    """Tokens of pretraining, as far as a configuration tells; 0 if it does not."""
    before = rope_parameters(config).get("original_max_position_embeddings") or 0
    return int(before or getattr(config, "max_position_embeddings", None) or 0)


def scheme_settings(config: Any) -> Settings:
    """What builds the scheme of a converted model, without what its configuration scales the rotation by.

    Raises:
        IncompatibleError: for positions that no scheme of ours has.
    """
    rope = rope_parameters(config)
    if not rope:
        raise IncompatibleError("it does not rotate all layers by one base")
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise IncompatibleError("its attention turns a part of each head")
    turning: Settings = {"_target_": ROTATION, "rope_theta": float(rope["rope_theta"]), "interleaved": False}
    kinds: list[Settings] = []
    layers = []
    for turns, window in zip(turned(config), windows(config), strict=True):
        kind = turning if turns else {"_target_": NO_POSITIONS}
        if window:
            within = {"_target_": WINDOW, "window": window}
            kind = {"_target_": STACK, "schemes": [kind, within]} if turns else within
        if kind not in kinds:
            kinds.append(kind)
        layers.append(kinds.index(kind))
    return kinds[0] if len(kinds) == 1 else {"_target_": LAYERED, "schemes": kinds, "layers": layers}


def turned(config: Any) -> list[bool]:
    """Which layers rotate."""
    given = getattr(config, "no_rope_layers", None)  # 1 where a layer has it, in spite of the name
    count = config.num_hidden_layers
    return [True] * count if given is None else [bool(one) for one in given[:count]]


def windows(config: Any) -> list[int]:
    """Tokens that each layer sees, the token itself among them; 0 for all."""
    window = getattr(config, "sliding_window", None) or 0
    count = config.num_hidden_layers
    if not window or not getattr(config, "use_sliding_window", True):
        return [0] * count
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * count
    found = [window if kind == "sliding_attention" else 0 for kind in kinds]
    if any(found) and window > pretraining_len(config):
        raise IncompatibleError(f"its window of {window} tokens is longer than it was trained on")
    return found


def scaling_settings(config: Any) -> Settings | None:
    """What builds the extension that is the configuration's own scaling; None if it has none.

    Raises:
        IncompatibleError: for a scaling that no extension of ours has.
    """
    rope, before = rope_parameters(config), pretraining_len(config)
    kind = rope_type(config)
    if kind == "default":
        return None
    given = rope.get("factor")
    factor = float(config.max_position_embeddings / before if given is None else given)
    if kind == "linear":
        return {"_target_": "posbench.extensions.pi.PositionInterpolation", "factor": factor}
    if kind == "dynamic":
        return {"_target_": "posbench.extensions.dynamic_ntk.DynamicNTK", "factor": factor}
    if kind == "llama3":
        return {
            "_target_": "posbench.extensions.llama3.Llama3",
            "factor": factor,
            "low_freq_factor": float(rope["low_freq_factor"]),
            "high_freq_factor": float(rope["high_freq_factor"]),
        }
    if kind == "yarn":
        if not rope.get("truncate", True):
            raise IncompatibleError("its yarn has a ramp between fractions of an index (truncate: false)")
        return {
            "_target_": "posbench.extensions.yarn.YaRN",
            "factor": factor,
            "beta_fast": float(rope.get("beta_fast") or 32),
            "beta_slow": float(rope.get("beta_slow") or 1),
            "temperature": temperature(config, factor),
        }
    if kind == "longrope":
        # The temperature is 1 + ln k / ln L; a given one is the k that has it.
        qk_scale = amplitude(config, math.sqrt(1 + math.log(max(1.0, factor)) / math.log(before))) ** 2
        return {
            "_target_": "posbench.extensions.longrope.LongRoPE",
            "factor": math.exp((qk_scale - 1) * math.log(before)),
            "long_factor": [float(one) for one in rope["long_factor"]],
            "short_factor": [float(one) for one in rope["short_factor"]],
        }
    raise IncompatibleError(f"its rope type {kind!r} is none of linear, dynamic, yarn, llama3, longrope")


def temperature(config: Any, factor: float) -> float:
    """YaRN's: transformers multiplies q and k by temperature * ln k + 1 each, or by a number that is given."""
    rope = rope_parameters(config)
    by, over = rope.get("mscale"), rope.get("mscale_all_dim")
    log = math.log(factor)
    default = (0.1 * by * log + 1) / (0.1 * over * log + 1) if by and over else 0.1 * log + 1
    value = amplitude(config, default)
    if factor == 1 and value != 1:
        raise IncompatibleError("its yarn has a temperature at factor 1")
    return 0.0 if factor == 1 else (value - 1) / log


def amplitude(config: Any, default: float) -> float:
    """What queries and keys are multiplied by where they rotate."""
    given = rope_parameters(config).get("attention_factor")
    value = default if given is None else float(given)
    if value < 1:
        raise IncompatibleError(f"its attention_factor {value} is below 1")
    if value != 1 and not all(turned(config)):
        raise IncompatibleError("it has a temperature in those layers alone that rotate")
    return value
