"""FlexAttention: one fused kernel for every term that is a function of a pair, forward and backward on a GPU.

A structure of posbench.position.biases becomes a `score_mod` over a few captured tensors: a distance table is one gather
from `[H, N]` (its gradient atomic adds over N addresses a head, not over T5's 32), separable terms are two
gathers, indexed content one gather from `[B, H, T, K]`. Masks become a BlockMask, built a row of blocks at a
time, since torch's own writes out T x S. Lengths are padded to powers of two, so that a scheme compiles once a
bucket, and never for new weights: tensors are captured, not numbers. Scores are float32 whatever q is.

On the CPU it has a forward pass alone, and no log-sum-exp once compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from posbench.kernels.flex_options import filled, held, kernel_options
from posbench.position.biases import (
    AttentionBias,
    CompositeBias,
    DistanceBias,
    KeyContentBias,
    QueryContentBias,
    SeparableBias,
)
from posbench.position.call import AttentionCall
from posbench.position.geometry import Geometry, Mask
from posbench.position.masks import mask_cache_key

BLOCK = 128
# Numbers of a term that fits no structure and is written out: 1 GiB in float32.
WRITTEN = 1 << 28
# Schemes times buckets times precisions that one process may compile.
COMPILED = 4096

# (b, h, i, j), all integer tensors of the padded call -> nats.
Score = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def why_unsupported(call: AttentionCall) -> str | None:
    """Why this kernel cannot run `call` on the device where they are, or None."""
    if call.q_BHTE.device.type == "cpu":
        if torch.is_grad_enabled():  # whoever needs it: q, k, v or the term
            return "FlexAttention has no backward pass on the CPU"
        if call.with_lse:
            return "FlexAttention gives no log-sum-exp on the CPU"
    return why_never_supported(call)


def why_never_supported(call: AttentionCall) -> str | None:
    """What of `call` no device can run here, or None."""
    geo = call.geo
    if call.bias is not None and call.bias.needs_full_rows:
        return "FlexAttention cannot give a term its rows of logits"
    if call.relative_values is not None:
        return (
            "FlexAttention cannot add to the values by pair; around it posbench.kernels.relative_values can"
        )
    if call.q_BHTE.dtype == torch.float64:
        return "FlexAttention computes in float32 at most"
    if geo.first_query is None or geo.first_key is None:
        return "FlexAttention needs queries and keys that are tokens in a row"
    numbers = call.q_BHTE.shape[1] * len(geo.q_index_T) * len(geo.k_index_S)
    if numbers > WRITTEN and any(_written_out(bias, geo) for bias in _parts(call.bias)):
        return f"its term fits no structure and {numbers} numbers of it are more than may be written out"
    return None


def flex(call: AttentionCall, compiled: bool = True) -> tuple[Tensor, Tensor | None]:
    """(B, H, T, D), and (B, H, T) log-sum-exp where asked for.

    Args:
        compiled: False runs torch's own unfused form, which writes out T x S: for tests on the CPU.
    """
    geo, queries, keys = call.geo, call.q_BHTE.shape[2], call.k_BHSE.shape[2]
    to_queries, to_keys = padded_length(queries), padded_length(keys)
    batch = len(call.q_BHTE)
    q = filled(call.q_BHTE, to_queries)
    k, v = (filled(x.expand(batch, -1, -1, -1), to_keys) for x in (call.k_BHSE, call.v_BHSD))
    score_mod = None if call.bias is None else _plus(score_of(call.bias, geo, to_queries, to_keys))

    aux = AuxRequest(lse=True) if call.with_lse else None
    # Where the whole model is compiled it is part of that.
    run: Any = _fused() if compiled and not torch.compiler.is_compiling() else flex_attention
    blocks = block_mask(call, to_queries, to_keys)
    options = kernel_options(q, sum(not isinstance(bias, SeparableBias) for bias in _parts(call.bias)))
    found = run(q, k, v, score_mod, blocks, scale=call.scale, kernel_options=options, return_aux=aux)
    out, lse = (found[0], found[1].lse) if call.with_lse else (found, None)
    out = out[:, :, :queries, : call.v_BHSD.shape[-1]]
    return out, None if lse is None else lse[:, :, :queries]


def padded_length(length: int) -> int:
    """The padded length in tokens: a power of two, one block at least."""
    return max(BLOCK, 1 << (length - 1).bit_length())


@cache
def _fused() -> Callable[..., Any]:
    # Past the limit dynamo would run the unfused form in silence.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED)
    torch._dynamo.config.accumulated_recompile_limit = COMPILED
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(flex_attention, dynamic=False)


def _parts(bias: AttentionBias | None) -> tuple[AttentionBias, ...]:
    return () if bias is None else bias.parts if isinstance(bias, CompositeBias) else (bias,)


def _written_out(bias: AttentionBias, geo: Geometry) -> bool:
    """Whether a term fits no structure here: what is a function of distance needs whole distances."""
    if isinstance(bias, SeparableBias):
        return False
    indexed = isinstance(bias, DistanceBias | QueryContentBias | KeyContentBias)
    return not indexed or (geo.position_offset is None and geo.q_pos_T.is_floating_point())


def score_of(bias: AttentionBias, geo: Geometry, to_queries: int, to_keys: int) -> Score:
    """What a term adds to a pair of the padded call."""
    if isinstance(bias, CompositeBias):
        return _sum(tuple(score_of(part, geo, to_queries, to_keys) for part in bias.parts))
    if isinstance(bias, SeparableBias):
        return _separable(held(_padded(bias.row_BHT, to_queries)), held(_padded(bias.column_BHS, to_keys)))
    if _written_out(bias, geo):
        logits = bias.value(geo, slice(None)).float()
        logits = logits[(None,) * (4 - logits.dim())]
        logits = logits.expand(*logits.shape[:2], len(geo.q_index_T), len(geo.k_index_S))
        to = (0, to_keys - logits.shape[3], 0, to_queries - logits.shape[2])
        return _written(held(F.pad(logits, to)), len(logits) > 1, logits.shape[1] > 1)
    distance, reach = _distance(geo, to_queries, to_keys)
    if isinstance(bias, DistanceBias):
        table = partial(_table_of, bias, reach, geo.q_pos_T.device)
        # What is not learned is made once: it comes from the CPU, for which a GPU would have to wait.
        made = table() if bias.cache_owner is None else geo.memo((bias.cache_owner, "flex table"), table)
        return _table(held(made), distance)
    assert isinstance(bias, QueryContentBias | KeyContentBias)
    index_N = held(bias.index(torch.arange(padded_length(reach), device=geo.q_pos_T.device)).to(torch.int32))
    if isinstance(bias, QueryContentBias):
        content = bias.content_BHTK.float()
        content = F.pad(content, (0, 0, 0, to_queries - content.shape[2]))
        return _by_query(held(content), index_N, distance, len(content) > 1)
    content = bias.content_BHSK.float()
    content = F.pad(content, (0, 0, 0, to_keys - content.shape[2]))
    return _by_key(held(content), index_N, distance, len(content) > 1)


def _table_of(bias: DistanceBias, reach: int, device: torch.device) -> Tensor:
    return _padded(bias.of(torch.arange(reach, device=device)), padded_length(reach))


def _padded(x: Tensor, to: int) -> Tensor:
    return F.pad(x.float(), (0, to - x.shape[-1]))


# Distance of a padded pair, never negative.
Distance = Callable[[Tensor, Tensor], Tensor]


def _distance(geo: Geometry, to_queries: int, to_keys: int) -> tuple[Distance, int]:
    """The distance of a pair as the scheme feels it, and one more than the largest of them."""
    device = geo.q_pos_T.device
    if geo.position_offset is not None:
        offset = geo.memo("flex offset", lambda: torch.tensor(geo.position_offset, device=device))
        return partial(_steps, offset), geo.position_offset + len(geo.q_pos_T)
    # Two numbers leave the device once a geometry, not once a call.
    reach = geo.memo("flex reach", lambda: int((geo.q_pos_T.max() - geo.k_pos_S.min()).clamp(min=0)) + 1)
    q_pos, k_pos = geo.memo(
        ("flex positions", to_queries, to_keys),
        lambda: (
            F.pad(geo.q_pos_T, (0, to_queries - len(geo.q_pos_T))),
            F.pad(geo.k_pos_S, (0, to_keys - len(geo.k_pos_S))),
        ),
    )
    return partial(_apart, q_pos, k_pos, padded_length(reach) - 1), reach


def _steps(offset: Tensor, i: Tensor, j: Tensor) -> Tensor:
    return (i + offset - j).clamp(min=0)


def _apart(q_pos_T: Tensor, k_pos_S: Tensor, most: int, i: Tensor, j: Tensor) -> Tensor:
    return (q_pos_T[i] - k_pos_S[j]).clamp(min=0, max=most)


def _plus(added: Score) -> Callable[..., Tensor]:
    return lambda score, b, h, i, j: score + added(b, h, i, j)


def _sum(parts: tuple[Score, ...]) -> Score:
    def added(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        total = parts[0](b, h, i, j)
        for part in parts[1:]:
            total = total + part(b, h, i, j)
        return total

    return added


def _table(table_HN: Tensor, distance: Distance) -> Score:
    most = table_HN.shape[1] - 1
    return lambda b, h, i, j: table_HN[h, distance(i, j).clamp(max=most)]


def _separable(row_BHT: Tensor, column_BHS: Tensor) -> Score:
    rows, columns = len(row_BHT) > 1, len(column_BHS) > 1
    return lambda b, h, i, j: row_BHT[_one(b, rows), h, i] + column_BHS[_one(b, columns), h, j]


def _one(b: Tensor, many: bool) -> Tensor:
    """The index, or zero where there is one of all; a number would be a tensor constant, which Inductor must fold."""
    return b if many else b * 0


def _by_query(content_BHTK: Tensor, index_N: Tensor, distance: Distance, many: bool) -> Score:
    most = len(index_N) - 1
    return lambda b, h, i, j: content_BHTK[_one(b, many), h, i, index_N[distance(i, j).clamp(max=most)]]


def _by_key(content_BHSK: Tensor, index_N: Tensor, distance: Distance, many: bool) -> Score:
    most = len(index_N) - 1
    return lambda b, h, i, j: content_BHSK[_one(b, many), h, j, index_N[distance(i, j).clamp(max=most)]]


def _written(logits_BHTS: Tensor, many: bool, heads: bool) -> Score:
    return lambda b, h, i, j: logits_BHTS[_one(b, many), _one(h, heads), i, j]


def block_mask(call: AttentionCall, to_queries: int, to_keys: int) -> BlockMask:
    """Causality and the masks of a padded call by blocks; kept on the geometry where the masks can be told apart."""
    make = partial(_block_mask, call.geo, call.masks, to_queries, to_keys)
    # It cannot look into a mask while it compiles, and computes what all layers share once.
    if call.masks and torch.compiler.is_compiling():
        return make()
    names = [mask_cache_key(mask) for mask in call.masks]
    if any(name is None for name in names):
        return make()
    return call.geo.memo(("flex blocks", to_queries, to_keys, *names), make)


def _block_mask(geo: Geometry, masks: tuple[Mask, ...], to_queries: int, to_keys: int) -> BlockMask:
    queries, keys, device = len(geo.q_index_T), len(geo.k_index_S), geo.q_index_T.device
    # Captured, not written into the code: one compilation wherever the tokens stand.
    starts = (geo.first_query, geo.first_key)
    first = geo.memo("flex first", lambda: [torch.tensor(start, device=device) for start in starts])

    def visible(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        i, j = i + first[0], j + first[1]
        seen = j <= i
        for mask in masks:
            seen = seen & mask(i, j)
        return seen

    some, every = [], []
    j = torch.arange(to_keys, device=device)
    for start in range(0, to_queries, BLOCK):
        i = torch.arange(start, start + BLOCK, device=device)[:, None]
        seen, real = visible(j, j, i, j), i < queries
        # What pads may be seen by what pads alone.
        seen = torch.where(real, seen & (j < keys), True)
        some.append((seen & real).view(BLOCK, -1, BLOCK).any(-1).any(0))
        every.append(seen.view(BLOCK, -1, BLOCK).all(-1).all(0))
    partly_QK, full_QK = torch.stack(some), torch.stack(every) & torch.stack(some)
    part_counts, part_order = _listed(partly_QK & ~full_QK)
    full_counts, full_order = _listed(full_QK)
    # Keys that pad lie behind those of every real query, except where all keys lie before it.
    padded = visible if geo.ordered else _within(visible, torch.tensor(keys, device=device))
    return BlockMask.from_kv_blocks(
        part_counts,
        part_order,
        full_counts,
        full_order,
        BLOCK_SIZE=BLOCK,
        mask_mod=padded,
        seq_lengths=(to_queries, to_keys),
    )


def _within(visible: Score, keys: Tensor) -> Score:
    return lambda b, h, i, j: visible(b, h, i, j) & (j < keys)


def _listed(blocks_QK: Tensor) -> tuple[Tensor, Tensor]:
    """(1, 1, Q) how many blocks each row of blocks has, and (1, 1, Q, K) which, those first."""
    order = torch.argsort(blocks_QK.to(torch.int8), dim=-1, descending=True, stable=True)
    return blocks_QK.sum(-1).to(torch.int32)[None, None], order.to(torch.int32)[None, None].contiguous()
