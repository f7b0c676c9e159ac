"""Self-Extend: true distances within a window, and distances between groups beyond it.

Jin et al. LLM Maybe LongLM: Self-Extend LLM Context Window Without Tuning. ICML 2024, section 3.2.
arXiv:2401.01325. The formula is that of the authors' github.com/datamllab/LongLM, whose files differ in w / G: it has a
floor, as here, for Mistral, Phi and Qwen2, in the first patches for Llama and in decoding with FlashAttention, and none in
other forward passes, except one of Llama_4_40.py. The two are equal where G divides w.
Deviations: for any scheme that depends on distances only, not just rotations; the paper sets G by hand, the default
is the smallest G with all distances below L, which the floors can make larger than its rule N <= (L - w) G + w does.
"""

from itertools import count
from typing import Any

from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.extension import ExtensionContext
from posbench.position.geometry import Geometry
from posbench.position.region_extension import RegionExtension
from posbench.position.scheme import PositionScheme


@register("extension/self_extend")
class SelfExtend(RegionExtension):
    """The distance n = i - j >= w becomes i // G - j // G + w - w // G; w is `window`, G is `group_size`."""

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        window: int | None = None,
        group_size: int | str = "auto",
    ) -> None:
        super().__init__(inner, context)
        self.window = context.tokens("window", window, max(1, context.shape.train_len // 4))
        size = self.resolve_auto(group_size, self.smallest_group)
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"group_size {size!r}: give a whole number of tokens of at least 1, or auto")
        self.group_size = size

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"group_size": 1}

    def smallest_group(self) -> int:
        """Smallest group size for which the longest distance stays below the training length."""
        length, train_len = self.context.length, self.context.shape.train_len
        if length <= max(train_len, self.window):
            return 1
        if self.window >= train_len:
            raise ConfigError(
                f"self_extend window {self.window}: no distances are left for groups within the training length of "
                f"{train_len} tokens; give at most {train_len - 1}, or a group_size"
            )
        return next(
            group
            for group in count(1)
            if (length - 1) // group + self.window - self.window // group < train_len
        )

    def far_positions(self, geo: Geometry) -> tuple[Tensor, Tensor]:
        # The shift of the queries makes far distances continue, up to the floors, where near ones end.
        shift = self.window - self.window // self.group_size
        return geo.q_index_T // self.group_size + shift, geo.k_index_S // self.group_size
