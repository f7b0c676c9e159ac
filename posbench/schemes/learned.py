"""Learned absolute positions: a trained vector for each position, added to the embeddings.

Devlin et al. BERT. NAACL 2019, section 3. arXiv:1810.04805. Also the positions of GPT-2.
Past its last row the table is undefined unless `out_of_range` is set (posbench/position/position_table.py).
Rows are drawn at standard deviation 1, as this project's token embeddings are. In OpenAI's GPT-2 rows have 0.01 and
tokens 0.02, in transformers both 0.02.
"""

import torch
from torch import Tensor

from posbench.instantiate import register
from posbench.position.geometry import Geometry
from posbench.position.position_table import PositionTable
from posbench.position.scheme import ModelShape


@register("scheme/learned")
class Learned(PositionTable):
    """x_p + W[p] before the first block, W with a row for each position of the training length."""

    def __init__(self, shape: ModelShape, out_of_range: str = "undefined") -> None:
        super().__init__(torch.randn(shape.train_len, shape.d_model), out_of_range)

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        return x_BTW if layer > 0 else x_BTW + self.rows_at(geo, geo.q_pos_T)
