"""Grouped-query attention with a cache, computed as a position scheme defines it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from posbench.model.architecture import Architecture
from posbench.model.norm import build_norm
from posbench.position.attention import attend_to
from posbench.position.call import Kernel
from posbench.position.geometry import Geometry
from posbench.position.scheme import AttentionInputs, PositionScheme


@dataclass(frozen=True, eq=False)
class LayerCache:
    """Keys and values of one layer before the scheme is applied.

    Schemes work on explicit positions and are applied to all keys on every pass (cached keys are rotated again), so
    one code path serves every scheme.

    Attributes:
        k_BHSD, v_BHSD: keys and values, H = n_kv_heads.
        x_BSW: normalised residual stream, or None if the scheme does not read hidden states.
    """

    k_BHSD: Tensor
    v_BHSD: Tensor
    x_BSW: Tensor | None

    @property
    def length(self) -> int:
        """Number of tokens."""
        return self.k_BHSD.shape[2]

    def append(self, new: LayerCache) -> LayerCache:
        """Returns this cache followed by `new`; a cache of one sequence is repeated for each sequence of `new`."""

        def joined(old: Tensor, new: Tensor, dim: int) -> Tensor:
            return torch.cat((old.expand(len(new), *old.shape[1:]), new), dim)

        return LayerCache(
            joined(self.k_BHSD, new.k_BHSD, 2),
            joined(self.v_BHSD, new.v_BHSD, 2),
            None if self.x_BSW is None or new.x_BSW is None else joined(self.x_BSW, new.x_BSW, 1),
        )

    def compact(self) -> LayerCache:
        """Returns a cache that does not keep the joint projection alive, of which keys and values are views."""
        k, v = (x if x.is_contiguous() else x.clone() for x in (self.k_BHSD, self.v_BHSD))
        return LayerCache(k, v, self.x_BSW)


class Attention(nn.Module):
    """Joint projection to queries, keys and values, attention under a scheme, and output projection."""

    def __init__(self, config: Architecture, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim, self.qkv_sizes = layer, config.head_dim, config.qkv_sizes
        self.queries_per_key = config.n_heads // config.n_kv_heads
        self.qkv = nn.Linear(config.d_model, sum(config.qkv_sizes), bias=config.qkv_bias)
        self.norms_projection, self.query_scale = config.qk_norm == "projection", config.query_scale
        widths = config.qkv_sizes[:2] if self.norms_projection else [config.head_dim] * 2
        self.q_norm, self.k_norm = (build_norm(config, width, config.qk_norm is not None) for width in widths)
        self.out = nn.Linear(config.qkv_sizes[0], config.d_model, bias=config.out_bias)

    def forward(
        self,
        x_BTW: Tensor,
        scheme: PositionScheme,
        geo: Geometry,
        kernel: Kernel,
        cache: LayerCache | None = None,
        use_cache: bool = False,
    ) -> tuple[Tensor, LayerCache | None]:
        """Returns (B, T, W) and, if `use_cache`, the cache of all tokens read so far.

        Args:
            x_BTW: normalised residual stream of the new tokens.
            geo: geometry of the new tokens over all tokens, with the scheme's positions.
            cache: earlier tokens, in one sequence for all B or in B sequences.
        """
        q, k, v = self.qkv(x_BTW).split(self.qkv_sizes, -1)
        if self.norms_projection:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in (q, k, v))
        if not self.norms_projection:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.query_scale != 1:
            q = q * self.query_scale
        hidden_BTW = x_BTW if scheme.traits.reads_hidden_states else None
        new = LayerCache(k, v, hidden_BTW)
        if cache is not None and (use_cache or not _can_share(scheme, cache, new)):
            new, cache = cache.append(new), None
        parts, start = [], 0
        for part in (new,) if cache is None else (cache, new):
            keys = geo if cache is None else geo.slice_keys(start, start + part.length)
            k, v = self._for_queries(part.k_BHSD), self._for_queries(part.v_BHSD)
            parts.append((AttentionInputs(self.layer, keys, hidden_BTW, part.x_BSW, q, k), v))
            start += part.length
        out_BHTD = scheme.attention(*parts[0], kernel) if cache is None else None
        if out_BHTD is None:
            out_BHTD = attend_to(scheme, parts, kernel)
        out_BHTD = scheme.attention_output(out_BHTD, x_BTW, self.layer)
        return self.out(out_BHTD.transpose(1, 2).flatten(-2)), new.compact() if use_cache else None

    def _for_queries(self, x_BHSD: Tensor) -> Tensor:
        """Repeats each head of keys or values for its group of query heads."""
        return x_BHSD.repeat_interleave(self.queries_per_key, 1) if self.queries_per_key > 1 else x_BHSD


def can_share_context(scheme: PositionScheme) -> bool:
    """Returns whether attention to a context and to what follows it can be computed apart and merged."""
    traits = scheme.traits
    return traits.softmax_attention and traits.pairwise and traits.lse_mergeable


def _can_share(scheme: PositionScheme, cache: LayerCache, new: LayerCache) -> bool:
    """Returns whether several sequences can attend to the single one in the cache without a copy for each."""
    return len(cache.k_BHSD) < len(new.k_BHSD) and can_share_context(scheme)
