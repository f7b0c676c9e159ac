"""Sliding window: each token attends to the nearest tokens only.

Beltagy, Peters, Cohan. Longformer: The Long-Document Transformer. 2020, section 3.1. arXiv:2004.05150, where half of
the window is on each side of a token. On a trained model it is the "window attention" of Xiao et al., StreamingLLM,
arXiv:2309.17453.
A mask over the whole sequence: through all layers a token depends on the (w - 1) * layers tokens before it.
"""

from typing import Any

from posbench.instantiate import register
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Mask
from posbench.position.masks import SlidingWindow, and_masks
from posbench.position.scheme import AttentionInputs, PositionScheme


@register("extension/window")
class Window(Extension):
    """Visible where i - j < w, the token itself included; w is `window`, by default the training length."""

    def __init__(self, inner: PositionScheme, context: ExtensionContext, window: int | None = None) -> None:
        super().__init__(inner, context)
        self.window = context.tokens("window", window, context.shape.train_len)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"window": length}

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        inner = self.inner.mask(inputs)
        # The fastest kernels take no mask, so there is none where it would hide nothing.
        if inputs.geo.key_span <= self.window:
            return inner
        return and_masks(inner, SlidingWindow(self.window))
