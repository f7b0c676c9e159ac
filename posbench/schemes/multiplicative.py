"""Multiplicative: a trained vector for each position that multiplies the token embeddings.

Su, "Transformers' position encodings that rack researchers' brains", section on products, 2021:
https://kexue.fm/archives/8130, after https://zhuanlan.zhihu.com/p/183234823.
Neither fixes the vectors; here they are trained and drawn around 1 (at `deviation`), where a product changes
little: around 0 it would erase the tokens. Past the table as for added positions (posbench/position/position_table.py).
"""

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.geometry import Geometry
from posbench.position.position_table import check_length, check_policy, look_up
from posbench.position.scheme import ModelShape, PositionScheme, Traits


@register("scheme/multiplicative")
class Multiplicative(PositionScheme):
    """x_p * W[p] elementwise, with W of as many rows as tokens were trained on, about 1 at the start."""

    def __init__(self, shape: ModelShape, policy: str = "undefined", deviation: float = 0.1) -> None:
        super().__init__()
        if not 0 < deviation < 1:
            raise ConfigError(
                f"multiplicative deviation {deviation}: give a number above 0, or all positions are alike, "
                "and below 1, or products erase tokens"
            )
        self.policy = check_policy(policy)
        self.row_NW = nn.Parameter(1 + deviation * torch.randn(shape.train_len, shape.d_model))
        self.traits = Traits(
            relative=False,
            prefix_stable=policy != "interpolate",
            capabilities=frozenset({"positions"}),
        )

    def check(self, length: int) -> None:
        check_length(self.row_NW, self.policy, length)

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        return x_BTW if layer > 0 else x_BTW * look_up(self.row_NW, self.policy, geo, geo.q_pos_T)
