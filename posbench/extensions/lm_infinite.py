"""LM-Infinite: a sliding window plus the first tokens, with a ceiling on the distance.

Han et al. LM-Infinite: Zero-Shot Extreme Length Generalization for Large Language Models. NAACL 2024,
section 4. arXiv:2308.16137. Window and ceiling are both the training length, as in the paper.
Unlike in StreamingLLM, positions are not counted in a cache: the first tokens stay at the ceiling.
Deviations: without the optional attention of some layers to the k middle tokens with the largest logits.
"""

import torch
from torch import Tensor

from posbench.instantiate import register
from posbench.position.extension import ExtensionContext
from posbench.position.geometry import Geometry
from posbench.position.region_extension import SinkExtension
from posbench.position.scheme import PositionScheme


@register("extension/lm_infinite")
class LMInfinite(SinkExtension):
    """Visible where n = i - j < w or j < s; the distance is min(n, w). w is `window`, s is `num_sink_tokens`."""

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        num_sink_tokens: int = 10,
        window: int | None = None,
    ) -> None:
        super().__init__(inner, context)
        self.num_sink_tokens = context.tokens("num_sink_tokens", num_sink_tokens, least=0)
        self.window = context.tokens("window", window, context.shape.train_len)
        self.unchanged_len = self.window

    def far_positions(self, geo: Geometry) -> tuple[Tensor, Tensor]:
        return torch.full_like(geo.q_index_T, self.window), torch.zeros_like(geo.k_index_S)
