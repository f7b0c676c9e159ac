"""Softmax attention with the hooks of a scheme: one kernel call per region, merged by log-sum-exp."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import reduce
from operator import add

import torch
from torch import Tensor

from posbench.errors import IncompatibleError
from posbench.position.call import AttentionCall, Kernel
from posbench.position.geometry import Region
from posbench.position.scheme import AttentionInputs, PositionScheme


def attend(scheme: PositionScheme, inputs: AttentionInputs, v_BHSD: Tensor, kernel: Kernel) -> Tensor:
    """Returns the (B, H, T, D) output of softmax attention with the hooks of `scheme`, except `attention`.

    Raises:
        IncompatibleError: if the scheme splits the pairs into regions and is not `lse_mergeable`.
    """
    return attend_to(scheme, [(inputs, v_BHSD)], kernel)


def attend_to(scheme: PositionScheme, parts: list[tuple[AttentionInputs, Tensor]], kernel: Kernel) -> Tensor:
    """Returns the output of `attend` for keys and values given in several parts.

    Args:
        parts: inputs and (B, H, S, D) values, with the same queries and disjoint keys. More than one part
            requires a scheme that is `pairwise` and `lse_mergeable`.
    """
    softmax_normalizer = scheme.softmax_normalizer(parts[0][0])
    pieces = [(inputs, v, region) for inputs, v in parts for region in scheme.regions(inputs)]
    if len(pieces) > 1 and not scheme.traits.lse_mergeable:
        raise IncompatibleError(
            f"{type(scheme).__name__}: the logits of a query depend on all of its keys, so attention cannot be computed by "
            "regions or parts and merged; choose another scheme, or an extension without regions"
        )
    with_lse = len(pieces) > 1 or softmax_normalizer is not None
    results = [kernel(_attention_call(scheme, *piece, with_lse)) for piece in pieces]
    out_BHTD, lse_BHT = results[0] if len(results) == 1 else merge(results)
    if softmax_normalizer is not None:
        assert lse_BHT is not None
        visible = lse_BHT.isfinite()
        lse_BHT = torch.where(visible, lse_BHT, 0)
        factor = torch.where(visible, torch.exp(lse_BHT - softmax_normalizer(lse_BHT)), 0)
        out_BHTD = out_BHTD * factor[..., None].to(out_BHTD.dtype)
    return out_BHTD


def _attention_call(
    scheme: PositionScheme, inputs: AttentionInputs, v_BHSD: Tensor, region: Region, with_lse: bool
) -> AttentionCall:
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
    """Returns output and log-sum-exp over the union of disjoint sets of keys, from those over each; exact.

    Args:
        parts: (B, H, T, D) outputs and (B, H, T) log-sum-exps.
    """
    lses = torch.stack([lse for _, lse in parts if lse is not None])
    # Where no set has a visible key, -inf - -inf would make values and gradients NaN.
    top = lses.amax(0).detach()
    top = torch.where(top.isfinite(), top, 0)
    weight = torch.exp(lses - top)
    total = weight.sum(0)
    some = total > 0
    total = torch.where(some, total, 1)
    shares = (weight / total)[..., None].to(parts[0][0].dtype)
    out = reduce(add, (out * share for (out, _), share in zip(parts, shares, strict=True)))
    return out, torch.where(some, top + torch.log(total), -torch.inf)
