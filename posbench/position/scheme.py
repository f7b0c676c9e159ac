"""Base class of position schemes: the hooks by which a scheme adds position information to a model.

The base class changes nothing: it is NoPE, where order is visible through the causal mask alone. A scheme overrides
the hooks that it needs; code that calls hooks never tests the class of a scheme.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from posbench.position.biases import AttentionBias, RelativeValues
from posbench.position.call import Kernel
from posbench.position.geometry import Geometry, Mask, Region

# Hooks that only softmax attention over pairs of a query and a key uses.
PAIR_HOOKS = (
    "regions",
    "mask",
    "qk",
    "logit_scale",
    "attention_bias",
    "relative_values",
    "softmax_normalizer",
)


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that a scheme may depend on.

    Attributes:
        n_layers, n_heads: counts.
        head_dim: D, the dimension of queries, keys and values.
        d_model: W, the dimension of the residual stream.
        train_len: training length in tokens.
    """

    n_layers: int
    n_heads: int
    head_dim: int
    d_model: int
    train_len: int


@dataclass(frozen=True)
class Traits:
    """Properties that a scheme guarantees; law tests check that the first three hold if and only if they are True.

    Attributes:
        relative: adding a constant to all positions changes no output.
        prefix_stable: the output at a token depends neither on later tokens nor on the declared length, so that
            one forward pass at the longest length gives the outputs at all shorter ones.
        shared_prefill: at a fixed declared length, a forward pass over a KV cache gives the outputs of one pass
            over all tokens, so that several continuations may share the cache of their context.
        lse_mergeable: the logit of a pair does not depend on the other keys of the row, so that attention over
            disjoint sets of keys, each in a geometry of its own, merges exactly by log-sum-exp.
        pairwise: the logit of a pair depends only on the two tokens and their positions, so that attention to a
            cached context and to new tokens may be computed apart. False for sums over the keys in between.
        softmax_attention: attention is a softmax over pairs, which extensions may mask, split and scale.
        scalable_logits: a factor on q . k changes only the temperature of the softmax, so that extensions may apply
            one. False if positions are computed from q . k.
        unbounded_context: at least one layer attends to all earlier tokens, so that a window can bound it.
        reads_hidden_states: a hook reads `AttentionInputs.x_BTW` or `x_BSW`. Only then are they passed and kept in the
            KV cache, where they take a third of the memory.
        draws_positions: the scheme places tokens at positions of its own, whatever their indices.
        capabilities: what an extension may require. Declared: "positions" (the scheme uses positions) and
            "inv_freq" (it rotates by `AttentionInputs.inv_freq_transforms`). Derived from the above:
            "softmax attention", "mergeable regions", "scalable logits", "unbounded context" and "indices as positions".
    """

    relative: bool
    prefix_stable: bool = True
    shared_prefill: bool = True
    lse_mergeable: bool = True
    pairwise: bool = True
    softmax_attention: bool = True
    scalable_logits: bool = True
    unbounded_context: bool = True
    reads_hidden_states: bool = False
    draws_positions: bool = False
    capabilities: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        derived = {
            "softmax attention": self.softmax_attention,
            "mergeable regions": self.lse_mergeable,
            "scalable logits": self.scalable_logits,
            "unbounded context": self.unbounded_context,
            "indices as positions": not self.draws_positions,
        }
        held = {name for name, holds in derived.items() if holds}
        object.__setattr__(self, "capabilities", self.capabilities - derived.keys() | held)


@dataclass(frozen=True, eq=False)
class AttentionInputs:
    """The inputs of one attention layer before the scheme changes them.

    Attributes:
        layer: index of the layer, from 0.
        geo: the geometry after `assign_positions`; inside a region, that of the region.
        x_BTW, x_BSW: normalised residual stream at the queries and at the keys; None unless the scheme's
            traits have `reads_hidden_states`.
        q_BHTD, k_BHSD: projected queries and keys.
        inv_freq_transforms: functions by which extensions change angular frequencies, outermost extension first.
            A scheme that rotates applies them to its own (M,) float64 radians per token, the last one first.
    """

    layer: int
    geo: Geometry
    x_BTW: Tensor | None
    x_BSW: Tensor | None
    q_BHTD: Tensor
    k_BHSD: Tensor
    inv_freq_transforms: tuple[Callable[[Tensor], Tensor], ...] = field(default=())


