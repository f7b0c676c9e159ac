"""CARoPE: RoPE whose frequencies are computed from each token, with one base for each head.

Veisi, Fartoot, Amirzadeh. Context-aware Rotary Position Embedding. 2025. arXiv:2507.23083, section 2. The base of a token
and head lies between 0 and 1; each token turns pair m by the m-th power of the base, as RoPE turns its pairs by powers of
10000^(-2/D). The base is computed from the normalised input of the layer, with weights for each layer; the paper has "the
embedding of the token". Deviation: the paper starts from RoPE's frequencies, which no weights of this function give. Here,
weights start at standard deviation 0.02, where the base is about 0.59, that of RoPE in heads of 35 dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.content_rotation import AccumulatedRotation, project
from posbench.position.scheme import AttentionInputs, ModelShape


@register("scheme/carope")
class CARoPE(AccumulatedRotation):
    """logit(h, i, j) = (R_i q_i) . (R_j k_j) / sqrt(D), R_p rotates pair m = 1 .. D/2 by the sum over t <= p of f_ht^m.

    f_ht = 1 / (1 + softplus(w_h . x_t)).
    """

    decayed_parameters = ("weight_LHW",)

    def __init__(self, shape: ModelShape, interleaved: bool = True) -> None:
        super().__init__()
        if shape.head_dim % 2:
            raise ConfigError(f"carope of heads of {shape.head_dim} dimensions: give an even number")
        self.interleaved = interleaved
        self.power_M = torch.arange(1, shape.head_dim // 2 + 1).double()
        self.weight_LHW = nn.Parameter(0.02 * torch.randn(shape.n_layers, shape.n_heads, shape.d_model))

    def angles(self, inputs: AttentionInputs) -> Tensor:
        assert inputs.x_BSW is not None
        gate_BSH = F.softplus(project(inputs.x_BSW, self.weight_LHW[inputs.layer]))
        log_base_BHS1 = -gate_BSH.log1p().transpose(1, 2)[..., None]
        power_M = inputs.geo.memo(
            (self, gate_BSH.dtype), lambda: self.power_M.to(gate_BSH.device, gate_BSH.dtype)
        )
        step_BHSM = (log_base_BHS1 * power_M).exp()
        return step_BHSM.cumsum(2, dtype=torch.float64)
