"""Uniqueness: the smallest distance between two positions, in embeddings and in logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posbench.properties.probe import EXACT, SchemeProbe, draw, last_token_logits

TOKENS = 50
MASKED = -1e6  # nats, in place of -inf


def encoding(probe: SchemeProbe, length: int, position_scale: float = 1) -> Tensor | None:
    """(N, W): term or factor of the embeddings at the first positions; None if the scheme has neither."""
    geo = probe.geometry(length, position_scale=position_scale)
    for content in (torch.zeros, torch.ones):
        x_BSW = content(1, length, probe.shape.d_model, dtype=torch.float64)
        for layer in range(probe.shape.n_layers):
            moved = probe.scheme.embed(x_BSW, geo, layer)
            if not torch.equal(moved, x_BSW):
                return moved[0]
    return None


def embedded(probe: SchemeProbe) -> dict[str, float]:
    """Returns the smallest |PE(p) - PE(p')|, and the smallest distance of different tokens with and without positions."""
    length = probe.shape.train_len
    position_NW = encoding(probe, length)
    if position_NW is None:
        return dict.fromkeys(("position_distance", "token_distance", "token_distance_without"), math.nan)
    token_VW = draw(TOKENS, probe.shape.d_model, seed=7)
    geo = probe.geometry(length)
    embedded_VNW = probe.scheme.embed(token_VW[:, None].expand(-1, length, -1).contiguous(), geo, 0)
    distance = torch.cdist(embedded_VNW.flatten(0, 1), embedded_VNW.flatten(0, 1))
    token = torch.arange(TOKENS).repeat_interleave(length)
    distance[token[:, None] == token] = torch.inf
    # Embeddings that are NaN are not distinct; NaN stands for schemes without embeddings.
    return {
        "position_distance": float(torch.pdist(position_NW).nan_to_num(nan=0.0, posinf=math.inf).min()),
        "token_distance": float(distance.nan_to_num(nan=0.0, posinf=math.inf).min()),
        "token_distance_without": float(torch.pdist(token_VW).min()),
    }


def position_separation(probe: SchemeProbe) -> dict[str, float]:
    """Returns the smallest difference between the logits of two positions (nats), and the fraction of equal pairs.

    Positions are those of the training length. A difference is the largest over layers, heads and four sequences that
    repeat one token each.
    """
    logit_SP = last_token_logits(probe, probe.shape.train_len).clamp(min=MASKED).T.contiguous()
    difference_SS = torch.cdist(logit_SP, logit_SP, p=math.inf)
    pairs = difference_SS[torch.triu_indices(len(difference_SS), len(difference_SS), 1).unbind()]
    return {
        "min_logit_difference": float(pairs.min()),
        "indistinguishable_fraction": float((~(pairs >= EXACT)).double().mean()),
    }
