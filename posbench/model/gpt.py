"""A GPT whose position information comes from its scheme and the causal mask alone.

Models trained here have RMSNorm, a GELU MLP of `Size.mlp_ratio` times d_model, and an untied head; `Architecture` has
the switches of pretrained families. Token embeddings start at standard deviation 1: with a smaller one the identity of a token is
lost in the outputs of the first blocks of a small model. Biases of queries, keys and values start at standard deviation
0.5, so that attention by position alone is possible from the first step.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.instantiate import instantiate
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.model.architecture import Architecture, Size
from posbench.model.attention import Attention, LayerCache
from posbench.model.mixture_of_experts import MixtureOfExperts
from posbench.model.norm import build_norm
from posbench.position.call import Kernel
from posbench.position.geometry import Geometry
from posbench.position.scheme import ModelShape, PositionScheme


@dataclass(eq=False)
class KVCache:
    """The caches of all layers."""

    layers: list[LayerCache]

    @property
    def length(self) -> int:
        """Number of tokens."""
        return self.layers[0].length


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "relu": F.relu,
}


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); pretrained families have norms elsewhere."""

    def __init__(self, config: Architecture, layer: int) -> None:
        super().__init__()
        self.parallel_residual, self.activation = config.parallel_residual, ACTIVATIONS[config.activation]
        self.attention_norm = build_norm(config, config.d_model, config.pre_norm)
        self.attention = Attention(config, layer)
        self.attention_post_norm = build_norm(config, config.d_model, config.post_norm)
        self.mlp_norm = build_norm(config, config.d_model, config.pre_norm)
        self.mlp_post_norm = build_norm(config, config.d_model, config.post_norm)
        self.experts = MixtureOfExperts(config) if config.n_experts else None
        if self.experts is not None:
            return
        wide = config.d_model, config.intermediate_size
        self.gate = nn.Linear(*wide, bias=config.mlp_bias) if config.gated_mlp else None
        self.up = nn.Linear(*wide, bias=config.mlp_bias)
        self.down = nn.Linear(*wide[::-1], bias=config.mlp_bias)

    def forward(
        self,
        x_BTW: Tensor,
        scheme: PositionScheme,
        geo: Geometry,
        kernel: Kernel,
        cache: LayerCache | None = None,
        use_cache: bool = False,
    ) -> tuple[Tensor, LayerCache | None]:
        out_BTW, cache = self.attention(self.attention_norm(x_BTW), scheme, geo, kernel, cache, use_cache)
        attended_BTW = add_residual(self.attention_post_norm(out_BTW), x_BTW)
        h_BTW = self.mlp_norm(x_BTW if self.parallel_residual else attended_BTW)
        return add_residual(self.mlp_post_norm(self.mlp(h_BTW)), attended_BTW), cache

    def mlp(self, h_BTW: Tensor) -> Tensor:
        """Computes the MLP, or the mixture of experts in its place."""
        if self.experts is not None:
            return self.experts(h_BTW)
        up = self.up(h_BTW)
        return self.down(self.activation(up) if self.gate is None else self.activation(self.gate(h_BTW)) * up)


def add_residual(out_BTW: Tensor, x_BTW: Tensor) -> Tensor:
    """Adds the residual stream, in place where the dtypes are equal, since no backward pass reads `out_BTW`.

    Under autocast an output may be in bfloat16, and the residual stream stays in float32.
    """
    return out_BTW.add_(x_BTW) if out_BTW.dtype == x_BTW.dtype else x_BTW + out_BTW


class SoftcappedLinear(nn.Linear):
    """c tanh(logit / c) of the logits, without a bias."""

    def __init__(self, d_model: int, vocab_size: int, cap: float) -> None:
        super().__init__(d_model, vocab_size, bias=False)
        self.cap = cap

    def forward(self, hidden_BTW: Tensor) -> Tensor:
        return self.cap * (super().forward(hidden_BTW) / self.cap).tanh()


