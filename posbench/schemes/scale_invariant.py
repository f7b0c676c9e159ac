"""Scale-invariant attention: a gain on the logits that grows with the distance, and a penalty that balances it.

Anson, Wang, Aitchison. Scale-invariant Attention. NeurIPS 2025. arXiv:2505.17083. Implemented from a summary that quotes
the formula and from an independent implementation, which agree; the paper itself was not available. Under the scheme,
the total weight of the keys from T to cT tokens back, and their effective number, hardly depend on T. The paper stacks
it on p-RoPE, as the configuration does; alpha = beta = e^(1/2) make it the identity at distance 0. The gain belongs to a
pair, so logits are computed row by row, also on a GPU.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.biases import AttentionBias, QueryRows, RowwiseBias
from posbench.position.compose import Stack, refuse_full_rows
from posbench.position.scheme import AttentionInputs, ModelShape

LOG_ALPHA, BETA_OVER_ALPHA = 0.5, 1.0


@register("scheme/scale_invariant")
class ScaleInvariant(Stack):
    """logit(i, j) = a q_i . k_j / sqrt(D) + 1 - a^2, a^2 = 2 ln((i - j) / tau + 1) + 1, with the q, k and biases of `base_scheme`."""

    def __init__(self, shape: ModelShape, base_scheme: Mapping[str, Any], tau: float = 10.0) -> None:
        super().__init__(shape, [base_scheme])
        if not 0 < tau < math.inf:
            raise ConfigError(f"scale_invariant tau {tau}: give a number of tokens above 0 (10 in the paper)")
        self.tau = tau

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        inner = super().attention_bias(inputs)
        refuse_full_rows(inner, self)

        def bias(rows: QueryRows) -> Tensor:
            gain_RS, penalty_RS = self.gain(rows.geo.distance(rows.rows).clamp(min=0))
            dtype = rows.content_BHRS.dtype
            added = (gain_RS - 1).to(dtype) * rows.content_BHRS + penalty_RS.to(dtype)
            return added if inner is None else added + inner.value_from_rows(rows)

        return RowwiseBias(bias, inputs.q_BHTD, inputs.k_BHSD)

    def gain(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the factor a and the penalty in nats at each distance, float64."""
        square = 2 * ((distance.double() / self.tau).log1p() - LOG_ALPHA + BETA_OVER_ALPHA)
        return square.sqrt(), BETA_OVER_ALPHA - square
