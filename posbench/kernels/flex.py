"""FlexAttention: one fused kernel for every bias that is a function of a pair, forward and backward on a GPU.

Each structure of posbench.position.biases becomes a `score_mod` that gathers from a few captured tensors: a distance
table from [H, N], a separable bias from row and column, indexed content from [B, H, T, K]. The gradient of a gather uses
atomic additions; those of a table are spread over several copies of it, with N addresses each instead of T5's 32. Masks
become a BlockMask, built one row of blocks at a time, because torch's `create_block_mask` writes out T x S. Lengths are
padded to powers of two, so that a scheme compiles once per batch size and padded length; weights are captured as tensors,
not as numbers, so that new ones need no compilation. Scores are float32 in every dtype.

On the CPU there is only a forward pass and, once compiled, no log-sum-exp.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from posbench.kernels.flex_options import BLOCK, kernel_options, pad_tokens, padded_length
from posbench.kernels.flex_score_mod import bias_parts, build_score_mod, is_written_out
from posbench.kernels.shared_context import fold_sequences, is_shared_context
from posbench.position.biases import KeyContentBias, QueryContentBias, SeparableBias
from posbench.position.call import AttentionCall
from posbench.position.geometry import Geometry, Mask, apply_mask
from posbench.position.masks import mask_cache_key

# Largest size of a bias that is written out: 1 GiB in float32.
MAX_WRITTEN_OUT = 1 << 28
# Schemes times padded lengths times dtypes that one process may compile.
RECOMPILE_LIMIT = 4096

# Integer indices (b, h, i, j) into the padded call -> True if i may attend to j.
MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def why_unsupported(call: AttentionCall) -> str | None:
    """Returns the reason why this kernel does not support `call` on the device of its tensors, or None."""
    if call.q_BHTE.device.type == "cpu":
        if torch.is_grad_enabled():
            return "FlexAttention has no backward pass on the CPU"
        if call.with_lse:
            return "FlexAttention gives no log-sum-exp on the CPU"
    return why_never_supported(call)


def why_never_supported(call: AttentionCall) -> str | None:
    """Returns the reason why this kernel does not support `call` on any device, or None."""
    geo = call.geo
    if call.bias is not None and call.bias.needs_full_rows:
        return "FlexAttention cannot compute a bias from whole rows of logits"
    if call.relative_values is not None:
        return (
            "FlexAttention cannot add to the values by pair; use posbench.kernels.relative_values around it"
        )
    if call.q_BHTE.dtype == torch.float64:
        return "FlexAttention computes in float32 at most"
    if geo.first_query is None or geo.first_key is None:
        return "FlexAttention needs queries and keys with consecutive indices"
    numbers = call.q_BHTE.shape[1] * len(geo.q_index_T) * len(geo.k_index_S)
    for bias in bias_parts(call.bias):
        each = len(call.q_BHTE) if isinstance(bias, QueryContentBias | KeyContentBias) else 1
        if each * numbers > MAX_WRITTEN_OUT and is_written_out(bias, geo):
            return f"its bias has no known structure and is {each * numbers} numbers, more than may be written out"
    return None


def flex(call: AttentionCall, compiled: bool = True) -> tuple[Tensor, Tensor | None]:
    """Returns the (B, H, T, D) output and the (B, H, T) log-sum-exp, or None without `call.with_lse`.

    Args:
        compiled: if False, runs torch's unfused implementation, which writes out T x S: for tests on the CPU.
    """
    if len(call.q_BHTE) > 1 and is_shared_context(call):
        return fold_sequences(call, partial(flex, compiled=compiled))
    geo, queries, keys = call.geo, call.q_BHTE.shape[2], call.k_BHSE.shape[2]
    padded_queries, padded_keys = padded_length(queries), padded_length(keys)
    batch = len(call.q_BHTE)
    q = pad_tokens(call.q_BHTE, padded_queries)
    k, v = (pad_tokens(x, padded_keys).expand(batch, -1, -1, -1) for x in (call.k_BHSE, call.v_BHSD))
    score_mod = (
        None if call.bias is None else build_score_mod(call.bias, geo, batch, padded_queries, padded_keys)
    )
    aux = AuxRequest(lse=True) if call.with_lse else None
    # In a compiled model, attention is a part of its graph.
    run: Any = _fused() if compiled and not torch.compiler.is_compiling() else flex_attention
    blocks = block_mask(call, padded_queries, padded_keys)
    options = kernel_options(q, sum(not isinstance(bias, SeparableBias) for bias in bias_parts(call.bias)))
    result = run(q, k, v, score_mod, blocks, scale=call.scale, kernel_options=options, return_aux=aux)
    out, lse = (result[0], result[1].lse) if call.with_lse else (result, None)
    out = out[:, :, :queries, : call.v_BHSD.shape[-1]]
    return out, None if lse is None else lse[:, :, :queries]


@cache
def _fused() -> Callable[..., Any]:
    # Past the limit, dynamo would silently run the unfused implementation.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    torch._dynamo.config.accumulated_recompile_limit = RECOMPILE_LIMIT
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(flex_attention, dynamic=False)


def block_mask(call: AttentionCall, padded_queries: int, padded_keys: int) -> BlockMask:
    """Returns causality and the masks of a padded call as a BlockMask, memoized if the masks have cache keys."""
    make = partial(_block_mask, call.geo, call.masks, padded_queries, padded_keys)
    # torch.compile cannot inspect masks while tracing; a compiled graph computes shared blocks once.
    if call.masks and torch.compiler.is_compiling():
        return make()
    keys = [mask_cache_key(mask) for mask in call.masks]
    if any(key is None for key in keys):
        return make()
    return call.geo.memo(("flex blocks", padded_queries, padded_keys, *keys), make)


def _block_mask(geo: Geometry, masks: tuple[Mask, ...], padded_queries: int, padded_keys: int) -> BlockMask:
    queries, keys, device = len(geo.q_index_T), len(geo.k_index_S), geo.q_index_T.device
    # Captured as tensors, so that one compilation serves all indices.
    starts = (geo.first_query, geo.first_key)
    first = geo.memo("flex first", lambda: [torch.tensor(start, device=device) for start in starts])

    def visible(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        i, j = i + first[0], j + first[1]
        seen = j <= i
        for mask in masks:
            seen = seen & apply_mask(mask, i, j)
        return seen

    some, every = [], []
    j = torch.arange(padded_keys, device=device)
    for start in range(0, padded_queries, BLOCK):
        i = torch.arange(start, start + BLOCK, device=device)[:, None]
        seen, real = visible(j, j, i, j), i < queries
        # Only padding queries may see padding keys.
        seen = torch.where(real, seen & (j < keys), True)
        some.append((seen & real).view(BLOCK, -1, BLOCK).any(-1).any(0))
        every.append(seen.view(BLOCK, -1, BLOCK).all(-1).all(0))
    partly_QK, full_QK = torch.stack(some), torch.stack(every) & torch.stack(some)
    part_counts, part_order = _ordered_blocks(partly_QK & ~full_QK)
    full_counts, full_order = _ordered_blocks(full_QK)
    # Causality hides the padding keys from every real query, unless the queries are not the last keys.
    mask_mod = visible if geo.ordered else _hide_padding(visible, torch.tensor(keys, device=device))
    return BlockMask.from_kv_blocks(
        part_counts,
        part_order,
        full_counts,
        full_order,
        BLOCK_SIZE=BLOCK,
        mask_mod=mask_mod,
        seq_lengths=(padded_queries, padded_keys),
    )


def _hide_padding(visible: MaskMod, keys: Tensor) -> MaskMod:
    return lambda b, h, i, j: visible(b, h, i, j) & (j < keys)


def _ordered_blocks(blocks_QK: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (1, 1, Q) numbers of blocks per row of blocks, and (1, 1, Q, K) column indices, those blocks first."""
    order = torch.argsort(blocks_QK.to(torch.int8), dim=-1, descending=True, stable=True)
    return blocks_QK.sum(-1).to(torch.int32)[None, None], order.to(torch.int32)[None, None].contiguous()
