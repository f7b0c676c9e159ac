"""Small attention calls with every structure of bias, mask and geometry, drawn from a fixed seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from posbench.position.biases import (
    AttentionBias,
    CompositeBias,
    DistanceBias,
    ElementwiseBias,
    KeyContentBias,
    QueryContentBias,
    RelativeValues,
    SeparableBias,
)
from posbench.position.call import AttentionCall
from posbench.position.geometry import Geometry, Mask

HEADS, DIMS, KEYS, CLASSES = 2, 4, 12, 5


def near(i: Tensor, j: Tensor) -> Tensor:
    """Allows a window of five tokens."""
    return i - j < 5


def sparse(i: Tensor, j: Tensor) -> Tensor:
    """Allows the diagonal and every third pair."""
    return (i == j) | ((i + 2 * j) % 3 == 0)


def clipped(distance: Tensor) -> Tensor:
    return distance.long().clamp(max=CLASSES - 1)


@dataclass
class Leaves:
    """Draws tensors that require gradients, and lists them in order."""

    generator: torch.Generator
    drawn: list[Tensor]
    dtype: torch.dtype

    def __call__(self, *shape: int) -> Tensor:
        leaf = torch.randn(shape, generator=self.generator, dtype=torch.float64).to(self.dtype)
        self.drawn.append(leaf.requires_grad_())
        return leaf


Make = Callable[[Leaves, int, int], AttentionBias | None]


def table(draw: Leaves, batch: int, queries: int) -> AttentionBias:
    row_HN = draw(HEADS, 2 * KEYS)
    return DistanceBias(lambda distance: row_HN[:, distance.long()])


def smooth(draw: Leaves, batch: int, queries: int) -> AttentionBias:
    slope_H = draw(HEADS)
    return DistanceBias(lambda distance: torch.tensordot(slope_H, distance.to(slope_H.dtype).sqrt(), 0))


def separable(draw: Leaves, batch: int, queries: int) -> AttentionBias:
    return SeparableBias(draw(batch, HEADS, queries), draw(batch, HEADS, KEYS))


def query_content(draw: Leaves, batch: int, queries: int) -> AttentionBias:
    return QueryContentBias(draw(batch, HEADS, queries, CLASSES), clipped)


def key_content(draw: Leaves, batch: int, queries: int) -> AttentionBias:
    return KeyContentBias(draw(batch, HEADS, KEYS, CLASSES), clipped)


def elementwise(draw: Leaves, batch: int, queries: int) -> AttentionBias:
    phase_H = draw(HEADS)
    return ElementwiseBias(lambda i, j: torch.cos(phase_H[:, None, None] * (i - j).to(phase_H.dtype)))


def by_query_alone(draw: Leaves, batch: int, queries: int) -> AttentionBias:
    slope_H = draw(HEADS)
    return ElementwiseBias(lambda i, j: slope_H[:, None, None] * i.to(slope_H.dtype))


def composite(draw: Leaves, batch: int, queries: int) -> AttentionBias:
    return CompositeBias(
        tuple(make(draw, batch, queries) for make in (table, separable, query_content, by_query_alone))
    )


BIASES: dict[str, Make] = {
    "none": lambda draw, batch, queries: None,
    "table": table,
    "smooth": smooth,
    "separable": separable,
    "query_content": query_content,
    "key_content": key_content,
    "elementwise": elementwise,
    "by_query_alone": by_query_alone,
    "sum": composite,
}
MASKS: dict[str, tuple[Mask, ...]] = {"causal": (), "near": (near,), "both": (near, sparse)}
GEOMETRIES: dict[str, Geometry] = {
    "square": Geometry.from_range(0, KEYS),
    "suffix": Geometry.from_range(KEYS - 4, KEYS),
    "moved": Geometry.from_range(0, KEYS).with_positions(torch.arange(KEYS) / 3, torch.arange(KEYS) / 3),
}


def case(
    structure: str,
    mask: str = "causal",
    geometry: str = "square",
    dtype: torch.dtype = torch.float64,
    shared: bool = False,
    relative_values: bool = False,
) -> tuple[AttentionCall, list[Tensor]]:
    """Returns a call and its leaves; with `shared`, three sequences of queries share one sequence of keys."""
    draw = Leaves(torch.Generator().manual_seed(7), [], dtype)
    geo = replace(GEOMETRIES[geometry], _memo={})
    batch, queries = (3 if shared else 2), len(geo.q_index_T)
    keys = 1 if shared else batch
    call = AttentionCall(
        draw(batch, HEADS, queries, DIMS),
        draw(keys, HEADS, KEYS, DIMS),
        draw(keys, HEADS, KEYS, DIMS),
        DIMS**-0.5,
        geo,
        MASKS[mask],
        BIASES[structure](draw, batch, queries),
        RelativeValues(draw(CLASSES, DIMS), clipped, CLASSES - 1) if relative_values else None,
    )
    return call, draw.drawn


def gradients(out: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Returns the gradients of a random projection of the output, so that no components cancel."""
    probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    grads = torch.autograd.grad(
        (out * probe.to(out.dtype)).sum(), leaves, retain_graph=True, allow_unused=True
    )
    return [
        torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(grads, leaves, strict=True)
    ]
