"""CoPE: positions that count only the keys selected by gates on the query's logits.

Golovneva et al. Contextual Position Encoding: Learning to Count What's Important. 2024, section 4 and the listing
in appendix B. arXiv:2405.18719.
As in that listing, gates are computed from scaled logits, position vectors are multiplied with unscaled queries, and
masked keys do not count. It has no default number of positions; 64 is that of DAPE's authors. One table for each layer,
shared by its heads. Deviation: the authors initialize it to zero; here it is drawn at standard deviation d_model^-0.5.
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

    Between two integer positions the two vectors are interpolated linearly.
    """

    traits = Traits(relative=True, lse_mergeable=False, scalable_logits=False)
    decayed_parameters = ("vector_LPD",)

    def __init__(self, shape: ModelShape, npos_max: int = 64) -> None:
        super().__init__()
        if npos_max < 2:
            raise ConfigError(f"cope npos_max {npos_max}: give the number of its vectors, at least 2")
        self.vector_LPD = nn.Parameter(
            torch.randn(shape.n_layers, npos_max, shape.head_dim) * shape.d_model**-0.5
        )

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        vector_PD = self.vector_LPD[inputs.layer]

        def bias(rows: QueryRows) -> Tensor:
            gate_BHRS = torch.sigmoid(rows.content_BHRS) * rows.visible_RS
            position_BHRS = reverse_cumsum(gate_BHRS).clamp(max=len(vector_PD) - 1)
            return interpolate(rows.q_BHRE @ upcast(vector_PD).T, position_BHRS)

        return RowwiseBias(bias, inputs.q_BHTD, inputs.k_BHSD)


def interpolate(logit_BHRP: Tensor, position_BHRS: Tensor) -> Tensor:
    """Returns the logits (B, H, R, S) at fractional positions from those at integer positions."""
    low_BHRS = position_BHRS.detach().long().clamp(max=logit_BHRP.shape[-1] - 2)
    step_BHRP = logit_BHRP.diff(dim=-1)
    return logit_BHRP.gather(-1, low_BHRS) + (position_BHRS - low_BHRS) * step_BHRP.gather(-1, low_BHRS)
