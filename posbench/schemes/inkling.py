"""Inkling: a bias for each near distance, mixed from trained profiles by the query's token.

Thinking Machines Lab. Inkling. 2026. As in transformers (models/inkling):
https://huggingface.co/docs/transformers/model_doc/inkling. Each token and head has d_rel numbers, which weight as many
profiles over the distance, shared by the heads of a layer; distances from `rel_extent` on have no bias. The windows
(with profiles as long as they are), short convolutions, norms, the scale 1/D and the optional growth of global logits
with the logarithm of the position are not part of it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.biases import AttentionBias, QueryContentBias, floor_distance
from posbench.position.local_attention import tokens_within_train_len
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/inkling")
class Inkling(PositionScheme):
    """logit(h, i, j) = q_i . k_j / sqrt(D) + (A_h x_i) . p_(i-j), p_n = 0 for n >= `rel_extent`."""

    traits = Traits(relative=True, reads_hidden_states=True, capabilities=frozenset({"positions"}))

    decayed_parameters = ("weight_LRW", "profile_LRN")

    def __init__(self, shape: ModelShape, d_rel: int = 16, rel_extent: int | None = None) -> None:
        super().__init__()
        if d_rel < 1:
            raise ConfigError(f"inkling d_rel {d_rel}: give at least 1 profile (16 in the released model)")
        self.rel_extent = tokens_within_train_len(
            shape, "inkling rel_extent", rel_extent, shape.train_len, "all of it"
        )
        self.n_heads = shape.n_heads
        self.weight_LRW = nn.Parameter(
            0.02 * torch.randn(shape.n_layers, shape.n_heads * d_rel, shape.d_model)
        )
        self.profile_LRN = nn.Parameter(0.02 * torch.randn(shape.n_layers, d_rel, self.rel_extent))

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        assert inputs.x_BTW is not None
        mix_BTHR = F.linear(inputs.x_BTW, self.weight_LRW[inputs.layer]).unflatten(-1, (self.n_heads, -1))
        profile_RK = F.pad(self.profile_LRN[inputs.layer], (0, 1))  # the last class is all farther distances
        return QueryContentBias(mix_BTHR.transpose(1, 2) @ profile_RK, self.index)

    def index(self, distance: Tensor) -> Tensor:
        """Returns the profile's entry of each distance."""
        return floor_distance(distance).clamp(max=self.rel_extent)
