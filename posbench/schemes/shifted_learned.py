"""Randomly shifted learned positions: in training, the positions of a sequence begin at a random row of the table.

Huang et al. A Formal Framework for Understanding Length Generalization in Transformers. ICLR 2025, section 5 ("APE").
arXiv:2410.02140; algorithmic/language_modeling_train.py in lacoco-lab/length_generalization. All rows are trained
although sequences are short; evaluation begins at the first row. In training, offsets are drawn in every step, one for
each sequence, from torch's global generator; the scheme starts in evaluation mode. Extensions that move positions do not
apply: the positions that they would reach are trained.

Deviation: the paper's offset leaves room for the tokens of its own sequence, here for the training length, to which
sequences are padded. Rows near the end of the table are therefore trained less often, so that the default table is one
training length longer than three of them, the longest test of the paper.

Rows begin at standard deviation 0.02, as GPT-2's do in transformers, which the authors use. Rows that begin at 1 stay
close to random: neighbouring positions then differ by chance alone, and unique copy at three times the trained
number of symbols falls from .95 to .81.
"""

from dataclasses import replace

import torch
from torch import Tensor, distributed

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.geometry import Geometry
from posbench.position.position_table import PositionTable
from posbench.position.scheme import ModelShape


@register("scheme/shifted_learned")
class ShiftedLearned(PositionTable):
    """x_p + W[p + offset] before the first block; offset is uniform in training, and 0 in evaluation."""

    version = 2  # rows begin at init_std in place of 1

    def __init__(
        self,
        shape: ModelShape,
        max_position: int | None = None,
        out_of_range: str = "undefined",
        init_std: float = 0.02,
    ) -> None:
        rows = 4 * shape.train_len if max_position is None else max_position
        if rows < shape.train_len:
            raise ConfigError(
                f"shifted_learned max_position {rows}: give at least the training length, {shape.train_len}, and the longest "
                "length that is to be evaluated"
            )
        if not 0 < init_std <= 1e3:
            raise ConfigError(
                f"shifted_learned init_std {init_std}: give a number above 0 and at most 1000 (0.02 in the paper)"
            )
        super().__init__(init_std * torch.randn(rows, shape.d_model), out_of_range)
        self.traits = replace(self.traits, capabilities=frozenset())
        self.eval()

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        if layer > 0:
            return x_BTW
        if not self.training:
            return x_BTW + self.rows_at(geo, geo.q_pos_T)
        # Drawn on the CPU, so that every device has the same, and for all ranks of a training, whose seeds are equal.
        parallel = distributed.is_available() and distributed.is_initialized()
        rank, ranks = (distributed.get_rank(), distributed.get_world_size()) if parallel else (0, 1)
        offset_RB1 = torch.randint(len(self.row_NW) - geo.length + 1, (ranks, len(x_BTW), 1))
        return x_BTW + self.row_NW[geo.q_pos_T + offset_RB1[rank].to(x_BTW.device)]
