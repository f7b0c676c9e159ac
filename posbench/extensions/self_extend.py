"""Self-Extend: near tokens as trained, far ones by the distance of their groups.

Jin et al. LLM Maybe LongLM: Self-Extend LLM Context Window Without Tuning. ICML 2024, section 3.2.
arXiv:2401.01325. The formula and the floor of w / G are those of the authors' github.com/datamllab/LongLM.
For any scheme that feels distances only, not just rotations. The paper gives G by hand; by default it is the
least that its rule (L - w) G + w allows.
"""

from itertools import count
from typing import Any

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry, Region
from posbench.position.masks import BeyondWindow, SlidingWindow, and_masks
from posbench.position.scheme import AttentionInputs, PositionScheme


@register("extension/self_extend")
class SelfExtend(Extension):
    """The distance n = i - j >= w becomes i // G - j // G + w - w // G; w is `window`, G is `group_size`."""

    requires = frozenset({"positions", "unbounded context"})
    requires_relative = True
    splits_regions = True

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        window: int | None = None,
        group_size: int | str = "auto",
    ) -> None:
        super().__init__(inner, context)
        self.window = context.tokens("window", window, max(1, context.shape.train_len // 4))
        if group_size != "auto" and (not isinstance(group_size, int) or group_size < 1):
            raise ConfigError(
                f"group_size {group_size!r}: give a whole number of tokens of at least 1, or auto"
            )
        self.group_size = self.least(context) if isinstance(group_size, str) else group_size
        self.depends_on_length("auto" if group_size == "auto" else 1)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"group_size": 1}

    def least(self, context: ExtensionContext) -> int:
        """The least group with which the longest distance is below the training length."""
        length, trained = context.length, context.shape.train_len
        if length <= max(trained, self.window):
            return 1
        if self.window >= trained:
            raise ConfigError(
                f"self_extend window {self.window}: it leaves nothing of {trained} trained tokens for groups; give at "
                f"most {trained - 1}, or a group_size"
            )
        return next(
            group
            for group in count(1)
            if (length - 1) // group + self.window - self.window // group < trained
        )

    def regions(self, inputs: AttentionInputs) -> list[Region]:
        regions = self.inner.regions(inputs)
        if inputs.geo.key_span <= self.window:
            return regions
        near = [Region(region.geo, and_masks(region.mask, SlidingWindow(self.window))) for region in regions]
        far = inputs.geo.memo((self, "far"), lambda: self.far(inputs.geo))
        return [*near, Region(far, BeyondWindow(self.window))]

    def far(self, geo: Geometry) -> Geometry:
        """The groups of the keys, and of the queries moved on so that the two parts nearly meet at w."""
        moved = self.window - self.window // self.group_size
        return geo.with_positions(geo.q_index_T // self.group_size + moved, geo.k_index_S // self.group_size)
