"""Attention as every scheme shares it: regions, each by one kernel call, merged by log-sum-exp."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from posbench.errors import IncompatibleError
from posbench.position.call import Kernel, Pairs
from posbench.position.geometry import Region
from posbench.position.scheme import PositionScheme, Site


def attend(scheme: PositionScheme, site: Site, v_BHSD: Tensor, kernel: Kernel) -> Tensor:
    """(B, H, T, D): softmax attention with everything that the scheme adds to it."""
    return attend_to(scheme, [(site, v_BHSD)], kernel)


def attend_to(scheme: PositionScheme, parts: list[tuple[Site, Tensor]], kernel: Kernel) -> Tensor:
    """The same over keys and values in several parts, each a site with its own keys and the same queries.

    More than one part needs a scheme whose traits say `apart` and `mergeable`.
    """
    denominator = scheme.denominator(parts[0][0])
    calls = [(site, v, region) for site, v in parts for region in scheme.regions(site)]
    if len(calls) > 1 and not scheme.traits.mergeable:
        raise IncompatibleError(
            f"{type(scheme).__name__} splits the pairs into regions and has a term of whole rows: use one or the other"
        )
    with_lse = len(calls) > 1 or denominator is not None
    found = [kernel(_pairs(scheme, *call, with_lse)) for call in calls]
    out_BHTD, lse_BHT = found[0] if len(found) == 1 else merge(found)
    if denominator is not None:
        assert lse_BHT is not None
        seen = lse_BHT.isfinite()
        lse_BHT = torch.where(seen, lse_BHT, 0)
        share = torch.where(seen, torch.exp(lse_BHT - denominator(lse_BHT)), 0)
        out_BHTD = out_BHTD * share[..., None].to(out_BHTD.dtype)
    return out_BHTD


def _pairs(scheme: PositionScheme, site: Site, v_BHSD: Tensor, region: Region, with_lse: bool) -> Pairs:
    """What the scheme says of the pairs of one region."""
    here = replace(site, geo=region.geo)
    q_BHTE, k_BHSE = scheme.qk(here)
    gain = scheme.gain(here)
    if gain is not None:
        q_BHTE = q_BHTE * gain[..., None].to(q_BHTE.dtype)
    return Pairs(
        q_BHTE,
        k_BHSE,
        v_BHSD,
        1 / math.sqrt(site.q_BHTD.shape[-1]),
        region.geo,
        tuple(mask for mask in (scheme.mask(site), region.mask) if mask is not None),
        scheme.term(here),
        scheme.value(here),
        with_lse,
    )


def merge(parts: list[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor]:
    """The attention over a union of disjoint sets of pairs from the attention over each; exact."""
    outs = torch.stack([out for out, _ in parts])
    lses = torch.stack([lse for _, lse in parts if lse is not None])
    # Rows that see nothing in a region weigh nothing; -inf - -inf would poison value and gradient.
    top = lses.amax(0).detach()
    top = torch.where(top.isfinite(), top, 0)
    weight = torch.exp(lses - top)
    total = weight.sum(0)
    some = total > 0
    total = torch.where(some, total, 1)
    out = (outs * (weight / total)[..., None].to(outs.dtype)).sum(0)
    return out, torch.where(some, top + torch.log(total), -torch.inf)
