"""A scheme in isolation: its hooks called as by attention layers, and its logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from posbench.errors import LengthError, UndefinedError
from posbench.model.gpt import build_scheme
from posbench.position.attention import attend
from posbench.position.biases import QueryRows
from posbench.position.call import AttentionCall
from posbench.position.entmax import LogWeights
from posbench.position.geometry import Geometry
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme

TRAIN_LEN = 64
SHAPE = ModelShape(n_layers=2, n_heads=4, head_dim=8, d_model=32, train_len=TRAIN_LEN)
MULTIPLES = (1, 4, 16)
EXACT = 1e-9  # smaller differences count as equal; rounding errors in float64 are about 1e-12


@dataclass(frozen=True)
class SchemeProbe:
    """A scheme in float64 and evaluation mode, and the shape that it was built for."""

    settings: Mapping[str, Any]
    shape: ModelShape
    scheme: PositionScheme
    # Results of last_token_logits, which several properties read.
    _last_token: dict[tuple[int, float], Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, settings: Mapping[str, Any], shape: ModelShape = SHAPE, seed: int = 0) -> SchemeProbe:
        scheme = build_scheme(dict(settings), shape, seed)
        return cls(settings, shape, scheme.double().eval().requires_grad_(False))

    def with_shape(self, **changed: int) -> SchemeProbe:
        """Returns the scheme built for another shape."""
        return SchemeProbe.of(self.settings, replace(self.shape, **changed))

    def supports_length(self, length: int) -> bool:
        """Returns whether the scheme is defined at a length (tokens)."""
        try:
            self.scheme.check(length)
        except (UndefinedError, LengthError):
            return False
        return True

    def longest(self, *lengths: int) -> int:
        """Returns the longest of some lengths that the scheme supports."""
        return max(length for length in lengths if self.supports_length(length))

    def geometry(self, length: int, shift: float = 0, position_scale: float = 1) -> Geometry:
        """Returns the first tokens at the positions that the scheme assigns, which can be shifted or scaled."""
        geo = self.scheme.assign_positions(Geometry.from_range(0, length))
        if position_scale != 1:
            return geo.with_positions(geo.q_pos_T * position_scale, geo.k_pos_S * position_scale)
        return (
            geo.with_positions(geo.q_pos_T + shift, geo.k_pos_S + shift, geo.position_offset)
            if shift
            else geo
        )

    def moves_positions(self) -> bool:
        """Returns whether the scheme assigns positions other than the indices of tokens."""
        geo = self.geometry(self.shape.train_len)
        return not torch.equal(geo.q_pos_T.double(), geo.q_index_T.double())

    def attention_inputs(
        self, x_BSW: Tensor, geo: Geometry, projected: bool = True
    ) -> Iterator[AttentionInputs]:
        """Yields the inputs of attention in every layer, with the scheme's embeddings but without block outputs.

        Args:
            x_BSW: token embeddings.
            projected: queries and keys are random projections of the normalised stream, not the stream itself.
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
        """(count, length, W): embeddings of sequences that repeat one random token each."""
        return draw(count, 1, self.shape.d_model, seed=3).expand(-1, length, -1)


def draw(*size: int, seed: int) -> Tensor:
    """Returns standard normal numbers in float64."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normalised(x_BSW: Tensor) -> Tensor:
    """Returns the residual stream as normalised in the model's blocks."""
    return F.rms_norm(x_BSW, x_BSW.shape[-1:], eps=1e-6)


def logits(scheme: PositionScheme, inputs: AttentionInputs, rows: slice = slice(None)) -> Tensor:
    """(B, H, R, S): logits of the queries in `rows`, or weights where the layer has no logits; -inf if masked."""
    return logits_or_weights(scheme, inputs, rows)[0]


def logits_or_weights(
    scheme: PositionScheme, inputs: AttentionInputs, rows: slice = slice(None)
) -> tuple[Tensor, bool]:
    """Returns (B, H, R, S) values of the queries in `rows`, -inf if masked, and whether they are logits.

    Logits are those before the normalizer, be it the softmax or another function. A layer without logits, such as a
    linear recurrence, has weights relative to the weight of the token itself instead.
    """
    by_region: list[Tensor] = []

    def record(call: AttentionCall) -> tuple[Tensor, Tensor]:
        q, k = call.q_BHTE[:, :, rows], call.k_BHSE
        visible = call.geo.visible(call.masks, rows)
        content = call.scale * q @ k.transpose(-1, -2)
        whole = content
        bias = call.bias.inner if isinstance(call.bias, LogWeights) else call.bias
        if bias is not None:
            whole = content + bias.precompute(k).value_from_rows(
                QueryRows(call.geo, rows, q, k, call.scale, content, visible)
            )
        by_region.append(whole.masked_fill(~visible, -torch.inf))
        return torch.zeros_like(call.v_BHSD), torch.zeros(call.q_BHTE.shape[:-1], dtype=q.dtype)

    own = scheme.attention(inputs, _one_hot(inputs), record)
    if own is None:
        attend(scheme, inputs, torch.zeros_like(inputs.k_BHSD), record)
    if by_region:
        return torch.stack(by_region).amax(0), True  # regions partition the pairs
    assert own is not None
    weight = own / own.diagonal(dim1=-2, dim2=-1)[..., None]
    return weight.masked_fill(~inputs.geo.visible(), -torch.inf)[:, :, rows], False


def plain(scheme: PositionScheme, inputs: AttentionInputs) -> Tensor:
    """(B, H): logits of the last token with itself without a scheme; 1 in a layer without logits."""
    logit_BH = (inputs.q_BHTD[:, :, -1] * inputs.k_BHSD[:, :, -1]).sum(-1) / inputs.q_BHTD.shape[-1] ** 0.5
    return logit_BH if logits_or_weights(scheme, inputs)[1] else torch.ones_like(logit_BH)


def has_weights(probe: SchemeProbe) -> bool:
    """Returns whether some layer has no logits, so that weights take their place."""
    layers = probe.attention_inputs(probe.repeated_tokens(1, 1), probe.geometry(1))
    return any(not logits_or_weights(probe.scheme, inputs)[1] for inputs in layers)


def _one_hot(inputs: AttentionInputs) -> Tensor:
    keys = inputs.k_BHSD.shape[2]
    return torch.eye(keys, dtype=inputs.k_BHSD.dtype).expand(*inputs.k_BHSD.shape[:2], -1, -1)


def last_token_logits(probe: SchemeProbe, length: int, position_scale: float = 1) -> Tensor:
    """(P, S): logits of the last token with every position of a sequence that repeats one token.

    P runs over layers, heads and four different tokens. The scheme cannot distinguish positions with equal columns.
    """
    key = length, float(position_scale)
    if key not in probe._last_token:
        geo = probe.geometry(length, position_scale=position_scale)
        last = slice(length - 1, length)
        layers = probe.attention_inputs(probe.repeated_tokens(4, length), geo)
        found = [logits(probe.scheme, inputs, last).flatten(0, 2) for inputs in layers]
        probe._last_token[key] = torch.cat(found)
    return probe._last_token[key]


def content_logits(probe: SchemeProbe) -> Tensor:
    """(P, 1): logits of any token of these sequences with another one, without a scheme; 1 in a layer without logits."""
    tokens = probe.repeated_tokens(4, 1)
    without = replace(probe, scheme=PositionScheme())
    layers = without.attention_inputs(tokens, without.geometry(1))
    return torch.cat([plain(probe.scheme, inputs).flatten() for inputs in layers])[:, None]
