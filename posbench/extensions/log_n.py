"""Log-n attention: logits that grow with the logarithm of the number of keys, which keeps the entropy steady.

Su, 2021: https://kexue.fm/archives/8823. Chiang, Cholak. Overcoming a Theoretical Limitation of
Self-Attention. ACL 2022. arXiv:2202.12172.
At test time only and never below 1, as in https://kexue.fm/archives/9706: a model trained without it is left
alone at the lengths that it knows. Additive terms keep their strength.
"""

from typing import Any

from torch import Tensor

from posbench.instantiate import register
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.scheme import AttentionInputs, PositionScheme


@register("extension/log_n")
class LogNScaling(Extension):
    """q_i . k_j is multiplied by max(1, log_L n), n = i + 1 the keys that query i could see; L is `log_base`."""

    def __init__(self, inner: PositionScheme, context: ExtensionContext, log_base: int | None = None) -> None:
        super().__init__(inner, context)
        self.log_base = context.tokens("log_base", log_base, context.shape.train_len, least=2)

    @staticmethod
    def noop_settings(length: int) -> dict[str, Any]:
        return {"log_base": length}

    def logit_scale(self, inputs: AttentionInputs) -> Tensor | None:
        keys_T = inputs.geo.q_index_T.double() + 1
        ln_base = keys_T.new_tensor(self.log_base).log()
        return self.scale_inner((keys_T.log() / ln_base).clamp(min=1), inputs)
