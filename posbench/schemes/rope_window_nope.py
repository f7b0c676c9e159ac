"""SWAN: layers that turn within a window, and every few layers one that sees everything and does not turn.

Puvvada et al. SWAN-GPT: An Efficient and Scalable Approach for Long-Context Language Modeling. 2025.
arXiv:2504.08719. Without the scaling it is the RNoPE-SWA of arXiv:2501.18795.
Past the training length L the layers that see everything sharpen with the logarithm of the number of keys, as
max(1, log_L n): the paper's scaling at inference is logarithmic, its constants could not be verified. The
window is half of L; a model of fewer than `every` layers has its last one see everything.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from posbench.compose import Layered, every_nth, nearest, span
from posbench.geometry import Mask, both
from posbench.scheme import PositionScheme, Shape, Site


class RopeWindowNope(Layered):
    """Each n-th layer of `every` n: max(1, log_L(i + 1)) q_i . k_j / sqrt(D); others: another scheme, i - j < window."""

    def __init__(
        self, shape: Shape, over: Mapping[str, Any], every: int = 4, window: int | None = None
    ) -> None:
        super().__init__(shape, [over, PositionScheme()], every_nth(shape.layers, every))
        self.train_len = shape.train_len
        self.window = span(shape, "rope_window_nope window", window, max(1, shape.train_len // 2))

    def mask(self, site: Site) -> Mask | None:
        own = None if self.is_global(site) else nearest(self.window, site)
        return both(super().mask(site), own)

    def gain(self, site: Site) -> Tensor | None:
        if not self.is_global(site):
            return super().gain(site)
        keys_T = site.geo.q_index_T.double() + 1
        return (keys_T.log() / keys_T.new_tensor(max(2, self.train_len)).log()).clamp(min=1)

    def is_global(self, site: Site) -> bool:
        """Whether the layer sees everything."""
        return self.layers[site.layer] == 1
