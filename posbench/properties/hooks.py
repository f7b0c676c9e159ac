"""What a scheme acts on, as its hooks tell."""

from __future__ import annotations

import torch

from posbench.position.scheme import Site
from posbench.properties.probe import Subject, draw

# In the order in which a model meets them.
PARTS = ("embeddings", "positions", "q and k", "gain", "logits", "values", "mask", "softmax", "attention")


def acts_on(subject: Subject) -> tuple[str, ...]:
    """The parts of a model that the scheme changes, somewhere in twice the training length if it has an answer."""
    scheme = subject.scheme
    length = subject.longest(subject.shape.train_len, 2 * subject.shape.train_len)
    x_BSW = draw(1, length, subject.shape.width, seed=0)
    geo = subject.geometry(length)
    found = {"positions"} if subject.moves_positions() else set()
    for site in subject.sites(x_BSW, geo):
        if not torch.equal(scheme.embed(x_BSW, geo, site.layer), x_BSW):
            found.add("embeddings")
        found |= _by_pairs(subject, site)
    return tuple(part for part in PARTS if part in found)


def _by_pairs(subject: Subject, site: Site) -> set[str]:
    scheme, found = subject.scheme, set()
    if scheme.attention(site, torch.zeros_like(site.k_BHSD), _never) is not None:
        return {"attention"}
    q, k = scheme.qk(site)
    if q.shape != site.q_BHTD.shape or not (torch.equal(q, site.q_BHTD) and torch.equal(k, site.k_BHSD)):
        found.add("q and k")
    hooks = {"gain": "gain", "term": "logits", "value": "values", "mask": "mask", "denominator": "softmax"}
    return found | {part for hook, part in hooks.items() if getattr(scheme, hook)(site) is not None}


def _never(pairs: object) -> tuple[torch.Tensor, None]:
    raise AssertionError("attention in place of pairs asks no kernel")
