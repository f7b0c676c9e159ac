"""Rotary tools: angular frequencies, their cosines and sines, and the rotation of pairs of dimensions.

Su et al. RoFormer: Enhanced Transformer with Rotary Position Embedding. 2021, section 3.2. arXiv:2104.09864.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from posbench.errors import ConfigError
from posbench.position.scheme import AttentionInputs

CosSin = tuple[Tensor, Tensor]


def compute_inv_freq(
    dims: int, base: float, of: str = "head dimension", setting: str = "rope_theta"
) -> Tensor:
    """Returns the angular frequencies base^(-2m/dims), m = 0 .. dims/2 - 1, in float64 radians per token.

    Args:
        dims: number of dimensions that rotate, two for each frequency.
        base: rope_theta of transformers.
        of, setting: names of `dims` and `base` in the errors.

    Raises:
        ConfigError: if `dims` is odd or `base` is not above 1.
    """
    if dims % 2:
        raise ConfigError(
            f"sines and cosines take pairs of dimensions, and the {of} is {dims}: choose an even one (size.d_model, "
            "size.n_heads or size.head_dim)"
        )
    if not base > 1:
        raise ConfigError(
            f"{setting} {base} of the angular frequencies: give a number above 1 (10000 in the papers)"
        )
    return base ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims)


def transform_inv_freq(inv_freq_M: Tensor, inputs: AttentionInputs) -> Tensor:
    """Applies the changes of `inputs.inv_freq_transforms` to (M,) angular frequencies, the innermost extension first."""
    for transform in reversed(inputs.inv_freq_transforms):
        inv_freq_M = transform(inv_freq_M)
    return inv_freq_M


def cos_sin(pos_T: Tensor, inv_freq_M: Tensor, dtype: torch.dtype) -> CosSin:
    """Returns the cosines and sines of position * frequency, (T, M) each.

    Angles are computed in float64 and rounded once: bfloat16 holds no odd integer above 256 exactly, and float32
    angles lose digits as positions grow.

    Args:
        pos_T: positions in tokens, of any dtype.
        inv_freq_M: float64 radians per token.
        dtype: of the result.
    """
    angle_TM = pos_T.double()[:, None] * inv_freq_M
    return angle_TM.cos().to(dtype), angle_TM.sin().to(dtype)


def rotary_dtype(x: Tensor) -> torch.dtype:
    """Returns the dtype in which tensors like `x` are rotated: float64 for float64, otherwise float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def rotary_cos_sin(
    inv_freq_M: Tensor, inputs: AttentionInputs, owner: object, n_pairs: int | None = None
) -> tuple[CosSin, CosSin]:
    """Returns (cos, sin) at the queries and (cos, sin) at the keys, (T, M) and (S, M); kept on the geometry for `owner`.

    Args:
        inv_freq_M: float64 radians per token, before the changes of extensions.
        owner: hashable object that computes the same frequencies at every call, such as a scheme without trained ones.
        n_pairs: number of pairs M of the result, by default that of the frequencies. Pairs past the last frequency have
            the angle 0.
    """
    dtype = rotary_dtype(inputs.q_BHTD)

    def compute() -> tuple[CosSin, CosSin]:
        inv_freq = transform_inv_freq(inv_freq_M.to(inputs.geo.q_pos_T.device), inputs)
        padding = (0, (n_pairs or len(inv_freq)) - len(inv_freq))

        def at(pos_T: Tensor) -> CosSin:
            cos_TM, sin_TM = cos_sin(pos_T, inv_freq, dtype)
            return F.pad(cos_TM, padding, value=1.0), F.pad(sin_TM, padding)

        return at(inputs.geo.q_pos_T), at(inputs.geo.k_pos_S)

    return inputs.geo.memo((owner, inputs.inv_freq_transforms, dtype), compute)


def rotate(x_BHTD: Tensor, cos_TM: Tensor, sin_TM: Tensor, interleaved: bool) -> Tensor:
    """Rotates each pair of dimensions by its angle; returns the shape and dtype of `x_BHTD`.

    Half-split (Llama, GPT-NeoX) pairs m with m + D/2, interleaved (RoFormer, GPT-J) pairs 2m with 2m + 1: the
    same family of functions, up to a permutation of the dimensions.

    Args:
        cos_TM, sin_TM: of the angle of each token and pair, M = D / 2.
    """
    if interleaved and not torch.compiler.is_compiling():
        return Rotation(cos_TM, sin_TM)(x_BHTD)
    first, second = (x_BHTD[..., 0::2], x_BHTD[..., 1::2]) if interleaved else x_BHTD.chunk(2, -1)
    pairs = first * cos_TM - second * sin_TM, second * cos_TM + first * sin_TM
    rotated = torch.stack(pairs, -1).flatten(-2) if interleaved else torch.cat(pairs, -1)
    return rotated.to(x_BHTD.dtype)


