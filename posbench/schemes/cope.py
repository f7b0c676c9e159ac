"""CoPE: contextual positions, counting only the keys that the query's own logits let count.

Golovneva et al. Contextual Position Encoding: Learning to Count What's Important. 2024, section 4 and the code
of appendix B. arXiv:2405.18719.
The gates see the scaled logits and the position vectors the unscaled queries, as in that code. What a mask
hides does not count. One table a layer, shared by its heads; the authors start it at zero, here it is drawn at
width^-0.5, as other tables are. 64 positions are the authors' default.
"""

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.biases import AttentionBias, QueryRows, RowwiseBias
from posbench.position.numerics import reverse_cumsum, upcast
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/cope")
class CoPE(PositionScheme):
    """logit(i, j) = s_ij + q_i . e[p_ij], s = q . k / sqrt(D), p_ij = min(sum over l = j .. i of sigmoid(s_il), P - 1).

    Between two whole positions the vectors are mixed.
    """

    traits = Traits(relative=True, lse_mergeable=False)

    def __init__(self, shape: ModelShape, npos_max: int = 64) -> None:
        super().__init__()
        if npos_max < 2:
            raise ConfigError(f"cope npos_max {npos_max}: give the number of its vectors, at least 2")
        self.vector_LPD = nn.Parameter(
            torch.randn(shape.n_layers, npos_max, shape.head_dim) * shape.d_model**-0.5
        )

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        vector_PD = self.vector_LPD[inputs.layer]

        def of(rows: QueryRows) -> Tensor:
            gate_BHRS = torch.sigmoid(rows.content_BHRS) * rows.visible_RS
            position_BHRS = reverse_cumsum(gate_BHRS).clamp(max=len(vector_PD) - 1)
            return between(rows.q_BHRE @ upcast(vector_PD).T, position_BHRS)

        return RowwiseBias(of, inputs.q_BHTD, inputs.k_BHSD)


def between(logit_BHRP: Tensor, position_BHRS: Tensor) -> Tensor:
    """The logits of whole positions, read in between."""
    low_BHRS = position_BHRS.detach().long().clamp(max=logit_BHRP.shape[-1] - 2)
    step_BHRP = logit_BHRP.diff(dim=-1)
    return logit_BHRP.gather(-1, low_BHRS) + (position_BHRS - low_BHRS) * step_BHRP.gather(-1, low_BHRS)
