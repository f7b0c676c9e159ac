"""Schemes that replace softmax attention by a state of fixed size, on heads of the model or on larger ones."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from posbench.errors import ConfigError
from posbench.position.call import Kernel
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme


class StateScheme(PositionScheme):
    """A scheme with a state of D x D numbers for each head; subclasses compute it in `mix`.

    Heads of a small model are too small for the state: 16 x 16 numbers do not hold 18 records. Released models give
    such layers heads of their own, of 128 dimensions in Qwen3-Next and Kimi Linear. Here neighbouring heads
    are merged, so that the projections and the number of parameters of the model stay what they are.

    Args:
        min_head_dim: dimensions of a head. Heads are merged in equal groups, the smallest that have as many, or all.

    Attributes:
        shape: the model's shape with merged heads, of which subclasses have their parameters.
    """

    def __init__(self, shape: ModelShape, min_head_dim: int = 48) -> None:
        super().__init__()
        if min_head_dim < 1:
            raise ConfigError(f"min_head_dim {min_head_dim}: give a number of dimensions of at least 1")
        divisors = [group for group in range(1, shape.n_heads + 1) if shape.n_heads % group == 0]
        large = [group for group in divisors if group * shape.head_dim >= min_head_dim]
        self.group = (large or divisors[-1:])[0]
        self.shape = replace(shape, n_heads=shape.n_heads // self.group, head_dim=shape.head_dim * self.group)

    def mix(self, inputs: AttentionInputs, v_BHSD: Tensor) -> Tensor:
        """Returns the (B, H, T, D) output, all with merged heads."""
        raise NotImplementedError

    def attention(self, inputs: AttentionInputs, v_BHSD: Tensor, kernel: Kernel) -> Tensor:
        q_BHTD, k_BHSD = self.merge(inputs.q_BHTD), self.merge(inputs.k_BHSD)
        return self.split(self.mix(replace(inputs, q_BHTD=q_BHTD, k_BHSD=k_BHSD), self.merge(v_BHSD)))

    def merge(self, x_BHTD: Tensor) -> Tensor:
        """Returns the dimensions of neighbouring heads side by side, (B, H / group, T, group D)."""
        return x_BHTD.unflatten(1, (-1, self.group)).transpose(2, 3).flatten(-2)

    def split(self, x_BHTD: Tensor) -> Tensor:
        """Returns the heads of the model, (B, H, T, D), of merged ones."""
        return x_BHTD.unflatten(-1, (self.group, -1)).transpose(2, 3).flatten(1, 2)
