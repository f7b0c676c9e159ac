"""Stick-breaking: each key, from the nearest back, takes a fraction of the weight that remains.

Tan et al. Scaling Stick-Breaking Attention: An Efficient Implementation and In-depth Study. ICLR 2025,
section 2. arXiv:2410.17980.
A query does not attend to its own token. The weight that remains after the first token is dropped, or with
`remainder` goes to the value of the query's own token, as in the authors' kernel tests (in their language models it
goes to a trained vector). Their group norm of the outputs belongs to the block. Masked keys take nothing.
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
        return RowwiseBias(self.log_remaining, inputs.q_BHTD, inputs.k_BHSD)

    def log_remaining(self, rows: QueryRows) -> Tensor:
        """Returns the log of the weight that remains after each key has taken its fraction, (B, H, R, S) nats."""
        earlier_RS = rows.geo.k_index_S < rows.geo.q_index_T[rows.rows, None]
        remaining_BHRS = -reverse_cumsum(F.softplus(rows.content_BHRS) * (earlier_RS & rows.visible_RS))
        own: Tensor | float = -torch.inf
        if self.remainder:
            own = remaining_BHRS[..., :1] - rows.content_BHRS
        return torch.where(earlier_RS, remaining_BHRS, own)

    def softmax_normalizer(self, inputs: AttentionInputs) -> Callable[[Tensor], Tensor] | None:
        return torch.zeros_like
