"""Sliding window, trained with it: a token sees the nearest tokens only.

Beltagy, Peters, Cohan. Longformer: The Long-Document Transformer. 2020, section 3.1. arXiv:2004.05150. The
causal half of its window, as in Mistral 7B, section 2, arXiv:2310.06825; one size for all layers, the token
itself counted. Through the layers a token hears of (w - 1) * layers tokens before it.
It knows nothing of order within the window: configured around a rotation.
"""

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.geometry import Mask
from posbench.position.masks import SlidingWindow
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/window")
class Window(PositionScheme):
    """Visible where i - j < w; half of the training length unless given."""

    traits = Traits(relative=True, unbounded_context=False)

    def __init__(self, shape: ModelShape, window: int | None = None) -> None:
        super().__init__()
        self.window = max(1, shape.train_len // 2) if window is None else window
        if not 1 <= self.window <= shape.train_len:
            raise ConfigError(
                f"window {self.window}: give 1 to {shape.train_len} tokens, the training length, or null for half of it"
            )

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        # No mask where it hides nothing: the fastest kernels take none.
        if inputs.geo.key_span <= self.window:
            return None
        return SlidingWindow(self.window)
