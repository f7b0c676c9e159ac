"""Longformer: a sliding window, and a few global tokens that see and are seen by all.

Beltagy, Peters, Cohan. Longformer: The Long-Document Transformer. 2020, section 3.1. arXiv:2004.05150.
The causal half: its two-sided window of 2w is w to the past, and global tokens, the first ones of a
sequence, are seen by all that follow; what precedes them, all that they may see, is global itself. Left out:
its dilation, its window sizes that grow with the layer, and the second set of projections for global tokens,
none of which is a matter of position.
It knows nothing of order within the window: configured around a rotation.
"""

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.geometry import Mask
from posbench.position.masks import PrefixMask, SlidingWindow
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/longformer")
class Longformer(PositionScheme):
    """Visible where i - j < w or j < g; w is half of the training length unless given."""

    traits = Traits(relative=True)

    def __init__(self, shape: ModelShape, window: int | None = None, num_global_tokens: int = 1) -> None:
        super().__init__()
        self.window = max(1, shape.train_len // 2) if window is None else window
        self.num_global_tokens = num_global_tokens
        if not 1 <= self.window <= shape.train_len:
            raise ConfigError(
                f"longformer window {self.window}: give 1 to {shape.train_len} tokens, the training length, or null "
                "for half of it"
            )
        if not 1 <= num_global_tokens <= shape.train_len:
            raise ConfigError(
                f"longformer num_global_tokens {num_global_tokens}: give 1 to {shape.train_len}, the training length; "
                "without any it is a window"
            )

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        # No mask where it hides nothing: the fastest kernels take none.
        if inputs.geo.key_span <= self.window:
            return None
        return SlidingWindow(self.window) | PrefixMask(self.num_global_tokens)
