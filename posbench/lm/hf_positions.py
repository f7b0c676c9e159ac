"""Position scheme of a pretrained model, read from its transformers configuration.

A converted model keeps the scheme of its pretraining: half-split rotation of heads or of a part of them, in some
families without rotation in some layers, with a sliding window, another rotation by layer type, or learned sinks; in
GPT-2 a table of positions. The scaling of the rotation is an extension around that scheme (`hf_rope_scaling`).

No module outside `schemes`, `extensions` and these two names any of them; here they stand for the names in a
configuration.
"""

from __future__ import annotations

from typing import Any

from posbench.errors import IncompatibleError
from posbench.lm.hf_families import KEYS_READ, value_read

Settings = dict[str, Any]

ROPE = "posbench.schemes.rope.RoPE"
NOPE = "posbench.schemes.nope.NoPE"
PARTIAL_ROPE = "posbench.schemes.partial_rope.PartialRoPE"
LEARNED, LEARNED_SINK = "posbench.schemes.learned.Learned", "posbench.schemes.learned_sink.LearnedSink"
WINDOW, LONG_WINDOW = "posbench.schemes.window.Window", "posbench.schemes.window.LongWindow"
STACK, LAYERED = "posbench.position.compose.Stack", "posbench.position.compose.Layered"

# Types of layers in transformers.
FULL, SLIDING = "full_attention", "sliding_attention"
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
    return sorted({one["rope_type"] for one in layer_rope_parameters(config).values() if is_scaled(one)})


def is_scaled(rope: Settings) -> bool:
    """Returns whether RoPE parameters scale the rotation."""
    return rope.get("rope_type", "default") != "default"


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


def scheme_settings(config: Any, train_len: int) -> Settings:
    """Returns the settings that build the scheme of a converted model of a training length, without RoPE scaling.

    Raises:
        IncompatibleError: if no scheme of this package has these positions.
    """
    if config.model_type == "gpt2":
        return {"_target_": LEARNED}
    schemes: list[Settings] = []
    layers = []
    for rope, window in zip(layer_rotations(config), layer_windows(config), strict=True):
        parts = [rotation(config, rope)] if rope else []
        kind = WINDOW if window <= train_len else LONG_WINDOW
        parts += [{"_target_": kind, "window": window}] if window else []
        scheme = (
            {"_target_": STACK, "schemes": parts} if len(parts) > 1 else (parts or [{"_target_": NOPE}])[0]
        )
        if config.model_type == "gpt_oss":
            scheme = {"_target_": LEARNED_SINK, "base_scheme": scheme}
        if scheme not in schemes:
            schemes.append(scheme)
        layers.append(schemes.index(scheme))
    return schemes[0] if len(schemes) == 1 else {"_target_": LAYERED, "schemes": schemes, "layers": layers}


def rotation(config: Any, rope: Settings) -> Settings:
    """Returns the settings of the rotation that RoPE parameters describe, without its scaling."""
    given = {"rope_theta": float(rope["rope_theta"]), "interleaved": False}
    if (share := rotated_share(config, rope)) != 1:
        return {"_target_": PARTIAL_ROPE, "partial_rotary_factor": share, **given}
    return {"_target_": ROPE, **given}


def rotated_share(config: Any, rope: Settings) -> float:
    """Returns the share of a head's dimensions that rotates.

    Raises:
        IncompatibleError: if the code of the family rotates a part only where it scales the rotation.
    """
    share = float(rope.get("partial_rotary_factor") or 1.0)
    if "partial_rotary_factor" in KEYS_READ[config.model_type]:
        return share
    if share != 1 and is_scaled(rope):
        raise IncompatibleError("it rotates only a part of each head (partial_rotary_factor)")
    return 1.0


def layer_types(config: Any) -> list[str]:
    """Returns the type of each layer, full_attention or sliding_attention.

    Raises:
        IncompatibleError: if the configuration has other types, or not one for each layer.
    """
    count = config.num_hidden_layers
    types = value_read(config, "layer_types")
    if types is None:
        return [SLIDING if value_read(config, "sliding_window") else FULL] * count
    if len(types) != count or not set(types) <= {FULL, SLIDING}:
        raise IncompatibleError(f"its layer_types are not {count} of {FULL} and {SLIDING}")
    return list(types)


def rotary_layers(config: Any) -> list[bool]:
    """Returns for each layer whether it rotates queries and keys."""
    rotates = value_read(config, "no_rope_layers")  # despite its name, 1 for layers with RoPE
    n_layers = config.num_hidden_layers
    return [True] * n_layers if rotates is None else [bool(one) for one in rotates[:n_layers]]


def layer_rotations(config: Any) -> list[Settings | None]:
    """Returns the RoPE parameters of each layer; None for a layer without rotation.

    Raises:
        IncompatibleError: if a layer that rotates has no parameters.
    """
    by_type = layer_rope_parameters(config)
    found = [by_type.get(None, by_type.get(one)) for one in layer_types(config)]
    rotations = [
        rope if rotates else None for rope, rotates in zip(found, rotary_layers(config), strict=True)
    ]
    if any(rotates and not rope for rope, rotates in zip(found, rotary_layers(config), strict=True)):
        raise IncompatibleError("it has layers without a rope_theta")
    return rotations


def layer_windows(config: Any) -> list[int]:
    """Returns the sliding window of each layer in tokens, the query's own included; 0 for full attention."""
    window = value_read(config, "sliding_window") or 0
    return [window if one == SLIDING else 0 for one in layer_types(config)]
