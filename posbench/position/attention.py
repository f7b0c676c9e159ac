"""Attention as every scheme shares it: regions, each by one kernel call, merged by log-sum-exp."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from posbench.errors import IncompatibleError
from posbench.position.call import AttentionCall, Kernel
from posbench.position.geometry import Region
from posbench.position.scheme import AttentionInputs, PositionScheme


def attend(scheme: PositionScheme, inputs: AttentionInputs, v_BHSD: Tensor, kernel: Kernel) -> Tensor:
    """(B, H, T, D): softmax attention with everything that the scheme adds to it."""
    return attend_to(scheme, [(inputs, v_BHSD)], kernel)


def attend_to(scheme: PositionScheme, parts: list[tuple[AttentionInputs, Tensor]], kernel: Kernel) -> Tensor:
    """The same over keys and values in several parts, each with its own keys and the same queries.

    More than one part needs a scheme whose traits say `pairwise` and `lse_mergeable`.
    """
    softmax_normalizer = scheme.softmax_normalizer(parts[0][0])
    divided = [(inputs, v, region) for inputs, v in parts for region in scheme.regions(inputs)]
    if len(divided) > 1 and not scheme.traits.lse_mergeable:
        raise IncompatibleError(
            f"{type(scheme).__name__} splits the pairs into regions and has a term of whole rows: use one or the other"
        )
    with_lse = len(divided) > 1 or softmax_normalizer is not None
    found = [kernel(_attention_call(scheme, *part, with_lse)) for part in divided]
    out_BHTD, lse_BHT = found[0] if len(found) == 1 else merge(found)
    if softmax_normalizer is not None:
        assert lse_BHT is not None
        seen = lse_BHT.isfinite()
        lse_BHT = torch.where(seen, lse_BHT, 0)
        share = torch.where(seen, torch.exp(lse_BHT - softmax_normalizer(lse_BHT)), 0)
        out_BHTD = out_BHTD * share[..., None].to(out_BHTD.dtype)
    return out_BHTD


def _attention_call(
    scheme: PositionScheme, inputs: AttentionInputs, v_BHSD: Tensor, region: Region, with_lse: bool
) -> AttentionCall:
    """What the scheme says of the pairs of one region."""
    here = replace(inputs, geo=region.geo)
    q_BHTE, k_BHSE = scheme.qk(here)
    logit_scale = scheme.logit_scale(here)
    if logit_scale is not None:
        q_BHTE = q_BHTE * logit_scale[..., None].to(q_BHTE.dtype)
    return AttentionCall(
        q_BHTE,
        k_BHSE,
        v_BHSD,
        1 / math.sqrt(inputs.q_BHTD.shape[-1]),
        region.geo,
        tuple(mask for mask in (scheme.mask(inputs), region.mask) if mask is not None),
        scheme.attention_bias(here),
        scheme.relative_values(here),
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
