"""The architecture of a GPT apart from its position scheme: sizes, and the switches in which pretrained families differ."""

from __future__ import annotations

from dataclasses import dataclass

from posbench.errors import ConfigError
from posbench.position.scheme import ModelShape


@dataclass(frozen=True)
class Architecture:
    """A decoder with grouped-query attention.

    Attributes:
        n_layers: number of blocks.
        d_model: width of the residual stream.
        n_heads: number of query heads.
        n_kv_heads: number of heads of keys and values; each serves n_heads / n_kv_heads query heads.
        head_dim: dimensions of a head; may differ from d_model / n_heads.
        intermediate_size: hidden units of the MLP.
        gated_mlp: whether the MLP is down(f(gate(x)) * up(x)) instead of down(f(up(x))).
        activation: f, a name in ACTIVATIONS of `gpt`.
        n_experts: experts of a mixture in place of the MLP; 0 for an MLP.
        experts_per_token, swiglu_alpha, swiglu_limit: see `MixtureOfExperts`.
        norm: rms, offset_rms (weights are 1 + w) or layer (with biases).
        norm_eps: epsilon of every norm.
        pre_norm, post_norm: whether attention and the MLP have a norm before, and a norm behind them.
        parallel_residual: whether attention and the MLP read the same residual stream.
        qkv_bias, out_bias, mlp_bias: whether the projections have biases.
        qk_norm: norm of queries and keys before the scheme is applied: None, "head" or "projection" (over all heads).
        query_scale: factor on queries; attention divides logits by sqrt(head_dim).
        embedding_scale: factor on token embeddings.
        logit_softcap: c of c tanh(logit / c); 0 for the logits themselves.
        tie_embeddings: whether the output head shares the weight of the token embedding.
    """

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate_size: int
    gated_mlp: bool = False
    activation: str = "gelu"
    n_experts: int = 0
    experts_per_token: int = 0
    swiglu_alpha: float = 1.702
    swiglu_limit: float = 7.0
    norm: str = "rms"
    norm_eps: float = 1e-6
    pre_norm: bool = True
    post_norm: bool = False
    parallel_residual: bool = False
    qkv_bias: bool = True
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: str | None = None
    query_scale: float = 1.0
    embedding_scale: float = 1.0
    logit_softcap: float = 0.0
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
            ConfigError: if n_heads is below 1, or does not divide d_model while `head_dim` is None.
        """
        if self.n_heads < 1 or (self.head_dim is None and self.d_model % self.n_heads):
            raise ConfigError(
                f"size.n_heads {self.n_heads} does not divide size.d_model {self.d_model}: choose a divisor, or set "
                "size.head_dim"
            )
        head_dim = self.head_dim or self.d_model // self.n_heads
        return Architecture(
            self.n_layers, self.d_model, self.n_heads, self.n_heads, head_dim, self.mlp_ratio * self.d_model
        )

    def shape(self, train_len: int) -> ModelShape:
        """Returns the part that schemes see."""
        return self.architecture.shape(train_len)
