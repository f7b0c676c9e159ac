"""Source of positions: a formula, training, or random draws."""

from __future__ import annotations

import torch
from torch import Tensor

from posbench.properties.probe import EXACT, SchemeProbe, draw, logits

CHANGE = 0.1  # standard deviation of what is added to parameters


def determinism(probe: SchemeProbe) -> dict[str, object]:
    """Returns the source of positions, the number of parameters, and the largest differences of logits (nats).

    random: logits differ between two passes in training mode. trained: they change with the parameters, by more than a
    factor for each head, which is a temperature. formula: neither; parameters, if any, are not about positions.
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
    if in_training:
        source = "random"
    else:
        with_others = SchemeProbe.of(probe.settings, probe.shape)
        for number, parameter in enumerate(with_others.scheme.parameters()):
            parameter.add_(CHANGE * draw(*parameter.shape, seed=number))
        change = _difference(_up_to_a_factor(first), _up_to_a_factor(_logits(with_others)))
        source = "formula" if change <= EXACT else "trained"
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


def _up_to_a_factor(logit: Tensor) -> Tensor:
    """Returns logits relative to their norm in each head, 0 if masked."""
    return torch.nn.functional.normalize(logit.masked_fill(logit.isneginf(), 0).flatten(-2), dim=-1)


def _difference(one: Tensor, other: Tensor) -> float:
    masked = one.isneginf(), other.isneginf()
    return float((one.masked_fill(masked[0], 0) - other.masked_fill(masked[1], 0)).abs().max())
