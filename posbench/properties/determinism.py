"""Determinism: whether positions come from a formula, from training, or from chance."""

from __future__ import annotations

import torch
from torch import Tensor

from posbench.properties.probe import Subject, draw, logits

KINDS = ("formula", "trained", "drawn anew")


def determinism(subject: Subject) -> dict[str, object]:
    """Largest differences between two evaluations, between two seeds, and between two passes of training."""
    again = Subject.of(subject.settings, subject.shape)
    other = Subject.of(subject.settings, subject.shape, seed=1)
    first = _logits(subject)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        again.scheme.train()
        one, two = _logits(again), _logits(again)
    again.scheme.eval()
    repeated = _difference(first, _logits(again))
    in_training = _difference(one, two)
    parameters = sum(parameter.numel() for parameter in subject.scheme.parameters())
    kind = KINDS[2 if in_training else 1 if parameters else 0]
    return {
        "repeated_difference": repeated,
        "seed_difference": _difference(first, _logits(other)),
        "training_difference": in_training,
        "kind": kind,
        "parameters": parameters,
    }


def _logits(subject: Subject) -> Tensor:
    length = subject.shape.train_len
    x_BSW = draw(1, length, subject.shape.width, seed=6)
    sites = subject.sites(x_BSW, subject.geometry(length))
    return torch.stack([logits(subject.scheme, site) for site in sites])


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one.nan_to_num(neginf=0.0) - other.nan_to_num(neginf=0.0)).abs().max())
