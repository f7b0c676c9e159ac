"""Keys that masks hide from all of some rows are left out: a window over a long text costs what it shows.

What lies behind a window, as ReRoPE's far region, is plain causal attention of the later queries over the earlier keys.
Both in evaluation, where no gradient asks which rows came from where.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from posbench.position.biases import DistanceBias, ElementwiseBias
from posbench.position.call import AttentionCall
from posbench.position.geometry import Geometry
from posbench.position.masks import BeyondWindow, visible_key_ranges

# Keys from which on, and rows together: with fewer, little is saved.
LONG, BLOCK = 2048, 256


def mostly_hidden(call: AttentionCall) -> bool:
    """Whether the last block of rows sees less than half of the keys, and nothing else needs the rest.

    A term must be a function of where two tokens are, and of nothing that is told by key.
    """
    geo, keys = call.geo, len(call.geo.k_index_S)
    placed = call.bias is None or isinstance(call.bias, DistanceBias | ElementwiseBias)
    if not (placed and call.masks and geo.ordered) or keys < LONG:
        return False
    seen = visible_key_ranges(call.masks, max(0, geo.n_read - BLOCK), geo.n_read - 1)
    return 2 * sum(stop - start for start, stop in seen) < keys


def prune_masked_keys(call: AttentionCall, rows: slice) -> AttentionCall:
    """Some rows over the keys that they may see."""
    geo = call.geo
    assert geo.first_query is not None
    assert geo.first_key is not None
    seen = visible_key_ranges(call.masks, geo.first_query + rows.start, geo.first_query + rows.stop - 1)
    spans = [(max(start - geo.first_key, 0), stop - geo.first_key) for start, stop in seen]
    spans = [span for span in spans if span[0] < span[1]] or [(0, 1)]  # a kernel needs a key

    def kept(x: Tensor, dim: int) -> Tensor:
        return torch.cat([x.narrow(dim, start, stop - start) for start, stop in spans], dim)

    few = replace(
        geo,
        q_index_T=geo.q_index_T[rows],
        q_pos_T=geo.q_pos_T[rows],
        k_index_S=kept(geo.k_index_S, 0),
        k_pos_S=kept(geo.k_pos_S, 0),
        position_offset=None,
        first_query=None,
        first_key=None,
        _memo={},
    )
    q, k, v = call.q_BHTE[:, :, rows], kept(call.k_BHSE, 2), kept(call.v_BHSD, 2)
    return replace(call, q_BHTE=q, k_BHSE=k, v_BHSD=v, geo=few)


def behind_a_window(call: AttentionCall) -> int:
    """The window, where all keys but those in it are seen, and nothing is added; else 0."""
    if call.bias is not None or not call.geo.square or len(call.geo.k_index_S) < LONG:
        return 0
    return call.masks[0].tokens if len(call.masks) == 1 and isinstance(call.masks[0], BeyondWindow) else 0


def shifted(call: AttentionCall, window: int) -> AttentionCall:
    """The queries that see anything, over the keys that anyone sees: plain causal."""
    seen = max(0, call.q_BHTE.shape[2] - window)
    geo = Geometry.from_range(0, seen, device=call.geo.q_index_T.device)
    q, k, v = call.q_BHTE[:, :, window:], call.k_BHSE[:, :, :seen], call.v_BHSD[:, :, :seen]
    return replace(call, q_BHTE=q, k_BHSE=k, v_BHSD=v, geo=geo, masks=())
