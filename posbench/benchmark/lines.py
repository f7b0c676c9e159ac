"""The lines of the benchmark: each compares one thing that posbench does with who else does it.

A new line is a function in LINES that yields Line objects; the script prints, stores and judges them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from posbench.benchmark.models import Maker, Shape, gpt2, ours, plain, version, x_transformers
from posbench.benchmark.paired import Ratio, compare

TOLERANCE = 1.1

SHAPES = (
    Shape(layers=4, width=256, heads=4, length=256, batch=16),
    Shape(layers=3, width=96, heads=6, length=64, batch=48),  # the demo's
)


@dataclass(frozen=True)
class Line:
    """One comparison; it fails where its whole interval lies above TOLERANCE times its goal."""

    what: str
    peer: str
    goal: float
    ratio: Ratio

    @property
    def passed(self) -> bool:
        return self.ratio.low <= TOLERANCE * self.goal


def training_step(seconds: float) -> Iterator[Line]:
    """Forward, backward and AdamW in float32, of our plain RoPE model and of the same shape elsewhere."""
    peers: dict[str, Maker] = {
        f"{version('transformers')} GPT2LMHeadModel, sdpa": gpt2,
        f"{version('x-transformers')} Decoder, rotary, flash": x_transformers,
        f"{version('torch')} SDPA, cached rotary tables, nothing else": plain,
    }
    for shape in SHAPES:
        for peer, make in peers.items():
            yield Line(
                f"training step: {shape}",
                peer,
                1.0,
                compare(step_of(ours, shape), step_of(make, shape), seconds),
            )


def step_of(make: Maker, shape: Shape) -> Callable[[], None]:
    """One training step, to be called again and again; every model gets the same ids, loss and optimizer."""
    torch.manual_seed(0)
    module, model = make(shape)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(shape.vocabulary, (shape.batch, shape.length + 1))

    def step() -> None:
        logits = model(ids[:, :-1])
        F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


LINES: tuple[Callable[[float], Iterator[Line]], ...] = (training_step,)
