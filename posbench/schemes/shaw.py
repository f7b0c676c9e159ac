"""Shaw: a trained vector for each clipped distance, added to keys and to values.

Shaw, Uszkoreit, Vaswani. Self-Attention with Relative Position Representations. NAACL 2018, sections 3.1 to
3.3. arXiv:1803.02155.
Tables have rows for the distances of a causal model only, max_relative_position + 1 of them. As in the paper's big
model, heads share a table and layers do not. Tables are drawn Glorot-uniform. A fractional distance uses the row of
its integer part.
"""

import math

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.biases import AttentionBias, QueryContentBias, RelativeValues, floor_distance
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/shaw")
class Shaw(PositionScheme):
    """logit(i, j) = q_i . (k_j + aK[c]) / sqrt(D), output_i = sum_j softmax_ij (v_j + aV[c]), c = min(i - j, max_relative_position)."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))
    decayed_parameters = ("key_LKD", "value_LKD")

    def __init__(self, shape: ModelShape, max_relative_position: int = 16) -> None:
        super().__init__()
        if max_relative_position < 1:
            raise ConfigError(
                f"shaw max_relative_position {max_relative_position}: give the distance from which all share a row, at "
                "least 1 token"
            )
        self.max_relative_position = max_relative_position
        self.key_LKD, self.value_LKD = (
            nn.Parameter(glorot(shape.n_layers, max_relative_position + 1, shape.head_dim))
            for _ in ("key", "value")
        )

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        table_KD = self.key_LKD[inputs.layer]
        return QueryContentBias(inputs.q_BHTD @ table_KD.T / math.sqrt(table_KD.shape[1]), self.row)

    def relative_values(self, inputs: AttentionInputs) -> RelativeValues:
        return RelativeValues(self.value_LKD[inputs.layer], self.row, self.max_relative_position)

    def row(self, distance: Tensor) -> Tensor:
        """Returns the row of each distance in the tables."""
        return floor_distance(distance).clamp(max=self.max_relative_position)


def glorot(layers: int, rows: int, dims: int) -> Tensor:
    """Returns (layers, rows, dims), each layer uniform within sqrt(6 / (rows + dims))."""
    return (2 * torch.rand(layers, rows, dims) - 1) * math.sqrt(6 / (rows + dims))
