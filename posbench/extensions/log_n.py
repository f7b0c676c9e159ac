"""Log-n scaling: logits grow with the logarithm of the number of keys.

Su. From the Invariance of Entropy to the Scale of Attention. 2021 (in Chinese). https://kexue.fm/archives/8823.
Chiang, Cholak. Overcoming a Theoretical Limitation of Self-Attention. ACL 2022, section 5.3. arXiv:2202.12172.
The scale keeps the entropy of attention steady as keys are added.
Deviations: in evaluation only and never below 1, as in https://kexue.fm/archives/9706, so that a model trained
without it is unchanged at the lengths of its training. Additive terms are not scaled.
"""

from typing import Any

from torch import Tensor

from posbench.instantiate import register
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.log_n import log_n_scale
from posbench.position.scheme import AttentionInputs, PositionScheme


@register("extension/log_n")
class LogNScaling(Extension):
    """q_i . k_j is multiplied by max(1, log_b(n)), n = i + 1 the tokens up to query i; b is `log_base`."""

    def __init__(self, inner: PositionScheme, context: ExtensionContext, log_base: int | None = None) -> None:
        super().__init__(inner, context)
        self.log_base = context.tokens("log_base", log_base, context.shape.train_len, least=2)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"log_base": length}

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        return self.scale_inner(log_n_scale(inputs, self.log_base).clamp(min=1), inputs)