class GPT(nn.Module):
    """Token ids to final hidden states; `head` maps these to logits, which callers compute in chunks.

    Args:
        size: dimensions of a model that is trained here, or the architecture of a pretrained one.
        vocab_size: number of ids.
        scheme: the position scheme of all layers.
        seed: of the initial weights; with None, a state dict must fill them.
    """

    def __init__(
        self, size: Size | Architecture, vocab_size: int, scheme: PositionScheme, seed: int | None
    ) -> None:
        super().__init__()
        self.architecture = config = size.architecture if isinstance(size, Size) else size
        self.embedding = nn.Embedding(vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.final_norm = build_norm(config, config.d_model)
        self.head = (
            SoftcappedLinear(config.d_model, vocab_size, config.logit_softcap)
            if config.logit_softcap
            else nn.Linear(config.d_model, vocab_size, bias=False)
        )
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        if seed is not None:
            initialise(self, config, seed)
        self.scheme = scheme
        self._geometries: dict[tuple[int, int, int, torch.device], Geometry] = {}

    def forward(
        self,
        ids_BT: Tensor,
        *,
        kernel: Kernel | None = None,
        cache: KVCache | None = None,
        length: int | None = None,
        use_cache: bool = False,
    ) -> tuple[Tensor, KVCache | None]:
        """Returns hidden states (B, T, W) after the final norm and, if `use_cache`, the cache of all tokens read so far.

        Args:
            ids_BT: token ids; with a cache of C tokens they continue it at index C.
            kernel: computes attention; by default `KernelDispatcher("auto")`.
            length: declared length of the whole sequence in tokens; by default the number of tokens read.

        Raises:
            LengthError, UndefinedError: if the scheme is not defined at this length.
        """
        kernel = kernel or KernelDispatcher("auto")
        start = cache.length if cache is not None else 0
        stop = start + ids_BT.shape[1]
        self.scheme.check(max(length or 0, stop))
        geo = self.scheme.assign_positions(self.geometry(start, stop, length or stop, ids_BT.device))
        x_BTW = self.embedding(ids_BT)
        if self.architecture.embedding_scale != 1:
            x_BTW = x_BTW * x_BTW.new_tensor(self.architecture.embedding_scale)
        layers = []
        for layer, block in enumerate(self.blocks):
            x_BTW = self.scheme.embed(x_BTW, geo, layer)
            cached = cache.layers[layer] if cache is not None else None
            x_BTW, kept = block(x_BTW, self.scheme, geo, kernel, cached, use_cache)
            if kept is not None:
                layers.append(kept)
        return self.final_norm(x_BTW), KVCache(layers) if use_cache else None

    def with_scheme(self, scheme: PositionScheme) -> GPT:
        """Returns a view of this model under another scheme, such as an extension around its own.

        The view shares all modules and parameters. In its state dict the parameters of an extended scheme are named
        `scheme.inner...`; checkpoints are written from the model itself.
        """
        view = copy.copy(self)
        view._modules = {**self._modules, "scheme": scheme}
        return view

    def geometry(self, start: int, stop: int, length: int, device: torch.device) -> Geometry:
        """Returns the geometry of queries start .. stop-1; the same object each time, since schemes cache tables on it."""
        key = (start, stop, length, device)
        if key not in self._geometries:
            while len(self._geometries) >= 8:
                del self._geometries[next(iter(self._geometries))]
            self._geometries[key] = Geometry.from_range(start, stop, length, device)
        return self._geometries[key]

    def matrix_parameters(self) -> list[tuple[nn.Parameter, int]]:
        """Returns the weight matrices of the blocks, each with the number of matrices stacked in its rows."""
        return [
            (parameter, 3 if name.endswith("qkv.weight") else 1)
            for name, parameter in self.blocks.named_parameters()
            if parameter.dim() == 2
        ]

    def parameter_count(self) -> int:
        """Returns the number of parameters, including embeddings and the scheme's."""
        return sum(parameter.numel() for parameter in self.parameters())


def initialise(model: GPT, config: Architecture, seed: int) -> None:
    """Draws every parameter from a generator seeded with its name, independently of all other parameters."""
    for name, parameter in model.named_parameters():
        # Seeds use the names from before attention became a module, so that initial weights stay what they were.
        digest = hashlib.sha256(f"{seed}:{name.replace('.attention.', '.')}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        with torch.no_grad():
            if "norm" in name:
                parameter.fill_(float(name.endswith("weight")))
            else:
                parameter.normal_(0.0, _standard_deviation(name, config), generator=generator)


def _standard_deviation(name: str, config: Architecture) -> float:
    if name.startswith("embedding"):
        return 1.0
    if name.endswith("qkv.bias"):
        return 0.5
    if name.startswith("head"):
        return 0.02
    fan_in = config.intermediate_size if name.endswith("down.weight") else config.d_model
    into_residual = name.endswith(("out.weight", "down.weight"))
    return fan_in**-0.5 * ((2 * config.n_layers) ** -0.5 if into_residual else 1.0)


def build_scheme(settings: dict, shape: ModelShape, seed: int) -> PositionScheme:
    """Builds a scheme from its settings under its own seed, without advancing the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return instantiate(settings, PositionScheme, shape)
