"""STRING: far distances are shifted towards well-trained ones, near distances stay.

An et al. Why Does the Effective Context Length of LLMs Fall Short? ICLR 2025. arXiv:2410.18745.
S is a third of the training length and W is 128 tokens, as in the authors' github.com/HKUNLP/STRING. The method is for
texts of up to the training length: past L + S - W tokens, distances exceed the training length as without it.
Deviations: a key at distance S counts once (twice in the authors' code for prompts). For any scheme that depends on
distances only, not just rotations. By default W is at most a quarter of S, since short training lengths have less than 128
tokens to shift by.
"""

from typing import Any

from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.extension import ExtensionContext
from posbench.position.geometry import Geometry
from posbench.position.region_extension import RegionExtension
from posbench.position.scheme import PositionScheme


@register("extension/string")
class STRING(RegionExtension):
    """The distance n = i - j >= S becomes n - S + W; S is `shifted_offset`, W is `local_window`."""

    def __init__(
        self,
        inner: PositionScheme,
        context: ExtensionContext,
        shifted_offset: int | None = None,
        local_window: int | None = None,
    ) -> None:
        super().__init__(inner, context)
        self.window = context.tokens("shifted_offset", shifted_offset, max(1, context.shape.train_len // 3))
        self.local_window = context.tokens("local_window", local_window, min(128, self.window // 4), least=0)
        if self.local_window > self.window:
            raise ConfigError(
                f"string local_window {self.local_window}: give at most shifted_offset, {self.window} tokens"
            )

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"shifted_offset": length}

    def far_positions(self, geo: Geometry) -> tuple[Tensor, Tensor]:
        return geo.q_index_T - self.window + self.local_window, geo.k_index_S
