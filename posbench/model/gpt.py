"""A pre-norm GPT that knows nothing of positions: all of them are its scheme's.

Ours have RMSNorm, four-fold GELU and an untied head; an `Architecture` names what pretrained families have
otherwise (posbench/model/architecture.py). Token embeddings start at standard deviation 1, or the identity of a
token drowns in what a small model adds to it; queries, keys and values have biases drawn at 0.5, so that
attention by position alone is there from the first step.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.instantiate import instantiate
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.model.architecture import Architecture, Size
from posbench.model.attention import Attention, LayerCache
from posbench.position.call import Kernel
from posbench.position.geometry import Geometry
from posbench.position.scheme import ModelShape, PositionScheme


@dataclass(eq=False)
class KVCache:
    """Caches of all layers for the tokens read so far."""

    layers: list[LayerCache]

    @property
    def length(self) -> int:
        """Number of tokens."""
        return self.layers[0].length


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Architecture, layer: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.attention = Attention(config, layer)
        self.mlp_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
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
        x_BTW = x_BTW + out_BTW
        h_BTW = self.mlp_norm(x_BTW)
        up = self.up(h_BTW)
        x_BTW = x_BTW + self.down(F.gelu(up) if self.gate is None else F.silu(self.gate(h_BTW)) * up)
        return x_BTW, cache


class GPT(nn.Module):
    """Token ids in, final hidden states out; `head` turns those into logits, as many at a time as fit."""

    def __init__(
        self, size: Size | Architecture, vocab_size: int, scheme: PositionScheme, seed: int | None
    ) -> None:
        """Without a seed no weights are drawn: they will be loaded."""
        super().__init__()
        self.architecture = own = size.architecture if isinstance(size, Size) else size
        self.embedding = nn.Embedding(vocab_size, own.d_model)
        self.blocks = nn.ModuleList(Block(own, layer) for layer in range(own.n_layers))
        self.final_norm = nn.RMSNorm(own.d_model, eps=own.norm_eps)
        self.head = nn.Linear(own.d_model, vocab_size, bias=False)
        if own.tie_embeddings:
            self.head.weight = self.embedding.weight
        if seed is not None:
            initialise(self, own, seed)
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
        """(B, T, W) after the final norm, and a cache of everything read so far if `use_cache`.

        Args:
            ids_BT: token ids; with a cache of C tokens they continue it at index C.
            kernel: defaults to the best that can run.
            length: declared length of the whole sequence, in tokens.
        """
        kernel = kernel or KernelDispatcher("auto")
        start = cache.length if cache is not None else 0
        stop = start + ids_BT.shape[1]
        self.scheme.check(max(length or 0, stop))
        geo = self.scheme.assign_positions(self.geometry(start, stop, length or stop, ids_BT.device))
        x_BTW = self.embedding(ids_BT)
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

        The view has the same modules and parameters; under an extension, the scheme's stand below `scheme.inner`.
        """
        view = copy.copy(self)
        view._modules = {**self._modules, "scheme": scheme}
        return view

    def geometry(self, start: int, stop: int, length: int, device: torch.device) -> Geometry:
        """The same object for the same span, so that what schemes keep on it is computed once."""
        key = (start, stop, length, device)
        if key not in self._geometries:
            while len(self._geometries) >= 8:
                del self._geometries[next(iter(self._geometries))]
            self._geometries[key] = Geometry.from_range(start, stop, length, device)
        return self._geometries[key]

    def matrix_parameters(self) -> list[tuple[nn.Parameter, int]]:
        """The blocks' weight matrices, each with the number of square maps stacked in its rows."""
        return [
            (parameter, 3 if name.endswith("qkv.weight") else 1)
            for name, parameter in self.blocks.named_parameters()
            if parameter.dim() == 2
        ]

    def parameter_count(self) -> int:
        """All trained numbers, the scheme's and the embeddings among them."""
        return sum(parameter.numel() for parameter in self.parameters())


def initialise(model: GPT, own: Architecture, seed: int) -> None:
    """Draws every parameter from a generator seeded by its own name, so that no other parameter moves it."""
    for name, parameter in model.named_parameters():
        # The seeds are of the names that parameters had before attention was a module of its own.
        digest = hashlib.sha256(f"{seed}:{name.replace('.attention.', '.')}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        with torch.no_grad():
            if "norm" in name:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, _deviation(name, own), generator=generator)


def _deviation(name: str, own: Architecture) -> float:
    if name.startswith("embedding"):
        return 1.0
    if name.endswith("qkv.bias"):
        return 0.5
    if name.startswith("head"):
        return 0.02
    fan_in = own.intermediate_size if name.endswith("down.weight") else own.d_model
    into_residual = name.endswith(("out.weight", "down.weight"))
    return fan_in**-0.5 * ((2 * own.n_layers) ** -0.5 if into_residual else 1.0)


def build_scheme(settings: dict, shape: ModelShape, seed: int) -> PositionScheme:
    """The scheme from its settings, under a seed of its own: its draws move nobody else's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return instantiate(settings, shape)
