"""Fault: settings that no float holds, or that no machine computes, ended in a traceback, in NaN or never."""

import math
from importlib import import_module
from typing import Any

import pytest
from calls import SHAPE

from posbench.errors import ConfigError

SETTINGS = [
    ("bigbird.BigBird", {"num_random_blocks": 3000}),
    ("fire.FIRE", {"init_c": 1e300}),
    ("fire.FIRE", {"init_threshold": math.inf}),
    ("floater.Floater", {"step": 1e300}),
    ("fope.FoPE", {"init_norm_gain": math.nan}),
    ("fox.FoX", {"decay_times": [0.01, 10.0]}),
    ("sandwich.Sandwich", {"dims": 3}),
    ("sandwich.Sandwich", {"dims": 1 << 30}),
    ("shifted_learned.ShiftedLearned", {"init_std": math.nan}),
    ("sinusoidal.Sinusoidal", {"scale": math.inf}),
    ("tapa.TAPA", {"alpha": 300.0}),
    ("xpos.XPos", {"gamma": 1e20}),
    ("xpos.XPos", {"scale_base": 1e308}),
]


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_a_line_names_the_setting(name: str, settings: dict[str, Any]) -> None:
    module, kind = name.split(".")
    with pytest.raises(ConfigError, match=rf"{module} .*{next(iter(settings))}"):
        getattr(import_module(f"posbench.schemes.{module}"), kind)(SHAPE, **settings)
