"""NoPE: no position encoding; order is visible through the causal mask alone.

Kazemnejad et al. The Impact of Positional Encoding on Length Generalization. NeurIPS 2023. arXiv:2305.19466.
"""

from posbench.instantiate import register
from posbench.position.scheme import ModelShape, PositionScheme, Traits


@register("scheme/nope")
class NoPE(PositionScheme):
    """logit(i, j) = q_i . k_j / sqrt(D)."""

    traits = Traits(relative=True)

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
