"""Attention from the continuations of one context to the context, as one sequence of queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from posbench.position.call import AttentionCall


def is_shared_context(call: AttentionCall) -> bool:
    """Returns whether all sequences attend to the same keys, all of them visible and without a bias."""
    return call.bias is None and not len(call.masks) and call.geo.keys_all_past and len(call.k_BHSE) == 1


def fold_sequences(
    call: AttentionCall, run: Callable[[AttentionCall], tuple[Tensor, Tensor | None]]
) -> tuple[Tensor, Tensor | None]:
    """Runs a call with a shared context as one sequence of B * T queries.

    Keys and values are read once in place of once for each of the B sequences.
    """
    batch, _, queries, _ = call.q_BHTE.shape
    q_1HQE = call.q_BHTE.transpose(0, 1).flatten(1, 2)[None]
    out, lse = run(replace(call, q_BHTE=q_1HQE, geo=call.geo.repeat_queries(batch)))
    out = out[0].unflatten(1, (batch, queries)).transpose(0, 1)
    return out, None if lse is None else lse[0].unflatten(1, (batch, queries)).transpose(0, 1)
