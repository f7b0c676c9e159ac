"""Learned: a trained vector for each position, added to the token embeddings.

Devlin et al. BERT. NAACL 2019, section 3. arXiv:1810.04805. Also GPT-2's positions.
Past its last row a table has no answer, so the default is to say so; the policies that answer all the same
are named in the configuration (posbench/position/position_table.py). Rows are drawn at standard deviation 1, as the
token embeddings of this project's models are (both 0.02 in GPT-2).
"""

import torch
from torch import Tensor, nn

from posbench.instantiate import register
from posbench.position.geometry import Geometry
from posbench.position.position_table import check_length, check_policy, look_up
from posbench.position.scheme import ModelShape, PositionScheme, Traits


@register("scheme/learned")
class Learned(PositionScheme):
    """x_p + W[p], with W of as many rows as tokens were trained on."""

    def __init__(self, shape: ModelShape, policy: str = "undefined") -> None:
        super().__init__()
        self.policy = check_policy(policy)
        self.row_NW = nn.Parameter(torch.randn(shape.train_len, shape.d_model))
        self.traits = Traits(
            relative=False,
            prefix_stable=policy != "interpolate",
            capabilities=frozenset({"positions"}),
        )

    def check(self, length: int) -> None:
        check_length(self.row_NW, self.policy, length)

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        return x_BTW if layer > 0 else x_BTW + look_up(self.row_NW, self.policy, geo, geo.q_pos_T)
