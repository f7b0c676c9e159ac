"""StreamingLLM: a sliding window plus attention sinks, with positions counted in the cache.

Xiao et al. Efficient Streaming Language Models with Attention Sinks. ICLR 2024, section 3.2. arXiv:2309.17453.
The cache holds the s sinks and then the last w tokens, the query included (in the paper it is not, so that its w is
smaller by 1), and a token's position is its index in the cache. A query past s + w tokens therefore stays at position
s + w - 1: keys in the window keep their true distances and only the sinks move closer. By default sinks and window
together fill the training length, so that no distance is new to the model.
Deviations: for any scheme that depends on distances only, not just rotations and ALiBi. Absolute positions are added
before any cache, so they cannot be recounted.
"""

from torch import Tensor

from posbench.instantiate import register
from posbench.position.extension import ExtensionContext
from posbench.position.geometry import Geometry
from posbench.position.region_extension import SinkExtension
from posbench.position.scheme import PositionScheme


@register("extension/streaming_llm")
class StreamingLLM(SinkExtension):
    """Visible where n = i - j < w or j < s; the distance is n within the window and min(i, s + w - 1) - j to a sink."""

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        num_sink_tokens: int = 4,
        window: int | None = None,
    ) -> None:
        super().__init__(inner, context)
        self.num_sink_tokens = context.tokens("num_sink_tokens", num_sink_tokens, least=0)
        self.window = context.tokens("window", window, max(1, context.shape.train_len - num_sink_tokens))
        self.unchanged_len = self.num_sink_tokens + self.window

    def far_positions(self, geo: Geometry) -> tuple[Tensor, Tensor]:
        return geo.q_index_T.clamp(max=self.unchanged_len - 1), geo.k_index_S
