"""Schemes that replace softmax attention by a state of fixed size, on heads of the model or on larger ones."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from posbench.errors import ConfigError
from posbench.position.call import Kernel
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme


class StateScheme(PositionScheme):
    """A scheme with a state of D x D numbers for each head; subclasses compute it in `mix`.

    The heads of a small model are too small for this: a state of 16 x 16 numbers does not hold 18 records. In Qwen3-Next
    and Kimi Linear, such layers have heads of 128 dimensions, whatever the heads of their attention layers are. Here,
    neighbouring heads of the model are merged, which leaves its projections unchanged.

    Args:
        min_head_dim: least number of dimensions of a merged head. Groups of neighbouring heads have equal sizes, the
            smallest with which a merged head is large enough. If no size suffices, all heads are one.

    Attributes:
        shape: the model's shape with merged heads; subclasses size their parameters by it.
        group: number of heads that are merged into one.
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
        """Returns the (B, H, T, D) output; inputs and output have merged heads."""
        raise NotImplementedError

    def attention(self, inputs: AttentionInputs, v_BHSD: Tensor, kernel: Kernel) -> Tensor:
        q_BHTD, k_BHSD = self.merge(inputs.q_BHTD), self.merge(inputs.k_BHSD)
        return self.split(self.mix(replace(inputs, q_BHTD=q_BHTD, k_BHSD=k_BHSD), self.merge(v_BHSD)))

    def merge(self, x_BHTD: Tensor) -> Tensor:
        """Returns merged heads, (B, H / group, T, group * D), from the heads of the model."""
        return x_BHTD.unflatten(1, (-1, self.group)).transpose(2, 3).flatten(-2)

    def split(self, x_BHTD: Tensor) -> Tensor:
        """Returns the heads of the model, (B, H, T, D), from merged heads; the inverse of `merge`."""
        return x_BHTD.unflatten(-1, (self.group, -1)).transpose(2, 3).flatten(1, 2)
