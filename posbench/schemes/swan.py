"""SWAN: layers with RoPE within a window, and every few layers a global one without positions.

Puvvada et al. SWAN-GPT: An Efficient and Scalable Approach for Long-Context Language Modeling. EMNLP 2025,
sections 2 and 2.2, appendices A and D. arXiv:2504.08719. Without scaling it is the RNoPE-SWA of arXiv:2501.18795.
Deviation: the paper scales the logits at inference by log_a(a + n) at position n, with a fitted to each model on long
texts and not printed; max(1, log_L(n + 1)) grows in the same way, needs no fit, and is 1 up to the training length L.
The global layer is the last of each n, as in the paper's ablation `local_start`; its own choice is the first. The
window is half of L, as in its ablations (512 of 1024; its larger models have 512 of 8192). A model of fewer than
`no_rope_layer_interval` layers has one global layer, its last.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from posbench.instantiate import register
from posbench.position.geometry import Mask
from posbench.position.hybrid import LayerHybrid
from posbench.position.local_attention import sliding_window, tokens_within_train_len
from posbench.position.log_n import log_n_scale
from posbench.position.scheme import AttentionInputs, ModelShape


@register("scheme/swan")
class SWAN(LayerHybrid):
    """Every n-th layer: max(1, log_L(i + 1)) q_i . k_j / sqrt(D); the others: `base_scheme` where i - j < window.

    n is `no_rope_layer_interval`.
    """

    def __init__(
        self,
        shape: ModelShape,
        base_scheme: Mapping[str, Any],
        no_rope_layer_interval: int = 4,
        window: int | None = None,
    ) -> None:
        super().__init__(shape, base_scheme, no_rope_layer_interval)
        default = max(1, shape.train_len // 2)
        self.window = tokens_within_train_len(shape, "swan window", window, default, "half of it")
        self.log_base = max(2, shape.train_len)

    def local_mask(self, inputs: AttentionInputs) -> Mask | None:
        return sliding_window(self.window, inputs)

    def global_logit_scale(self, inputs: AttentionInputs) -> Tensor:
        return log_n_scale(inputs, self.log_base).clamp(min=1)
