"""Multiplicative positions: token embeddings multiplied by a trained vector for each position.

Su, "Transformers' position encodings that rack researchers' brains", section on products, 2021:
https://kexue.fm/archives/8130, after https://zhuanlan.zhihu.com/p/183234823.
Neither source fixes the vectors; here they are trained and drawn around 1 at `deviation`, where a product changes
little: around 0 it would erase the tokens. Positions past the table: posbench/position/position_table.py.
"""

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.geometry import Geometry
from posbench.position.position_table import PositionTable
from posbench.position.scheme import ModelShape


@register("scheme/multiplicative")
class Multiplicative(PositionTable):
    """x_p * W[p] elementwise before the first block, W with a row for each position of the training length."""

    decayed_parameters = ()  # the rows are factors around 1

    def __init__(self, shape: ModelShape, out_of_range: str = "undefined", deviation: float = 0.1) -> None:
        if not 0 < deviation < 1:
            raise ConfigError(
                f"multiplicative deviation {deviation}: give a number above 0, or all positions are the same, "
                "and below 1, or products erase tokens"
            )
        super().__init__(1 + deviation * torch.randn(shape.train_len, shape.d_model), out_of_range)

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        return x_BTW if layer > 0 else x_BTW * self.rows_at(geo, geo.q_pos_T)
