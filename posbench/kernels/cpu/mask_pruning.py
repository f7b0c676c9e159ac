"""Leaves out keys that masks hide from all rows of a block, so that a window over a long text costs only its own pairs.

The keys beyond a window, such as ReRoPE's far region, become plain causal attention of the later queries to the
earlier keys. Both run in evaluation only; neither has a gradient.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from posbench.position.biases import DistanceBias, ElementwiseBias
from posbench.position.call import AttentionCall
from posbench.position.geometry import Geometry
from posbench.position.masks import BeyondWindow, visible_key_ranges

# Smallest number of keys, and rows per block: with fewer, little time is saved.
LONG, BLOCK = 2048, 256


def is_mostly_hidden(call: AttentionCall) -> bool:
    """Returns whether the last block of rows attends to less than half of the keys, and the bias depends on positions alone."""
    geo, keys = call.geo, len(call.geo.k_index_S)
    positional = call.bias is None or isinstance(call.bias, DistanceBias | ElementwiseBias)
    if not (positional and call.masks and geo.ordered) or keys < LONG:
        return False
    seen = visible_key_ranges(call.masks, max(0, geo.n_read - BLOCK), geo.n_read - 1)
    return 2 * sum(stop - start for start, stop in seen) < keys


def prune_masked_keys(call: AttentionCall, rows: slice) -> AttentionCall:
    """Returns the call for some rows, over the keys that any of them may see."""
    geo = call.geo
    assert geo.first_query is not None
    assert geo.first_key is not None
    seen = visible_key_ranges(call.masks, geo.first_query + rows.start, geo.first_query + rows.stop - 1)
    spans = [(max(start - geo.first_key, 0), stop - geo.first_key) for start, stop in seen]
    spans = [span for span in spans if span[0] < span[1]] or [(0, 1)]  # kernels need at least one key

    def select(x: Tensor, dim: int) -> Tensor:
        return torch.cat([x.narrow(dim, start, stop - start) for start, stop in spans], dim)

    pruned = replace(
        geo,
        q_index_T=geo.q_index_T[rows],
        q_pos_T=geo.q_pos_T[rows],
        k_index_S=select(geo.k_index_S, 0),
        k_pos_S=select(geo.k_pos_S, 0),
        position_offset=None,
        first_query=None,
        first_key=None,
        _memo={},
    )
    q, k, v = call.q_BHTE[:, :, rows], select(call.k_BHSE, 2), select(call.v_BHSD, 2)
    return replace(call, q_BHTE=q, k_BHSE=k, v_BHSD=v, geo=pruned)


def beyond_window_only(call: AttentionCall) -> int:
    """Returns the window if the call is BeyondWindow alone, without a bias; else 0."""
    if call.bias is not None or not call.geo.square or len(call.geo.k_index_S) < LONG:
        return 0
    return call.masks[0].tokens if len(call.masks) == 1 and isinstance(call.masks[0], BeyondWindow) else 0


def shift_to_causal(call: AttentionCall, window: int) -> AttentionCall:
    """Returns the call over the queries that attend to any key and the keys that any query attends to, plain causal."""
    seen = max(0, call.q_BHTE.shape[2] - window)
    geo = Geometry.from_range(0, seen, device=call.geo.q_index_T.device)
    q, k, v = call.q_BHTE[:, :, window:], call.k_BHSE[:, :, :seen], call.v_BHSD[:, :, :seen]
    return replace(call, q_BHTE=q, k_BHSE=k, v_BHSD=v, geo=geo, masks=())
