"""A position scheme: everything by which a model knows the order of its tokens.

The base class does nothing (it is NoPE). A scheme overrides the hooks that it needs; no caller ever asks
which scheme it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from posbench.position.biases import AttentionBias, RelativeValues
from posbench.position.call import Kernel
from posbench.position.geometry import Geometry, Mask, Region


@dataclass(frozen=True)
class ModelShape:
    """What a scheme may know of the model: counts, dimensions, and the training length in tokens."""

    n_layers: int
    n_heads: int
    head_dim: int
    d_model: int
    train_len: int


@dataclass(frozen=True)
class Traits:
    """What a scheme promises; a law test holds it to each promise, and to each promise that it does not make.

    Attributes:
        relative: moving all positions by the same amount changes nothing.
        prefix_stable: what is computed for a prefix depends neither on what follows nor on the declared
            length, so that one forward pass at the longest length gives every shorter one.
        shared_prefill: with the declared length frozen, questions may share one pass over their context.
        lse_mergeable: what it says of a pair does not depend on the other pairs of the row, so that attention
            over parts of the pairs, each in a geometry of its own, merges to attention over all.
        pairwise: what it says of a pair depends on the two tokens and their positions alone, so that a context may
            be attended apart from the questions about it; not where it sums over the keys between them.
        softmax_attention: attention is a softmax over pairs, which extensions may mask, split and scale.
        unbounded_context: some layer sees all that came before, so that there is something to bound.
        reads_hidden_states: some hook reads `AttentionInputs.x_BTW` or `x_BSW`; otherwise these are None, and the cache
            does not hold them, a third of its memory.
        capabilities: what extensions may require: "positions" (it feels positions at all), "inv_freq" (it
            rotates, through `AttentionInputs.inv_freq_transforms`); "softmax attention", "mergeable regions" and "unbounded context" follow from the above.
    """

    relative: bool
    prefix_stable: bool = True
    shared_prefill: bool = True
    lse_mergeable: bool = True
    pairwise: bool = True
    softmax_attention: bool = True
    unbounded_context: bool = True
    reads_hidden_states: bool = False
    capabilities: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        follow = {
            "softmax attention": self.softmax_attention,
            "mergeable regions": self.lse_mergeable,
            "unbounded context": self.unbounded_context,
        }
        held = {name for name, holds in follow.items() if holds}
        object.__setattr__(self, "capabilities", self.capabilities - follow.keys() | held)


@dataclass(frozen=True, eq=False)
class AttentionInputs:
    """One attention call: which layer, where its tokens are, and what it computes from.

    Attributes:
        layer: 0 is the first block.
        geo: the geometry, already placed by the scheme; in a region, that region's.
        x_BTW, x_BSW: the normalised residual stream at the queries and at the keys; None unless the scheme's traits
            have `reads_hidden_states`.
        q_BHTD, k_BHSD: queries and keys as projected, before the scheme.
        inv_freq_transforms: changes that extensions make to the angular frequencies, outermost first; whoever rotates
            applies them to its own (M,) float64 radians per token, the innermost before the others.
    """

    layer: int
    geo: Geometry
    x_BTW: Tensor | None
    x_BSW: Tensor | None
    q_BHTD: Tensor
    k_BHSD: Tensor
    inv_freq_transforms: tuple[Callable[[Tensor], Tensor], ...] = field(default=())


class PositionScheme(nn.Module):
    """logit(h, i, j) = logit_scale_i * q_i . k_j / sqrt(D) + attention_bias(h, i, j), every hook optional.

    One object serves all layers of a model. Parameters may be drawn freely in `__init__`: the model builds
    the scheme under its own seed, so that nothing else's initial weights move. Constants are plain float64
    tensors, no buffers: casting a model to bfloat16 must not round them, the kernels round once.
    """

    traits: Traits = Traits(relative=True)
    # Raised whenever the numbers that the scheme computes change; part of a model's identity.
    version: int = 1

    def check(self, length: int) -> None:
        """Raise UndefinedError or LengthError if a sequence of `length` tokens has no meaning here."""

    def assign_positions(self, geo: Geometry) -> Geometry:
        """Where the tokens are felt; asked once a forward pass."""
        return geo

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        """The residual stream before block `layer`; layer 0 sees the token embeddings."""
        return x_BTW

    def regions(self, inputs: AttentionInputs) -> list[Region]:
        """A partition of the pairs, each part with a geometry of its own."""
        return [Region(inputs.geo)]

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        """Which pairs may attend, besides causality; it must let every token see itself."""
        return None

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        """Queries (B, H, T, E) and keys (B, H, S, E); the logits are scaled by 1/sqrt(D) whatever E is."""
        return inputs.q_BHTD, inputs.k_BHSD

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        """A factor on q . k by query, broadcastable to (B, H, T)."""
        return None

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias | None:
        """What is added to the scaled logits, in nats."""
        return None

    def relative_value(self, inputs: AttentionInputs) -> RelativeValues | None:
        """What is added to the values, by pair."""
        return None

    def softmax_normalizer(self, inputs: AttentionInputs) -> Callable[[Tensor], Tensor] | None:
        """A map of the log-sum-exp (B, H, T) of the visible logits to the log of the softmax's denominator."""
        return None

    def attention(self, inputs: AttentionInputs, v_BHSD: Tensor, kernel: Kernel) -> Tensor | None:
        """(B, H, T, D): in place of attention by pairs, for what is none; None for the shared `attend`."""
        return None
