"""What a GPT is made of besides its positions: counts, and the few switches in which pretrained families differ."""

from __future__ import annotations

from dataclasses import dataclass

from posbench.errors import ConfigError
from posbench.position.scheme import ModelShape


@dataclass(frozen=True)
class Architecture:
    """A pre-norm decoder with RMSNorm and grouped queries.

    Attributes:
        n_layers: blocks.
        d_model: of the residual stream.
        n_heads: of the queries.
        n_kv_heads: of the keys and values; each serves n_heads / n_kv_heads queries.
        head_dim: dimensions of a head, which need not be d_model / n_heads.
        intermediate_size: hidden units of the MLP.
        gated_mlp: silu(gate(x)) * up(x) in the MLP (SwiGLU) in place of gelu(up(x)).
        norm_eps: of every norm.
        qkv_bias, out_bias, mlp_bias: whether these maps have biases.
        qk_norm: whether each head's queries and keys are normalised before the scheme sees them.
        tie_embeddings: whether the head is the embedding.
    """

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate_size: int
    gated_mlp: bool = False
    norm_eps: float = 1e-6
    qkv_bias: bool = True
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    tie_embeddings: bool = False

    @property
    def qkv_sizes(self) -> list[int]:
        """Output dimensions of the queries, keys and values in their joint projection."""
        return [self.head_dim * count for count in (self.n_heads, self.n_kv_heads, self.n_kv_heads)]

    def shape(self, train_len: int) -> ModelShape:
        """The part of it that schemes may know; keys and values reach them once a head of the queries."""
        return ModelShape(self.n_layers, self.n_heads, self.head_dim, self.d_model, train_len)


@dataclass(frozen=True)
class Size:
    """Counts of a model of this project: blocks, residual width, heads, MLP width as a multiple.

    Heads divide the width unless `head_dim` says otherwise.
    """

    n_layers: int
    d_model: int
    n_heads: int
    mlp_ratio: int = 4
    head_dim: int | None = None

    @property
    def architecture(self) -> Architecture:
        """The model that has these counts."""
        if self.n_heads < 1 or (self.head_dim is None and self.d_model % self.n_heads):
            raise ConfigError(
                f"{self.n_heads} heads do not divide the width {self.d_model}: choose heads among the divisors of the width"
            )
        head_dim = self.head_dim or self.d_model // self.n_heads
        return Architecture(
            self.n_layers, self.d_model, self.n_heads, self.n_heads, head_dim, self.mlp_ratio * self.d_model
        )

    def shape(self, train_len: int) -> ModelShape:
        """The part of it that schemes may know."""
        return self.architecture.shape(train_len)
