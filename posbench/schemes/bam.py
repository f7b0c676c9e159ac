"""BAM: a generalized Gaussian of the distance as a trained prior on attention, with a shape and a scale for each head.

Bianchessi et al. Bayesian Attention Mechanism: A Probabilistic Framework for Positional Encoding and Context Length
Extrapolation. ICLR 2026. arXiv:2505.22842. As in the authors' published code (github.com/ArthurSBianchessi/BAM): a prior
for each layer and head, which starts uniform (shape 0, log scale 0), and a location of 0 that is not trained. A shape of 1
is ALiBi's; with a negative shape a head prefers far keys. For the paper's BAM with
scalable softmax, stack `ssmax` on it.
"""

import torch
from torch import Tensor, nn

from posbench.instantiate import register
from posbench.position.biases import AttentionBias, DistanceBias
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits

EPS = 1e-5  # tokens


@register("scheme/bam")
class BAM(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) - exp(log_scale_h) * (i - j + 1e-5)^shape_h, with parameters of each layer."""

    version = 2  # a prior for each layer, which starts uniform, in place of one that started as ALiBi

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape_LH = nn.Parameter(torch.zeros(shape.n_layers, shape.n_heads))
        self.log_scale_LH = nn.Parameter(torch.zeros(shape.n_layers, shape.n_heads))

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return DistanceBias(lambda distance: self.prior(distance, inputs.layer))

    def prior(self, distance: Tensor, layer: int) -> Tensor:
        """Returns what is added to the logits of a layer at each distance, (H, *distance.shape) float64 nats."""
        by_head = (-1,) + (1,) * distance.dim()
        shape = self.shape_LH[layer].double().view(by_head)
        log_scale = self.log_scale_LH[layer].double().view(by_head)
        return -((distance.double() + EPS) ** shape) * log_scale.exp()
