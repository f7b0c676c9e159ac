"""Uniqueness: the smallest distance between two positions, in the embeddings and in what a query says of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posbench.properties.probe import EXACT, SchemeProbe, draw, last_token_logits

WORDS = 50
HIDDEN = -1e6  # nats


def encoding(probe: SchemeProbe, length: int, position_scale: float = 1) -> Tensor | None:
    """(N, W): what the first positions add to the embeddings, or multiply them with; None where they do neither."""
    geo = probe.geometry(length, position_scale=position_scale)
    for content in (torch.zeros, torch.ones):
        x_BSW = content(1, length, probe.shape.d_model, dtype=torch.float64)
        for layer in range(probe.shape.n_layers):
            moved = probe.scheme.embed(x_BSW, geo, layer)
            if not torch.equal(moved, x_BSW):
                return moved[0]
    return None


def embedded(probe: SchemeProbe) -> dict[str, float]:
    """The smallest |PE(p) - PE(p')|, and the smallest distance of two different tokens with and without positions."""
    length = probe.shape.train_len
    position_NW = encoding(probe, length)
    if position_NW is None:
        return dict.fromkeys(("position_distance", "token_distance", "token_distance_without"), math.nan)
    word_VW = draw(WORDS, probe.shape.d_model, seed=7)
    geo = probe.geometry(length)
    placed = probe.scheme.embed(word_VW[:, None].expand(-1, length, -1).contiguous(), geo, 0)
    apart = torch.cdist(placed.flatten(0, 1), placed.flatten(0, 1))
    same_word = torch.arange(WORDS).repeat_interleave(length)
    apart[same_word[:, None] == same_word] = torch.inf
    return {
        "position_distance": float(torch.pdist(position_NW).min()),
        "token_distance": float(apart.min()),
        "token_distance_without": float(torch.pdist(word_VW).min()),
    }


def position_separation(probe: SchemeProbe) -> dict[str, float]:
    """How little what a query says of two positions differs at least (nats), and the share of pairs that are alike.

    Over the training length, where one token stands everywhere, over all layers, heads and four tokens.
    """
    said_SP = last_token_logits(probe, probe.shape.train_len).clamp(min=HIDDEN).T.contiguous()
    apart = torch.cdist(said_SP, said_SP, p=math.inf)
    pairs = apart[torch.triu_indices(len(apart), len(apart), 1).unbind()]
    return {
        "min_logit_difference": float(pairs.min()),
        "indistinguishable_fraction": float((pairs < EXACT).double().mean()),
    }
