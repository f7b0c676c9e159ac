"""TAPA: the logit of some dimensions, modulated by a cosine whose phase the other dimensions set.

Wang et al. Positional Encoding via Token-Aware Phase Attention. 2025. arXiv:2509.12635, equation 12. The first theta D
dimensions of queries and keys give the amplitude, the others the phase, which grows as (i - j)^alpha. The paper's theta is
1/2 and its alpha 0.1 (section 4.1), and its learning rate is a fifth of that for RoPE. Because the phase belongs to a pair,
logits are computed row by row, on a GPU too.
"""

import math

from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.biases import AttentionBias, QueryRows, RowwiseBias
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/tapa")
class TAPA(PositionScheme):
    """logit(i, j) = qA_i . kA_j / sqrt(theta D) * cos(2 pi (i - j)^alpha qP_i . kP_j / sqrt((1 - theta) D)).

    qA are the first theta D dimensions of q, qP the others.
    """

    traits = Traits(relative=True, scalable_logits=False, capabilities=frozenset({"positions"}))

    def __init__(self, shape: ModelShape, theta: float = 0.5, alpha: float = 0.1) -> None:
        super().__init__()
        self.amplitude_dims = round(theta * shape.head_dim) if 0 < theta < 1 else 0
        if not 1 <= self.amplitude_dims < shape.head_dim or not 0 < alpha <= 4:
            raise ConfigError(
                f"tapa theta {theta}, alpha {alpha} of a head of {shape.head_dim} dimensions: give a theta between 0 "
                "and 1 that leaves dimensions to both parts, and an alpha above 0 and at most 4 (0.5 and 0.1 in the "
                "paper)"
            )
        self.alpha = alpha

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return RowwiseBias(self.logit, inputs.q_BHTD, inputs.k_BHSD, is_logit=True)

    def logit(self, rows: QueryRows) -> Tensor:
        """Returns the logits of a few rows, (B, H, R, S)."""
        split = self.amplitude_dims
        dims = rows.q_BHRE.shape[-1]
        amplitude = rows.q_BHRE[..., :split] @ rows.k_BHSE[..., :split].mT / math.sqrt(split)
        turns = rows.q_BHRE[..., split:] @ rows.k_BHSE[..., split:].mT / math.sqrt(dims - split)
        growth_RS = rows.geo.distance(rows.rows).clamp(min=0).double() ** self.alpha
        phase = 2 * math.pi * growth_RS.to(turns.dtype) * turns
        return amplitude * phase.cos()
