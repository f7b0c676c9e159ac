"""Fault: a TypeError, NaN or another formula where a scheme computes from the logits of a base that has none by pair."""

import pytest
import torch
from calls import SHAPE, attention_inputs

from posbench.errors import IncompatibleError
from posbench.position.compose import Stack
from posbench.schemes.asentmax import ASEntmax
from posbench.schemes.dape import DAPE
from posbench.schemes.scale_invariant import ScaleInvariant
from posbench.schemes.selective_attention import SelectiveAttention


@pytest.mark.parametrize("base", ["path.PaTH", "wall.Wall", "tapa.TAPA", "stick_breaking.StickBreaking"])
@pytest.mark.parametrize("outer", [ASEntmax, ScaleInvariant, DAPE, SelectiveAttention])
@torch.no_grad()
def test_logits_of_whole_rows(outer: type[Stack], base: str) -> None:
    scheme = outer(SHAPE, {"_target_": f"posbench.schemes.{base}"}).double()
    with pytest.raises(IncompatibleError, match="computes its logits from whole rows"):
        scheme.attention_bias(attention_inputs())


def test_two_denominators() -> None:
    """Softmax-one halved weights that entmax had already normalised."""
    scheme = ASEntmax(SHAPE, {"_target_": "posbench.schemes.softmax_one.SoftmaxOne"}).double()
    with pytest.raises(IncompatibleError, match="replaces the denominator"):
        scheme.attention_bias(attention_inputs())
