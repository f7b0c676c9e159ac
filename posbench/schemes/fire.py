"""FIRE: an MLP of the distance relative to the query's position, both on a logarithmic scale.

Li et al. Functional Interpolation for Relative Positions Improves Long Context Transformers. ICLR 2024.
arXiv:2310.04418. Constants of the paper's listing: 32 hidden units, c = 0.1, and a threshold of a quarter of the
training length (512 of 2048). Each layer has its own function.
The last bias of the listing's MLP is omitted: it adds the same number to every pair, which the softmax cancels.
Queries below the threshold need a function of the distance only, but the threshold is trained and known on the
device only, so the MLP runs on every visible pair.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.biases import AttentionBias, DistanceBias
from posbench.position.geometry import Geometry
from posbench.position.numerics import autocast_disabled, upcast
from posbench.position.pairwise_mlp import PairwiseMLP
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/fire")
class FIRE(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) + f_h(psi(i - j) / psi(max(i, T))), psi(x) = log(|c| x + 1), f an MLP."""

    traits = Traits(relative=False, capabilities=frozenset({"positions"}))
    version = 2  # other sums, equal but for rounding
    decayed_parameters = ("in_LK", "out_LHK")

    def __init__(
        self, shape: ModelShape, mlp_width: int = 32, init_c: float = 0.1, init_threshold: float | None = None
    ) -> None:
        super().__init__()
        threshold = 1.0 if init_threshold is None else init_threshold
        if mlp_width < 1 or not 0 < init_c <= 1e6 or not 0 < threshold <= 1e9:
            raise ConfigError(
                f"fire mlp_width {mlp_width}, init_c {init_c}, init_threshold {init_threshold}: give at least 1 unit, "
                "init_c above 0 and at most 1e6, init_threshold above 0 and at most 1e9, or null for a threshold of a "
                "quarter of the training length"
            )
        self.init_threshold = shape.train_len / 4 if init_threshold is None else init_threshold
        self.c_L, self.times_L = (nn.Parameter(torch.full((shape.n_layers,), x)) for x in (init_c, 1.0))
        self.in_LK, self.bias_LK = (nn.Parameter(2 * torch.rand(shape.n_layers, mlp_width) - 1) for _ in "wb")
        out = (2 * torch.rand(shape.n_layers, shape.n_heads, mlp_width) - 1) * mlp_width**-0.5
        self.out_LHK = nn.Parameter(out)

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return InterpolatedDistanceBias(self, inputs.layer)


@dataclass(frozen=True, eq=False)
class InterpolatedDistanceBias(AttentionBias):
    """An MLP of psi(distance) divided by psi(query position)."""

    scheme: FIRE
    layer: int

    def value(self, geo: Geometry, rows: slice) -> Tensor:
        own, layer = self.scheme, self.layer
        in_K, bias_K, out_HK = (upcast(of[layer]) for of in (own.in_LK, own.bias_LK, own.out_LHK))
        c = own.c_L[layer].double().abs()
        threshold = (own.times_L[layer].double() * own.init_threshold).abs()
        far_R = torch.log1p(c * torch.maximum(geo.q_pos_T[rows].double(), threshold)) + 1e-6
        near = DistanceBias(lambda n: torch.log1p(c * n)[None].to(in_K.dtype))
        ratio_1RS = near.value(geo, rows) / far_R.to(in_K.dtype)[:, None]
        keys_before_first_row = (geo.index_offset or 0) + (rows.start or 0) if geo.ordered else None
        with autocast_disabled(ratio_1RS):
            layers = in_K[:, None, None], bias_K, out_HK[..., None]
            return PairwiseMLP.apply(ratio_1RS[None], None, *layers, 0.0, None, keys_before_first_row)[0]