class Rotation:
    """The rotation of interleaved pairs as a complex product, which takes a third of the time of four real ones.

    The compiler generates no code for complex numbers.

    Args:
        cos_TM, sin_TM: of the angle of each token and pair, float32 or float64.
    """

    def __init__(self, cos_TM: Tensor, sin_TM: Tensor) -> None:
        self.factor_TM = torch.complex(cos_TM, sin_TM)
        self.dtype = cos_TM.dtype
        self._tables: dict[tuple[int, bool], Tensor] = {}

    def __call__(self, x_BHTD: Tensor) -> Tensor:
        """Returns the rotated dimensions, of the shape and dtype of `x_BHTD`."""
        x = x_BHTD.to(self.dtype)
        rotated = self.rotate(x) if self.factor_TM.requires_grad else _FixedRotation.apply(x, self)
        return rotated.to(x_BHTD.dtype)

    def rotate(self, x_BHTD: Tensor, backwards: bool = False) -> Tensor:
        """Multiplies pairs of dimensions by the factors, or by their conjugates."""
        heads, dims = x_BHTD.shape[1], x_BHTD.shape[-1]
        if x_BHTD.stride(1) == dims and self.factor_TM.dim() == 2 and len(x_BHTD) > 1:
            # A slice of a projection, with the heads of a token side by side: one long product for each token.
            turned_BTF = _multiply(x_BHTD.transpose(1, 2).flatten(-2), self._table(heads, backwards))
            return turned_BTF.unflatten(-1, (heads, dims)).transpose(1, 2)
        return _multiply(x_BHTD, self._table(1, backwards))

    def _table(self, heads: int, backwards: bool) -> Tensor:
        """Returns the factors, repeated for the heads of a token."""
        key = heads, backwards
        if key not in self._tables:
            factor = self.factor_TM.conj().resolve_conj() if backwards else self.factor_TM
            self._tables[key] = factor.repeat(1, heads) if heads > 1 else factor
        return self._tables[key]


def _multiply(x: Tensor, factor: Tensor) -> Tensor:
    *strides, last = x.stride()
    if last != 1 or any(stride % 2 for stride in (*strides, x.storage_offset())):
        x = x.contiguous()  # a gradient may have any layout
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * factor).flatten(-2)


class _FixedRotation(torch.autograd.Function):
    """`Rotation` by fixed angles; autograd's own backward pass copies the gradient twice between real and complex."""

    @staticmethod
    def forward(ctx: Any, x_BHTD: Tensor, rotation: Rotation) -> Tensor:
        ctx.rotation = rotation
        return rotation.rotate(x_BHTD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, None]:
        return ctx.rotation.rotate(d_out, backwards=True), None


def rotate_qk(
    inv_freq_M: Tensor, inputs: AttentionInputs, owner: object, interleaved: bool
) -> tuple[Tensor, Tensor]:
    """Returns queries and keys with pair m of each head rotated by position * inv_freq_M[m].

    Pairs past the last frequency are not rotated. Cosines and sines are kept on the geometry for `owner`.

    Args:
        inv_freq_M: float64 radians per token, before the changes of extensions.
        owner: see `rotary_cos_sin`.
        interleaved: see `rotate`.

    Returns:
        (B, H, T, D) and (B, H, S, D), in the dtype of the inputs.
    """
    n_pairs = inputs.q_BHTD.shape[-1] // 2
    at_q, at_k = rotary_cos_sin(inv_freq_M, inputs, owner, n_pairs)
    if not interleaved or torch.compiler.is_compiling():
        return rotate(inputs.q_BHTD, *at_q, interleaved), rotate(inputs.k_BHSD, *at_k, interleaved)
    key = owner, inputs.inv_freq_transforms, at_q[0].dtype, Rotation
    rotate_q, rotate_k = inputs.geo.memo(key, lambda: (Rotation(*at_q), Rotation(*at_k)))
    return rotate_q(inputs.q_BHTD), rotate_k(inputs.k_BHSD)
