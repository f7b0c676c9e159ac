"""BAM: a generalized Gaussian of the distance as a trained prior on attention, with a shape and a scale for each head.

Bianchessi et al. Bayesian Attention Mechanism: A Probabilistic Framework for Positional Encoding and Context Length
Extrapolation. ICLR 2026. arXiv:2505.22842. A location of 0 that is not trained. As in the authors' code of May 2025
(github.com/ArthurSBianchessi/BAM): shared by the layers, initialized as ALiBi (shape 1, ALiBi's slopes as scales).
Deviation: their published code, like the paper's count of parameters, has a prior for each layer, which starts with no
preference for any distance (shape 0, log scale 0).
"""

import torch
from torch import Tensor, nn

from posbench.instantiate import register
from posbench.position.alibi_slopes import alibi_slopes
from posbench.position.biases import AttentionBias, DistanceBias
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits

EPS = 1e-5  # tokens


@register("scheme/bam")
class BAM(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) - exp(log_scale_h) * (i - j + 1e-5)^shape_h."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape_H = nn.Parameter(torch.ones(shape.n_heads))
        self.log_scale_H = nn.Parameter(alibi_slopes(shape.n_heads).log().float())

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return DistanceBias(self.prior)

    def prior(self, distance: Tensor) -> Tensor:
        """Returns what is added to the logits at each distance, (H, *distance.shape) float64 nats."""
        by_head = (-1,) + (1,) * distance.dim()
        shape, log_scale = self.shape_H.double().view(by_head), self.log_scale_H.double().view(by_head)
        return -((distance.double() + EPS) ** shape) * log_scale.exp()
