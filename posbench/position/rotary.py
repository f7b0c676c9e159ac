"""Rotation of pairs of dimensions, in both layouts, for every scheme and extension that rotates."""

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.errors import ConfigError
from posbench.position.scheme import AttentionInputs


def compute_inv_freq(
    dims: int, base: float, of: str = "head dimension", setting: str = "rope_theta"
) -> Tensor:
    """(dims/2,) float64 radians per token: base^(-2m/dims). RoFormer, section 3.2.2. arXiv:2104.09864."""
    if dims % 2:
        raise ConfigError(
            f"sines and cosines take pairs of dimensions and the {of} is {dims}: choose a width and heads with an "
            "even width / heads"
        )
    if not base > 1:
        raise ConfigError(
            f"{setting} {base} of the angular frequencies: give a number above 1 (10000 in the papers)"
        )
    return base ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims)


def rotate(x_BHTD: Tensor, cos_TM: Tensor, sin_TM: Tensor, interleaved: bool) -> Tensor:
    """Each pair of dimensions turned by its angle.

    Half-split (Llama, NeoX) pairs m with m + D/2, interleaved (RoFormer, GPT-J) pairs 2m with 2m + 1: the
    same family of functions, up to a permutation of the dimensions.
    """
    if interleaved and not torch.compiler.is_compiling():  # the compiler makes no code for complex numbers
        # One complex product takes a third of the time of four real ones, forward and backward.
        pairs_BHTM = torch.view_as_complex(x_BHTD.to(cos_TM.dtype).unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs_BHTM * torch.complex(cos_TM, sin_TM)).flatten(-2)
    first, second = (x_BHTD[..., 0::2], x_BHTD[..., 1::2]) if interleaved else x_BHTD.chunk(2, -1)
    turned = first * cos_TM - second * sin_TM, second * cos_TM + first * sin_TM
    return torch.stack(turned, -1).flatten(-2) if interleaved else torch.cat(turned, -1)


def rotary_cos_sin(
    inv_freq_M: Tensor, inputs: AttentionInputs, owner: object
) -> tuple[tuple[Tensor, Tensor], ...]:
    """((cos, sin) at the queries, (cos, sin) at the keys), each (T or S, M); kept on the geometry for `owner`.

    Angles are computed in float64 and rounded once: bfloat16 holds no integer above 256 exactly, and
    float32 angles lose digits with the position.
    """
    dtype = torch.float64 if inputs.q_BHTD.dtype == torch.float64 else torch.float32

    def compute() -> tuple[tuple[Tensor, Tensor], ...]:
        inv_freq = inv_freq_M.to(inputs.geo.q_pos_T.device)
        for change in reversed(inputs.inv_freq_transforms):
            inv_freq = change(inv_freq)
        both_sides = []
        for pos in (inputs.geo.q_pos_T, inputs.geo.k_pos_S):
            angle = pos.double()[:, None] * inv_freq
            both_sides.append((angle.cos().to(dtype), angle.sin().to(dtype)))
        return tuple(both_sides)

    return inputs.geo.memo((owner, inputs.inv_freq_transforms, dtype), compute)


def pad_unrotated(at_TM: tuple[Tensor, Tensor], pairs: int) -> tuple[Tensor, Tensor]:
    """(cos, sin) for `pairs` pairs of dimensions, of which those past the given ones do not turn."""
    cos_TM, sin_TM = at_TM
    rest = (0, pairs - cos_TM.shape[-1])
    return F.pad(cos_TM, rest, value=1.0), F.pad(sin_TM, rest)
