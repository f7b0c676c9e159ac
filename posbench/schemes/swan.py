"""SWAN: layers that turn within a window, and every few layers one that sees everything and does not turn.

Puvvada et al. SWAN-GPT: An Efficient and Scalable Approach for Long-Context Language Modeling. EMNLP 2025,
sections 2 and 2.2, appendices A and D. arXiv:2504.08719. Without the scaling it is the RNoPE-SWA of
arXiv:2501.18795. The paper's gain, in inference, at position n is log_a(a + n), with a fitted to each model on
long texts and not printed; max(1, log_L(n + 1)) grows as it does, needs no fit, and is 1 where it was trained.
The layer that sees everything is the last of each n, as in the paper's ablation `local_start`; its own choice is
the first. The window is half of L, as in its ablations (512 of 1024; its larger models have 512 of 8192). A model
of fewer than `no_rope_layer_interval` layers has its last one see everything.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from posbench.instantiate import register
from posbench.position.compose import Layered, every_nth, sliding_window, tokens_within_train_len
from posbench.position.geometry import Mask
from posbench.position.masks import and_masks
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme


@register("scheme/swan")
class SWAN(Layered):
    """Each n-th layer of `no_rope_layer_interval` n: max(1, log_L(i + 1)) q_i . k_j / sqrt(D); others: another scheme, i - j < window."""

    def __init__(
        self,
        shape: ModelShape,
        base_scheme: Mapping[str, Any],
        no_rope_layer_interval: int = 4,
        window: int | None = None,
    ) -> None:
        super().__init__(
            shape, [base_scheme, PositionScheme()], every_nth(shape.n_layers, no_rope_layer_interval)
        )
        self.train_len = shape.train_len
        self.window = tokens_within_train_len(shape, "swan window", window, max(1, shape.train_len // 2))

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        own = None if self.is_global(inputs) else sliding_window(self.window, inputs)
        return and_masks(super().mask(inputs), own)

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        if not self.is_global(inputs):
            return super().logit_scale(inputs)
        keys_T = inputs.geo.q_index_T.double() + 1
        return (keys_T.log() / keys_T.new_tensor(max(2, self.train_len)).log()).clamp(min=1)

    def is_global(self, inputs: AttentionInputs) -> bool:
        """Whether the layer sees everything."""
        return self.layers[inputs.layer] == 1