class PositionScheme(nn.Module):
    """A position scheme: optional hooks, called by the model and by `posbench.position.attention.attend`.

    logit(h, i, j) = logit_scale_i * q_i . k_j / sqrt(D) + attention_bias(h, i, j)

    Hooks in the order of their calls, with what they return and its default:

        once per forward pass, by the model
            check(length)                     None; raises if the scheme is undefined at this length
            assign_positions(geo)             Geometry with positions                         geo
        once per layer, by the model
            embed(x_BTW, geo, layer)          (B, T, W) residual stream before the block      x_BTW
            attention(inputs, v_BHSD, kernel) (B, H, T, D) in place of softmax attention      None
        once per layer, by `attend`, if `attention` returned None
            softmax_normalizer(inputs)        (B, H, T) log-sum-exp -> (B, H, T) log Z        None
            regions(inputs)                   list of regions that partition the pairs        one region
        once per region, by `attend`; except for `mask`, inputs.geo is the geometry of the region
            qk(inputs)                        (B, H, T, E) queries, (B, H, S, E) keys         as projected
            logit_scale(inputs)               factor on q . k, broadcastable to (B, H, T)     None
            mask(inputs)                      Mask, combined with causality by AND            None
            attention_bias(inputs)            AttentionBias, added to the scaled logits       None
            relative_values(inputs)           RelativeValues, added to the values by pair     None

    The kernel then runs once per region; outputs merge by log-sum-exp, and the function from `softmax_normalizer`
    replaces the merged log-sum-exp as the logarithm of the softmax's denominator. Last, once per layer, the model calls

            attention_output(out_BHTD, x_BTW, layer)   (B, H, T, D) before the output projection   out_BHTD

    One object serves all layers of a model. `__init__` may draw parameters from the global generator:
    `posbench.model.gpt.build_scheme` calls it under a seed of its own, so the other initial weights do not change.
    Constants are plain float64 tensors, not buffers: casting a model to bfloat16 does not round them; kernels round once.

    Attributes:
        traits: what the scheme guarantees.
        version: raised whenever the numbers that the scheme computes change; part of a model's identity.
        decayed_parameters: names of the scheme's own weight matrices and embedding tables, a matrix for each layer
            stacked or not: weight decay applies to these, and not to biases, gains and other scalars.
    """

    traits: Traits = Traits(relative=True)
    version: int = 1
    decayed_parameters: tuple[str, ...] = ()

    def check(self, length: int) -> None:
        """Raises UndefinedError or LengthError if the scheme is undefined for a sequence of `length` tokens."""

    def assign_positions(self, geo: Geometry) -> Geometry:
        """Returns the geometry with the positions that the scheme gives to queries and keys."""
        return geo

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        """Returns the (B, T, W) residual stream before block `layer`; before block 0 it is the token embeddings."""
        return x_BTW

    def attention(self, inputs: AttentionInputs, v_BHSD: Tensor, kernel: Kernel) -> Tensor | None:
        """Returns the (B, H, T, D) output of an attention that is no softmax over pairs, or None for `attend`.

        Args:
            v_BHSD: projected values.
            kernel: computes softmax attention, for schemes that combine it with another.
        """
        return None

    def attention_output(self, out_BHTD: Tensor, x_BTW: Tensor, layer: int) -> Tensor:
        """Returns the (B, H, T, D) output of the heads before the output projection.

        Args:
            out_BHTD: output of attention.
            x_BTW: normalised residual stream at the queries.
        """
        return out_BHTD

    def softmax_normalizer(self, inputs: AttentionInputs) -> Callable[[Tensor], Tensor] | None:
        """Returns a map from the (B, H, T) log-sum-exp of the visible logits to the log of the denominator."""
        return None

    def regions(self, inputs: AttentionInputs) -> list[Region]:
        """Returns a partition of the pairs, each part with its own geometry."""
        return [Region(inputs.geo)]

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        """Returns (B, H, T, E) queries and (B, H, S, E) keys; logits are scaled by 1/sqrt(D), whatever E is."""
        return inputs.q_BHTD, inputs.k_BHSD

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        """Returns a factor on q . k for each query, broadcastable to (B, H, T)."""
        return None

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        """Returns the pairs that may attend besides causality; every token must see itself."""
        return None

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias | None:
        """Returns the bias on the scaled logits, in nats."""
        return None

    def relative_values(self, inputs: AttentionInputs) -> RelativeValues | None:
        """Returns the vectors added to the values by pair."""
        return None
