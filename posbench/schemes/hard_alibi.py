"""Hard-ALiBi: among the first heads, head h attends to the nearest h tokens only; the others have no positions.

Jelassi et al. Repeat After Me: Transformers are Better than State Space Models at Copying. ICML 2024.
arXiv:2402.01032. As in the authors' code: head 1 attends to its own token. Their number of such heads is 8; here it
is half of the heads by default. A hidden pair gets -10^4 nats, so that its weight is exactly 0.
"""

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.biases import AttentionBias, DistanceBias
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits

HIDDEN = -1e4  # nats; finite, so that regions in which a head attends to no key merge


@register("scheme/hard_alibi")
class HardALiBi(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D); heads h = 1 .. `num_masked_heads` attend only where i - j < h."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: ModelShape, num_masked_heads: int | None = None) -> None:
        super().__init__()
        masked = shape.n_heads // 2 if num_masked_heads is None else num_masked_heads
        if not 1 <= masked < shape.n_heads:
            raise ConfigError(
                f"hard_alibi num_masked_heads {masked} of {shape.n_heads} heads: give at least 1 and fewer than all, "
                "or null for half of them"
            )
        self.reach_H = torch.arange(1, shape.n_heads + 1).double()
        self.reach_H[masked:] = torch.inf

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return DistanceBias(self.hide, cache_owner=self)

    def hide(self, distance: Tensor) -> Tensor:
        """Returns 0 at the distances that a head attends to and HIDDEN at the others, (H, *distance.shape) float64."""
        reach = self.reach_H.to(distance.device).view(-1, *(1,) * distance.dim())
        return torch.where(distance < reach, 0.0, HIDDEN).double()
