"""Log-n attention: logits are multiplied by the logarithm of the number of visible keys.

Su, "Transformer's scale operation from the invariance of entropy", 2021: https://kexue.fm/archives/8823.
Chiang, Cholak. Overcoming a Theoretical Limitation of Self-Attention. ACL 2022, section 5.3. arXiv:2202.12172.
n counts the keys up to the query, so that a prefix does not depend on later tokens. With the training length as the
base, the factor is 1 there, as Su's is at 512. The model is trained with it, so it is not clamped below 1.
It encodes no order, so its configuration stacks it on RoPE.
"""

from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.log_n import log_n_scale
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/log_n")
class LogNAttention(PositionScheme):
    """logit(i, j) = log_b(i + 1) * q_i . k_j / sqrt(D), b the training length by default."""

    traits = Traits(relative=True)

    def __init__(self, shape: ModelShape, log_base: int | None = None) -> None:
        super().__init__()
        self.log_base = shape.train_len if log_base is None else log_base
        if self.log_base < 2:
            raise ConfigError(
                f"log_n log_base {self.log_base}: give the number of keys at which logits are not scaled, at least 2 "
                "tokens, or null for the training length"
            )

    def logit_scale(self, inputs: AttentionInputs) -> Tensor:
        return log_n_scale(inputs, self.log_base)
