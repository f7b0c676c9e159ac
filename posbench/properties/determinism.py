"""Determinism: positions from a formula, from training, or from random draws."""

from __future__ import annotations

import torch
from torch import Tensor

from posbench.properties.probe import SchemeProbe, draw, logits

SOURCES = ("formula", "trained", "random")


def determinism(probe: SchemeProbe) -> dict[str, object]:
    """Returns the source of positions, the number of parameters, and the largest differences of logits (nats).

    Differences are those between two evaluations, between two seeds, and between two passes in training mode.
    """
    again = SchemeProbe.of(probe.settings, probe.shape)
    other = SchemeProbe.of(probe.settings, probe.shape, seed=1)
    first = _logits(probe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        again.scheme.train()
        one, two = _logits(again), _logits(again)
    again.scheme.eval()
    repeated = _difference(first, _logits(again))
    in_training = _difference(one, two)
    parameters = sum(parameter.numel() for parameter in probe.scheme.parameters())
    source = SOURCES[2 if in_training else 1 if parameters else 0]
    return {
        "repeated_difference": repeated,
        "seed_difference": _difference(first, _logits(other)),
        "training_difference": in_training,
        "position_source": source,
        "parameters": parameters,
    }


def _logits(probe: SchemeProbe) -> Tensor:
    length = probe.shape.train_len
    x_BSW = draw(1, length, probe.shape.d_model, seed=6)
    layers = probe.attention_inputs(x_BSW, probe.geometry(length))
    return torch.stack([logits(probe.scheme, inputs) for inputs in layers])


def _difference(one: Tensor, other: Tensor) -> float:
    masked = one.isneginf(), other.isneginf()
    return float((one.masked_fill(masked[0], 0) - other.masked_fill(masked[1], 0)).abs().max())
