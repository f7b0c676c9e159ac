"""Sliding window: a token sees the nearest tokens only.

Beltagy, Peters, Cohan. Longformer. 2020, section 3.1. arXiv:2004.05150. On a trained model, as the
"window attention" of StreamingLLM, arXiv:2309.17453.
A mask over the whole sequence: through the layers a token hears of (w - 1) * layers tokens before it.
"""

from typing import Any

from posbench.position.extension import Context, Extension
from posbench.position.geometry import Mask
from posbench.position.masks import Nearest, both
from posbench.position.scheme import PositionScheme, Site


class Window(Extension):
    """Visible where i - j < w, the token itself counted; w is `window`, by default the training length."""

    def __init__(self, inner: PositionScheme, context: Context, window: int | None = None) -> None:
        super().__init__(inner, context)
        self.window = context.tokens("window", window, context.shape.train_len)

    @staticmethod
    def identity(length: int) -> dict[str, Any]:
        return {"window": length}

    def mask(self, site: Site) -> Mask | None:
        inner = self.inner.mask(site)
        # No mask where it hides nothing: the fastest kernels take none.
        if site.geo.reach <= self.window:
            return inner
        return both(inner, Nearest(self.window))
