"""Leaky ReRoPE: true distances within a window, and steps shortened to 1/k beyond it.

Su. Transformer Upgrade Path 12: ReRoPE for Unlimited Extrapolation? 2023 (in Chinese).
https://kexue.fm/archives/9708, the form with 1/k.
Deviations: for any scheme that depends on distances only, not just rotations; the article's log n factor is the
extension log_n. The article sets k by hand; the default is the smallest k for which no distance is new.
"""

from typing import Any

from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.extension import ExtensionContext
from posbench.position.factor_extension import check_factor
from posbench.position.geometry import Geometry
from posbench.position.region_extension import RegionExtension
from posbench.position.scheme import PositionScheme


@register("extension/leaky_rerope")
class LeakyReRoPE(RegionExtension):
    """The distance n = i - j >= w becomes w + (n - w) / k; w is `window`, k is `factor`."""

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        window: int | None = None,
        factor: float | str = "auto",
    ) -> None:
        super().__init__(inner, context)
        self.window = context.tokens("window", window, max(1, context.shape.train_len // 2))
        self.factor = check_factor(self.resolve_auto(factor, self.smallest_factor))

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"factor": 1}

    def smallest_factor(self) -> float:
        """Smallest k for which the longest distance is at most the longest within the training length."""
        train_len = self.context.shape.train_len
        trained, longest = train_len - 1 - self.window, self.context.length - 1 - self.window
        if longest <= max(0, trained):
            return 1.0
        if trained < 1:
            raise ConfigError(
                f"leaky_rerope window {self.window}: no distances are left beyond it within the training length of "
                f"{train_len} tokens; give at most {train_len - 2}, or a factor"
            )
        return longest / trained

    def far_positions(self, geo: Geometry) -> tuple[Tensor, Tensor]:
        # The shift of the queries makes far distances start at w, where near ones end.
        shift = self.window * (self.factor - 1)
        return (geo.q_index_T.double() + shift) / self.factor, geo.k_index_S.double() / self.factor
