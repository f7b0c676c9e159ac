"""Log-n attention, trained with it: logits that grow with the logarithm of the number of keys.

Su, "Transformer's scale operation from the invariance of entropy", 2021: https://kexue.fm/archives/8823.
Chiang, Cholak. Overcoming a Theoretical Limitation of Self-Attention. ACL 2022, section 5.3. arXiv:2202.12172.
Causal: n counts the keys that a query could see, so that a prefix does not feel what follows; with a base of
the training length the gain is 1 there, as Su's is at 512. Not clamped below: the model is trained with it.
It knows nothing of order: configured around a rotation.
"""

import math

from torch import Tensor

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/log_n")
class LogNAttention(PositionScheme):
    """logit(i, j) = log_b(i + 1) * q_i . k_j / sqrt(D), with b the training length unless given."""

    traits = Traits(relative=True)

    def __init__(self, shape: ModelShape, log_base: int | None = None) -> None:
        super().__init__()
        self.log_base = shape.train_len if log_base is None else log_base
        if self.log_base < 2:
            raise ConfigError(
                f"log_n log_base {self.log_base}: give the number of keys at which nothing is scaled, at least 2 tokens, "
                "or null for the training length"
            )

    def logit_scale(self, inputs: AttentionInputs) -> Tensor:
        return (inputs.geo.q_index_T.double() + 1).log() / math.log(self.log_base)
