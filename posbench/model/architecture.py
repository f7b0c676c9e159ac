"""What a GPT is made of besides its positions: counts, and the few switches in which pretrained families differ."""

from __future__ import annotations

from dataclasses import dataclass

from posbench.errors import ConfigError
from posbench.position.scheme import Shape


@dataclass(frozen=True)
class Architecture:
    """A pre-norm decoder with RMSNorm and grouped queries.

    Attributes:
        layers: blocks.
        width: of the residual stream.
        heads: of the queries.
        kv_heads: of the keys and values; each serves heads / kv_heads queries.
        head_dim: dimensions of a head, which need not be width / heads.
        mlp_width: hidden units of the MLP.
        gated: silu(gate(x)) * up(x) in the MLP (SwiGLU) in place of gelu(up(x)).
        eps: of every norm.
        qkv_bias, out_bias, mlp_bias: whether these maps have biases.
        qk_norm: whether each head's queries and keys are normalised before the scheme sees them.
        tied: whether the head is the embedding.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    gated: bool = False
    eps: float = 1e-6
    qkv_bias: bool = True
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    tied: bool = False

    @property
    def stacked(self) -> list[int]:
        """Rows of the queries, keys and values in the one map that makes them."""
        return [self.head_dim * count for count in (self.heads, self.kv_heads, self.kv_heads)]

    def shape(self, train_len: int) -> Shape:
        """The part of it that schemes may know; keys and values reach them once a head of the queries."""
        return Shape(self.layers, self.heads, self.head_dim, self.width, train_len)


@dataclass(frozen=True)
class Size:
    """Counts of a model of this project: blocks, residual width, heads, MLP width as a multiple.

    Heads divide the width unless `head_dim` says otherwise.
    """

    layers: int
    width: int
    heads: int
    mlp: int = 4
    head_dim: int | None = None

    @property
    def architecture(self) -> Architecture:
        """The model that has these counts."""
        if self.heads < 1 or (self.head_dim is None and self.width % self.heads):
            raise ConfigError(
                f"{self.heads} heads do not divide the width {self.width}: choose heads among the divisors of the width"
            )
        head_dim = self.head_dim or self.width // self.heads
        return Architecture(self.layers, self.width, self.heads, self.heads, head_dim, self.mlp * self.width)

    def shape(self, train_len: int) -> Shape:
        """The part of it that schemes may know."""
        return self.architecture.shape(train_len)
