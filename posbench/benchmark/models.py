"""Language models of one shape: posbench's own, and the same by other projects."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.errors import DataError
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.lm.native import NativeLM
from posbench.model.gpt import GPT, Size, build_scheme
from posbench.schemes.rope import RoPE


@dataclass(frozen=True)
class BenchmarkShape:
    """Sizes of a model and of its training batch."""

    n_layers: int
    d_model: int
    n_heads: int
    seq_len: int
    batch_size: int
    vocab_size: int = 384

    def __str__(self) -> str:
        return f"{self.n_layers} layers, width {self.d_model}, {self.n_heads} heads, {self.batch_size} x {self.seq_len}"


# Token ids (B, T) -> logits (B, T, V).
Model = Callable[[Tensor], Tensor]
Maker = Callable[[BenchmarkShape], tuple[nn.Module, Model]]


def ours(shape: BenchmarkShape) -> tuple[nn.Module, Model]:
    """posbench's model with RoPE."""
    size = Size(shape.n_layers, shape.d_model, shape.n_heads)
    model = GPT(size, shape.vocab_size, RoPE(size.shape(shape.seq_len)), seed=0)
    return model, lambda ids: model.head(model(ids)[0])


def with_scheme(build: dict[str, Any]) -> Maker:
    """Returns the maker of posbench's model with the scheme that settings build."""

    def make(shape: BenchmarkShape) -> tuple[nn.Module, Model]:
        size = Size(shape.n_layers, shape.d_model, shape.n_heads)
        model = GPT(size, shape.vocab_size, build_scheme(build, size.shape(shape.seq_len), seed=0), seed=0)
        return model, lambda ids: model.head(model(ids)[0])

    return make


def as_lm(
    model: nn.Module,
    shape: BenchmarkShape,
    precision: Callable[[], AbstractContextManager] = nullcontext,
    max_tokens_per_batch: int = 16384,
) -> NativeLM:
    """Returns a model of posbench, wrapped as evaluation wraps it."""
    assert isinstance(model, GPT)
    return NativeLM(model, shape.seq_len, KernelDispatcher("auto"), precision, max_tokens_per_batch)


def gpt2(shape: BenchmarkShape) -> tuple[nn.Module, Model]:
    """transformers' GPT2LMHeadModel: learned positions, LayerNorm, biases, tied head."""
    from transformers import AutoModelForCausalLM, GPT2Config

    config = GPT2Config(
        vocab_size=shape.vocab_size,
        n_positions=shape.seq_len,
        n_embd=shape.d_model,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation="sdpa", trust_remote_code=False
    ).train()
    return model, lambda ids: model(ids).logits


def x_transformers(shape: BenchmarkShape) -> tuple[nn.Module, Model]:
    """lucidrains' x-transformers with rotary positions on all dimensions and its flash attention."""
    from x_transformers import Decoder, TransformerWrapper

    head_dim = shape.d_model // shape.n_heads
    layers = Decoder(
        dim=shape.d_model,
        depth=shape.n_layers,
        heads=shape.n_heads,
        attn_dim_head=head_dim,
        rotary_pos_emb=True,
        rotary_emb_dim=head_dim,
        attn_flash=True,
    )
    model = TransformerWrapper(
        num_tokens=shape.vocab_size, max_seq_len=shape.seq_len, use_abs_pos_emb=False, attn_layers=layers
    )
    return model, model


def nanogpt(shape: BenchmarkShape) -> tuple[nn.Module, Model]:
    """The architecture of nanoGPT as it is trained by default, written from its description."""
    model = NanoGPT(shape)
    return model, model


