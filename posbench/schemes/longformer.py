"""Longformer: a sliding window, and a few global tokens at the start to which all tokens attend.

Beltagy, Peters, Cohan. Longformer: The Long-Document Transformer. 2020, section 3.1. arXiv:2004.05150.
The causal half: of its two-sided window of 2w the past w, and the first tokens of a sequence as global tokens, to
which all later tokens attend; a global token attends only to global tokens, since no other precedes it. Not
implemented: dilation, window sizes that grow with the layer, and the second projections of global tokens, none of
which concerns positions.
It encodes no order within the window, so its configuration stacks it on RoPE.
"""

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.geometry import Mask
from posbench.position.local_attention import tokens_within_train_len
from posbench.position.masks import PrefixMask, SlidingWindow
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/longformer")
class Longformer(PositionScheme):
    """Key j is visible where i - j < w or j < g; w is half of the training length by default."""

    traits = Traits(relative=True)

    def __init__(self, shape: ModelShape, window: int | None = None, num_global_tokens: int = 1) -> None:
        super().__init__()
        default = max(1, shape.train_len // 2)
        self.window = tokens_within_train_len(shape, "longformer window", window, default, "half of it")
        self.num_global_tokens = num_global_tokens
        if not 1 <= num_global_tokens <= shape.train_len:
            raise ConfigError(
                f"longformer num_global_tokens {num_global_tokens}: give 1 to {shape.train_len}, the training length; "
                "without any it is a window"
            )

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        # No mask where it hides no key: the fastest kernels take none.
        if inputs.geo.key_span <= self.window:
            return None
        return SlidingWindow(self.window) | PrefixMask(self.num_global_tokens)
