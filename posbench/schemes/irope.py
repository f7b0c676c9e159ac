"""iRoPE: layers that turn within chunks, and every few layers one that sees everything and does not turn.

Meta, 2025: https://ai.meta.com/blog/llama-4-multimodal-intelligence/. As Llama 4 in Hugging Face's transformers: the
layers without rotation sharpen slowly with the position. Chunk and step of the sharpening are both the
training length there (8192) and by default here. Without its normalisation of turned queries and keys. A
model of fewer than `every` layers has its last one see everything.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from posbench.errors import ConfigError
from posbench.position.compose import Layered, every_nth, span
from posbench.position.geometry import Mask
from posbench.position.masks import Chunk, both
from posbench.position.scheme import PositionScheme, Shape, Site


class IRoPE(Layered):
    """Each n-th layer: (1 + s ln(1 + floor((i + 1) / step))) q_i . k_j / sqrt(D); others: another scheme within a chunk."""

    def __init__(
        self,
        shape: Shape,
        over: Mapping[str, Any],
        every: int = 4,
        chunk: int | None = None,
        step: int | None = None,
        strength: float = 0.1,
    ) -> None:
        super().__init__(shape, [over, PositionScheme()], every_nth(shape.layers, every))
        if strength < 0 or (step is not None and step < 1):
            raise ConfigError(
                f"irope step {step}, strength {strength}: give a step of at least 1 token and a strength of at least 0 "
                "(0.1 in Llama 4)"
            )
        self.chunk = span(shape, "irope chunk", chunk, shape.train_len)
        self.step, self.strength = shape.train_len if step is None else step, strength

    def mask(self, site: Site) -> Mask | None:
        inner = super().mask(site)
        if self.is_global(site) or site.geo.read <= self.chunk:
            return inner
        return both(inner, Chunk(self.chunk))

    def gain(self, site: Site) -> Tensor | None:
        if not self.is_global(site):
            return super().gain(site)
        steps_T = (site.geo.q_index_T + 1) // self.step
        return 1 + self.strength * steps_T.double().log1p()

    def is_global(self, site: Site) -> bool:
        """Whether the layer sees everything."""
        return self.layers[site.layer] == 1
