"""A pre-norm GPT that knows nothing of positions: all of them are its scheme's.

RMSNorm, four-fold GELU, untied head. Token embeddings start at standard deviation 1, or the identity of a
token drowns in what a small model adds to it; queries, keys and values have biases drawn at 0.5, so that
attention by position alone is there from the first step.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.attend import Kernel, attend
from posbench.build import build
from posbench.errors import ConfigError
from posbench.geometry import Geometry
from posbench.kernels import Recording
from posbench.scheme import PositionScheme, Shape, Site


@dataclass(frozen=True)
class Size:
    """Counts of a model: blocks, residual width, heads (which divide the width), MLP width as a multiple."""

    layers: int
    width: int
    heads: int
    mlp: int = 4

    def shape(self, train_len: int) -> Shape:
        """The part of it that schemes may know."""
        if self.heads < 1 or self.width % self.heads:
            raise ConfigError(
                f"{self.heads} heads do not divide the width {self.width}: choose heads among the divisors of the width"
            )
        return Shape(self.layers, self.heads, self.width // self.heads, self.width, train_len)


@dataclass(eq=False)
class Cache:
    """Keys, values and normalised inputs of a context, by layer, before the scheme has touched them.

    Schemes see explicit positions, so a suffix is scored by turning the cached keys again: one code path,
    whatever the scheme does with them.
    """

    layers: list[tuple[Tensor, Tensor, Tensor]]

    @property
    def length(self) -> int:
        """Tokens held."""
        return self.layers[0][0].shape[1]


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, size: Size, layer: int) -> None:
        super().__init__()
        self.layer, self.heads = layer, size.heads
        self.attention_norm = nn.RMSNorm(size.width, eps=1e-6)
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.out = nn.Linear(size.width, size.width, bias=False)
        self.mlp_norm = nn.RMSNorm(size.width, eps=1e-6)
        self.up = nn.Linear(size.width, size.mlp * size.width, bias=False)
        self.down = nn.Linear(size.mlp * size.width, size.width, bias=False)

    def forward(
        self,
        x_BTW: Tensor,
        scheme: PositionScheme,
        geo: Geometry,
        kernel: Kernel,
        cached: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        h_BTW = self.attention_norm(x_BTW)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(h_BTW).chunk(3, -1)
        )
        h_BSW = h_BTW
        if cached is not None:
            h_BSW = torch.cat((cached[0].expand(len(h_BTW), -1, -1), h_BTW), 1)
            k = torch.cat((cached[1].expand(len(k), -1, -1, -1), k), 2)
            v = torch.cat((cached[2].expand(len(v), -1, -1, -1), v), 2)
        site = Site(self.layer, geo, h_BTW, h_BSW, q, k)
        out_BHTD = scheme.attention(site, v, kernel)
        if out_BHTD is None:
            out_BHTD = attend(scheme, site, v, kernel)
        x_BTW = x_BTW + self.out(out_BHTD.transpose(1, 2).flatten(-2))
        x_BTW = x_BTW + self.down(F.gelu(self.up(self.mlp_norm(x_BTW))))
        return x_BTW, (h_BSW, k, v)


class GPT(nn.Module):
    """Token ids in, final hidden states out; `head` turns those into logits, as many at a time as fit."""

    def __init__(self, size: Size, vocabulary: int, scheme: PositionScheme, seed: int) -> None:
        super().__init__()
        self.size = size
        self.embedding = nn.Embedding(vocabulary, size.width)
        self.blocks = nn.ModuleList(Block(size, layer) for layer in range(size.layers))
        self.final_norm = nn.RMSNorm(size.width, eps=1e-6)
        self.head = nn.Linear(size.width, vocabulary, bias=False)
        initialise(self, size, seed)
        self.scheme = scheme
        self._geometries: dict[tuple[int, int, int, torch.device], Geometry] = {}

    def forward(
        self,
        ids_BT: Tensor,
        *,
        scheme: PositionScheme | None = None,
        kernel: Kernel | None = None,
        cache: Cache | None = None,
        length: int | None = None,
        keep: bool = False,
    ) -> tuple[Tensor, Cache | None]:
        """(B, T, W) after the final norm, and a cache of everything read so far if `keep`.

        Args:
            ids_BT: token ids; with a cache of C tokens they continue it at index C.
            scheme: used in place of the model's own, such as an extension around it.
            kernel: defaults to the best that can run.
            length: declared length of the whole sequence, in tokens.
        """
        scheme = scheme or self.scheme
        kernel = kernel or Recording("auto")
        start = cache.length if cache is not None else 0
        stop = start + ids_BT.shape[1]
        scheme.check(max(length or 0, stop))
        geo = scheme.place(self.geometry(start, stop, length or stop, ids_BT.device))
        x_BTW = self.embedding(ids_BT)
        layers = []
        for layer, block in enumerate(self.blocks):
            x_BTW = scheme.embed(x_BTW, geo, layer)
            x_BTW, kept = block(
                x_BTW, scheme, geo, kernel, cache.layers[layer] if cache is not None else None
            )
            if keep:
                layers.append(kept)
        return self.final_norm(x_BTW), Cache(layers) if keep else None

    def geometry(self, start: int, stop: int, length: int, device: torch.device) -> Geometry:
        """The same object for the same span, so that what schemes keep on it is computed once."""
        key = (start, stop, length, device)
        if key not in self._geometries:
            while len(self._geometries) >= 8:
                del self._geometries[next(iter(self._geometries))]
            self._geometries[key] = Geometry.span(start, stop, length, device)
        return self._geometries[key]

    def matrices(self) -> list[tuple[nn.Parameter, int]]:
        """The blocks' weight matrices, each with the number of square maps stacked in its rows."""
        return [
            (parameter, 3 if name.endswith("qkv.weight") else 1)
            for name, parameter in self.blocks.named_parameters()
            if parameter.dim() == 2
        ]

    def parameter_count(self) -> int:
        """All trained numbers, the scheme's and the embeddings among them."""
        return sum(parameter.numel() for parameter in self.parameters())


def initialise(model: GPT, size: Size, seed: int) -> None:
    """Draw every parameter from a generator of its own name, so that nothing shifts when another changes."""
    for name, parameter in model.named_parameters():
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        with torch.no_grad():
            if "norm" in name:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, _deviation(name, size), generator=generator)


def _deviation(name: str, size: Size) -> float:
    if name.startswith("embedding"):
        return 1.0
    if name.endswith("qkv.bias"):
        return 0.5
    if name.startswith("head"):
        return 0.02
    fan_in = size.width * (size.mlp if name.endswith("down.weight") else 1)
    into_residual = name.endswith(("out.weight", "down.weight"))
    return fan_in**-0.5 * ((2 * size.layers) ** -0.5 if into_residual else 1.0)


def build_scheme(settings: dict, shape: Shape, seed: int) -> PositionScheme:
    """The scheme from its settings, under a seed of its own: its draws move nobody else's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(settings, shape)
