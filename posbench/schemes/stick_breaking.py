"""Stick-breaking: from the nearest key to the farthest, each takes its share of what is left.

Tan et al. Scaling Stick-Breaking Attention: An Efficient Implementation and In-depth Study. ICLR 2025,
section 2. arXiv:2410.17980.
The current token is no key of its own query; what is left of the stick after the first token is given to
nobody, or with `remainder` to the current token's value, as the authors' kernel tests do (their language models
give it to a trained vector). Their group norm of the outputs belongs to the block. What a mask hides breaks
nothing off.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.instantiate import register
from posbench.position.biases import AttentionBias, QueryRows, RowwiseBias
from posbench.position.numerics import reverse_cumsum
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/stick_breaking")
class StickBreaking(PositionScheme):
    """weight(i, j) = sigmoid(s_ij) * product over l = j+1 .. i-1 of (1 - sigmoid(s_il)), s = q . k / sqrt(D).

    As a softmax: log weight = s_ij - sum over l = j .. i-1 of softplus(s_il), and the denominator is 1.
    """

    traits = Traits(relative=True, lse_mergeable=False)

    def __init__(self, shape: ModelShape, remainder: bool = False) -> None:
        super().__init__()
        self.remainder = remainder

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return RowwiseBias(self.left, inputs.q_BHTD, inputs.k_BHSD)

    def left(self, rows: QueryRows) -> Tensor:
        """(B, H, R, S) nats: what is left once a key has taken its share, less the log of the odds that it takes."""
        before_RS = rows.geo.k_index_S < rows.geo.q_index_T[rows.rows, None]
        left_BHRS = -reverse_cumsum(F.softplus(rows.content_BHRS) * (before_RS & rows.visible_RS))
        itself: Tensor | float = -torch.inf
        if self.remainder:
            itself = left_BHRS[..., :1] - rows.content_BHRS
        return torch.where(before_RS, left_BHRS, itself)

    def softmax_normalizer(self, inputs: AttentionInputs) -> Callable[[Tensor], Tensor] | None:
        return torch.zeros_like
