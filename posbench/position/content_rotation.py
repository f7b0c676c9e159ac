"""Rotations by angles that depend on what the tokens are: the base of positions from content."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.position.numerics import autocast_disabled, upcast
from posbench.position.rotary import rotary_dtype, rotate
from posbench.position.scheme import AttentionInputs, PositionScheme, Traits


class AccumulatedRotation(PositionScheme):
    """Rotates pair m of queries and keys by the sum over the tokens so far of angles computed from each token.

    Angles are summed in float64, and whole turns are taken off before sines are computed in float32.
    """

    # The angle between two tokens depends on the tokens in between, and not on their positions.
    traits = Traits(relative=True, pairwise=False, reads_hidden_states=True)
    interleaved: bool

    def angles(self, inputs: AttentionInputs) -> Tensor:
        """Returns the angle of each key, (B, H or 1, S, M) float64 radians."""
        raise NotImplementedError

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        cos, sin = cos_sin_of(self.angles(inputs), inputs.q_BHTD)
        # Queries are the last of the keys.
        new = -inputs.q_BHTD.shape[2]
        q = rotate(inputs.q_BHTD, cos[:, :, new:], sin[:, :, new:], self.interleaved)
        return q, rotate(inputs.k_BHSD, cos, sin, self.interleaved)


def cos_sin_of(angle_BHSM: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the cosines and sines of float64 angles in the dtype in which tensors like `like` are rotated."""
    turned = torch.remainder(angle_BHSM, 2 * math.pi).to(rotary_dtype(like))
    return turned.cos(), turned.sin()


def project(x_BSW: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns a linear map of the tokens in float32 or float64, where sums over many tokens must not be rounded."""
    with autocast_disabled(x_BSW):
        return F.linear(upcast(x_BSW), upcast(weight), None if bias is None else upcast(bias))
