"""Settings of the model under test, which configs/lm/*.yaml fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from posbench.config.setting import DTYPES, MAX_COUNT, Rule, setting

PRETRAINED = {"kind": Rule(choices=("hugging_face",))}


@dataclass
class RopeScaling:
    """RoPE scaling in transformers' form; which fields a type reads is up to transformers."""

    rope_type: str = "default"
    factor: float = setting(1.0, least=1, most=MAX_COUNT)
    original_max_position_embeddings: int = setting(1, least=1, most=MAX_COUNT)
    low_freq_factor: float = setting(1.0, above=0)
    high_freq_factor: float = setting(4.0, above=0)
    attention_factor: float = setting(1.0, above=0)
    beta_fast: float = setting(32.0, above=0)
    beta_slow: float = setting(1.0, above=0)
    mscale: float = setting(1.0, above=0)
    mscale_all_dim: float = setting(1.0, above=0)
    short_factor: list[float] = setting(list, above=0, distinct=False)
    long_factor: list[float] = setting(list, above=0, distinct=False)
    truncate: bool = True
    rope_theta: float = setting(10000.0, above=1)
    partial_rotary_factor: float = setting(1.0, above=0, most=1)


@dataclass
class LMSettings:
    """The model that posbench evaluate measures: configs/lm."""

    kind: str = setting(
        "native", choices=("native", "hugging_face")
    )  # native (trained by posbench train) or hugging_face (pretrained)
    # The other fields are for hugging_face.
    name: str = setting("", used_with=PRETRAINED)  # a folder, or a name on the hub
    revision: str = setting("", used_with=PRETRAINED)  # on the hub: a commit, branch or tag; empty is main
    dtype: str = setting(
        "float32", choices=DTYPES, used_with=PRETRAINED
    )  # of the weights: float32 or bfloat16
    black_box: bool = setting(
        False, used_with=PRETRAINED
    )  # true runs transformers' implementation even where the model can be converted
    # training length in tokens; 0 is that of config.json
    train_len: int = setting(0, least=0, most=MAX_COUNT, used_with=PRETRAINED)
    # RoPE scaling in transformers' form, in place of the model's own; empty keeps it.
    rope_scaling: dict[str, Any] = setting(dict, keys_of=lambda: RopeScaling, used_with=PRETRAINED)
