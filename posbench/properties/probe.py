"""A scheme by itself: its hooks called as one attention layer calls them, and its logits laid open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.errors import LengthError, UndefinedError
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.model.gpt import build_scheme
from posbench.position.attention import attend
from posbench.position.biases import QueryRows
from posbench.position.call import AttentionCall
from posbench.position.geometry import Geometry
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme

TRAIN_LEN = 64
SHAPE = ModelShape(n_layers=2, n_heads=4, head_dim=8, d_model=32, train_len=TRAIN_LEN)
MULTIPLES = (1, 4, 16)
EXACT = 1e-9  # what differs by less is equal: rounding in float64 leaves some 1e-12


@dataclass(frozen=True)
class SchemeProbe:
    """A scheme in float64 as it is evaluated, and the shape that it was built for."""

    settings: Mapping[str, Any]
    shape: ModelShape
    scheme: PositionScheme

    @classmethod
    def of(cls, settings: Mapping[str, Any], shape: ModelShape = SHAPE, seed: int = 0) -> SchemeProbe:
        scheme = build_scheme(dict(settings), shape, seed)
        return cls(settings, shape, scheme.double().eval().requires_grad_(False))

    def with_shape(self, **changed: int) -> SchemeProbe:
        """The same scheme in another shape."""
        return SchemeProbe.of(self.settings, replace(self.shape, **changed))

    def supports_length(self, length: int) -> bool:
        """Whether the scheme has an answer at this length."""
        try:
            self.scheme.check(length)
        except (UndefinedError, LengthError):
            return False
        return True

    def longest(self, *lengths: int) -> int:
        """The longest of some lengths that has an answer."""
        return max(length for length in lengths if self.supports_length(length))

    def geometry(self, length: int, shift: float = 0, position_scale: float = 1) -> Geometry:
        """The first tokens, where the scheme feels them, or moved from there."""
        placed = self.scheme.assign_positions(Geometry.from_range(0, length))
        if position_scale != 1:
            return placed.with_positions(placed.q_pos_T * position_scale, placed.k_pos_S * position_scale)
        return (
            placed.with_positions(placed.q_pos_T + shift, placed.k_pos_S + shift, placed.position_offset)
            if shift
            else placed
        )

    def moves_positions(self) -> bool:
        """Whether the scheme feels tokens elsewhere than at their indices."""
        geo = self.geometry(self.shape.train_len)
        return not torch.equal(geo.q_pos_T.double(), geo.q_index_T.double())

    def attention_inputs(
        self, x_BSW: Tensor, geo: Geometry, projected: bool = True
    ) -> Iterator[AttentionInputs]:
        """Every layer on the token embeddings and what the scheme has made of them; blocks add nothing.

        Queries and keys are two random projections of the normalised stream, or both that stream itself.
        """
        for layer in range(self.shape.n_layers):
            x_BSW = self.scheme.embed(x_BSW, geo, layer)
            h_BSW = normalised(x_BSW)
            q, k = (
                h_BSW @ draw(*2 * h_BSW.shape[-1:], seed=seed) / h_BSW.shape[-1] ** 0.5 for seed in (1, 2)
            )
            sides = (q, k) if projected else (h_BSW, h_BSW)
            q, k = (side.unflatten(-1, (self.shape.n_heads, -1)).transpose(1, 2) for side in sides)
            yield AttentionInputs(layer, geo, h_BSW, h_BSW, q, k)

    def repeated_tokens(self, count: int, length: int) -> Tensor:
        """(count, length, W): sequences that repeat one token each, each another, as embeddings are drawn."""
        return draw(count, 1, self.shape.d_model, seed=3).expand(-1, length, -1)


def draw(*size: int, seed: int) -> Tensor:
    """Standard normal numbers of a generator of their own."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normalised(x_BSW: Tensor) -> Tensor:
    """As the model's blocks read the stream."""
    return F.rms_norm(x_BSW, x_BSW.shape[-1:], eps=1e-6)


def logits(scheme: PositionScheme, inputs: AttentionInputs, rows: slice = slice(None)) -> Tensor:
    """(B, H, R, S) for the queries in `rows`, -inf where nothing is seen.

    Where attention by pairs is replaced there are no logits: the weights in their place, each over that of the
    token itself, which no denominator changes.
    """
    own = scheme.attention(inputs, _one_hot(inputs), KernelDispatcher("dense"))
    if own is not None:
        weight = own / own.diagonal(dim1=-2, dim2=-1)[..., None]
        return weight.masked_fill(~inputs.geo.visible(), -torch.inf)[:, :, rows]
    found: list[Tensor] = []

    def open_up(call: AttentionCall) -> tuple[Tensor, Tensor]:
        q, k = call.q_BHTE[:, :, rows], call.k_BHSE
        visible = call.geo.visible(call.masks, rows)
        content = call.scale * q @ k.transpose(-1, -2)
        whole = content
        if call.bias is not None:
            whole = content + call.bias.precompute(k).value_from_rows(
                QueryRows(call.geo, rows, q, k, call.scale, content, visible)
            )
        found.append(whole.masked_fill(~visible, -torch.inf))
        return torch.zeros_like(call.v_BHSD), torch.zeros(call.q_BHTE.shape[:-1], dtype=q.dtype)

    attend(scheme, inputs, torch.zeros_like(inputs.k_BHSD), open_up)
    return torch.stack(found).amax(0)  # regions partition the pairs


def plain(scheme: PositionScheme, inputs: AttentionInputs) -> Tensor:
    """(B, H) logits of the last token with itself where no scheme is; 1 where there are weights in their place."""
    alike = (inputs.q_BHTD[:, :, -1] * inputs.k_BHSD[:, :, -1]).sum(-1) / inputs.q_BHTD.shape[-1] ** 0.5
    return alike if scheme.traits.softmax_attention else torch.ones_like(alike)


def _one_hot(inputs: AttentionInputs) -> Tensor:
    keys = inputs.k_BHSD.shape[2]
    return torch.eye(keys, dtype=inputs.k_BHSD.dtype).expand(*inputs.k_BHSD.shape[:2], -1, -1)


def last_token_logits(probe: SchemeProbe, length: int, position_scale: float = 1) -> Tensor:
    """(P, S): what the last token says of every position where one token stands everywhere.

    P runs over layers, heads and four different tokens. Positions with one column alike are not told apart.
    """
    geo = probe.geometry(length, position_scale=position_scale)
    last = slice(length - 1, length)
    sites = probe.attention_inputs(probe.repeated_tokens(4, length), geo)
    return torch.cat([logits(probe.scheme, inputs, last).flatten(0, 2) for inputs in sites])


def content_logits(probe: SchemeProbe, length: int) -> Tensor:
    """(P, 1): the same of a scheme that says nothing."""
    words = probe.repeated_tokens(4, 1)
    nothing = replace(probe, scheme=PositionScheme())
    sites = nothing.attention_inputs(words, nothing.geometry(1))
    return torch.cat([plain(probe.scheme, inputs).flatten() for inputs in sites])[:, None]
