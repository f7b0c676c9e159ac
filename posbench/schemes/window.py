"""Sliding window: each token attends to the nearest tokens only.

Beltagy, Peters, Cohan. Longformer: The Long-Document Transformer. 2020, section 3.1. arXiv:2004.05150. The causal
half of its window, as in Mistral 7B, section 2, arXiv:2310.06825; one size for all layers, the token itself
included. The model is trained with it. Through the layers a token depends on the (w - 1) * layers tokens before it.
It encodes no order within the window, so its configuration stacks it on RoPE.
"""

from posbench.instantiate import register
from posbench.position.geometry import Mask
from posbench.position.local_attention import sliding_window, tokens_within_train_len
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/window")
class Window(PositionScheme):
    """Key j is visible where i - j < w; w is half of the training length by default."""

    traits = Traits(relative=True, unbounded_context=False)

    def __init__(self, shape: ModelShape, window: int | None = None) -> None:
        super().__init__()
        default = max(1, shape.train_len // 2)
        self.window = tokens_within_train_len(shape, "window", window, default, "half of it")

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        return sliding_window(self.window, inputs)


@register("scheme/long_window")
class LongWindow(PositionScheme):
    """Key j is visible where i - j < w, and w may be longer than the training length, as in Phi-3-mini-128k."""

    traits = Traits(relative=True, unbounded_context=False)

    def __init__(self, shape: ModelShape, window: int) -> None:
        super().__init__()
        self.window = window

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        return sliding_window(self.window, inputs)
