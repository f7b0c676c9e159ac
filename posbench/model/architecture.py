"""The architecture of a GPT apart from its position scheme: sizes, and the switches in which pretrained families differ."""

from __future__ import annotations

from dataclasses import dataclass

from posbench.errors import ConfigError
from posbench.position.scheme import ModelShape


@dataclass(frozen=True)
class Architecture:
    """A pre-norm decoder with RMSNorm and grouped-query attention.

    Attributes:
        n_layers: number of blocks.
        d_model: width of the residual stream.
        n_heads: number of query heads.
        n_kv_heads: number of heads of keys and values; each serves n_heads / n_kv_heads query heads.
        head_dim: dimensions of a head; may differ from d_model / n_heads.
        intermediate_size: hidden units of the MLP.
        gated_mlp: whether the MLP is down(silu(gate(x)) * up(x)) (SwiGLU) instead of down(gelu(up(x))).
        norm_eps: epsilon of every norm.
        qkv_bias, out_bias, mlp_bias: whether the projections have biases.
        qk_norm: whether queries and keys are normalised per head before the scheme is applied.
        tie_embeddings: whether the output head shares the weight of the token embedding.
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
        """Returns the part that schemes see; keys and values are repeated for them, one head per query head."""
        return ModelShape(self.n_layers, self.n_heads, self.head_dim, self.d_model, train_len)


@dataclass(frozen=True)
class Size:
    """Sizes of a model trained here.

    Attributes:
        n_layers: number of blocks.
        d_model: width of the residual stream.
        n_heads: number of heads of queries, keys and values.
        mlp_ratio: hidden units of the MLP over d_model.
        head_dim: dimensions of a head; None for d_model / n_heads.
    """

    n_layers: int
    d_model: int
    n_heads: int
    mlp_ratio: int = 4
    head_dim: int | None = None

    @property
    def architecture(self) -> Architecture:
        """The architecture of this size.

        Raises:
            ConfigError: if the heads do not divide the width and `head_dim` is None.
        """
        if self.n_heads < 1 or (self.head_dim is None and self.d_model % self.n_heads):
            raise ConfigError(
                f"{self.n_heads} heads do not divide the width {self.d_model}: choose heads among the divisors of the width"
            )
        head_dim = self.head_dim or self.d_model // self.n_heads
        return Architecture(
            self.n_layers, self.d_model, self.n_heads, self.n_heads, head_dim, self.mlp_ratio * self.d_model
        )

    def shape(self, train_len: int) -> ModelShape:
        """Returns the part that schemes see."""
        return self.architecture.shape(train_len)