class NanoGPT(nn.Module):
    """GPT-2 without biases: learned positions, LayerNorm with weights alone, GELU, a head tied to the embedding.

    Weights have standard deviation 0.02; those into the residual stream are divided by sqrt(2 * n_layers).
    """

    def __init__(self, shape: BenchmarkShape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab_size, shape.d_model)
        self.positions = nn.Embedding(shape.seq_len, shape.d_model)
        self.blocks = nn.ModuleList(NanoGPTBlock(shape) for _ in range(shape.n_layers))
        self.norm = nn.LayerNorm(shape.d_model, bias=False)
        self.head = nn.Linear(shape.d_model, shape.vocab_size, bias=False)
        self.head.weight = self.embedding.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                into_residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * shape.n_layers) ** 0.5 if into_residual else 0.02)

    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BTW = self.embedding(ids_BT) + self.positions(torch.arange(ids_BT.shape[1], device=ids_BT.device))
        for block in self.blocks:
            x_BTW = block(x_BTW)
        return self.head(self.norm(x_BTW))


class NanoGPTBlock(nn.Module):
    """One block: attention, then the MLP."""

    def __init__(self, shape: BenchmarkShape) -> None:
        super().__init__()
        self.heads, width = shape.n_heads, shape.d_model
        self.norm, self.mlp_norm = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x_BTW: Tensor) -> Tensor:
        parts = self.qkv(self.norm(x_BTW)).split(x_BTW.shape[-1], dim=2)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        out_BHTD = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTW = x_BTW + self.out(out_BHTD.transpose(1, 2).flatten(-2))
        return x_BTW + self.down(F.gelu(self.up(self.mlp_norm(x_BTW))))


def plain(shape: BenchmarkShape) -> tuple[nn.Module, Model]:
    """posbench's model written out for RoPE alone, with SDPA and cached tables."""
    model = Plain(shape)
    return model, model


class Plain(nn.Module):
    """A pre-norm transformer with rotary positions; its parameters correspond to those of posbench's GPT."""

    cos_TM: Tensor
    sin_TM: Tensor

    def __init__(self, shape: BenchmarkShape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab_size, shape.d_model)
        self.blocks = nn.ModuleList(PlainBlock(shape) for _ in range(shape.n_layers))
        self.norm = nn.RMSNorm(shape.d_model, eps=1e-6)
        self.head = nn.Linear(shape.d_model, shape.vocab_size, bias=False)
        dims = shape.d_model // shape.n_heads
        inv_freq_M = 10000.0 ** (-torch.arange(0, dims, 2) / dims)
        angle_TM = torch.outer(torch.arange(shape.seq_len), inv_freq_M)
        self.register_buffer("cos_TM", angle_TM.cos(), persistent=False)
        self.register_buffer("sin_TM", angle_TM.sin(), persistent=False)

    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BTW = self.embedding(ids_BT)
        for block in self.blocks:
            x_BTW = block(x_BTW, self.cos_TM, self.sin_TM)
        return self.head(self.norm(x_BTW))


class PlainBlock(nn.Module):
    """One block: attention, then the MLP."""

    def __init__(self, shape: BenchmarkShape) -> None:
        super().__init__()
        self.heads, width = shape.n_heads, shape.d_model
        self.norm, self.mlp_norm = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x_BTW: Tensor, cos_TM: Tensor, sin_TM: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x_BTW)).unflatten(-1, (3, self.heads, -1)).transpose(1, 3)
        q, k, v = qkv.unbind(2)
        q, k = rotate(q, cos_TM, sin_TM), rotate(k, cos_TM, sin_TM)
        out_BHTD = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTW = x_BTW + self.out(out_BHTD.transpose(1, 2).flatten(-2))
        return x_BTW + self.down(F.gelu(self.up(self.mlp_norm(x_BTW))))


def rotate(x_BHTD: Tensor, cos_TM: Tensor, sin_TM: Tensor) -> Tensor:
    """Rotates the pairs (m, m + D/2) of every vector."""
    first, second = x_BHTD.chunk(2, -1)
    return torch.cat((first * cos_TM - second * sin_TM, second * cos_TM + first * sin_TM), -1)


def version(package: str) -> str:
    """Name and installed version of a package.

    Raises:
        DataError: if it is not installed.
    """
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        raise DataError(
            f"{package} is not installed: run pip install {package}, or choose other groups of lines with --only"
        ) from None
