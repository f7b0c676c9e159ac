"""Log-n attention: logits that grow with the logarithm of the number of keys, which keeps the entropy steady.

Su, 2021: https://kexue.fm/archives/8823. Chiang, Cholak. Overcoming a Theoretical Limitation of
Self-Attention. ACL 2022. arXiv:2202.12172.
At test time only and never below 1, as in https://kexue.fm/archives/9706: a model trained without it is left
alone at the lengths that it knows. Additive terms keep their strength.
"""

from typing import Any

from torch import Tensor

from posbench.position.extension import Context, Extension
from posbench.position.scheme import PositionScheme, Site


class LogN(Extension):
    """q_i . k_j is multiplied by max(1, log_L n), n = i + 1 the keys that query i could see; L is `start`."""

    def __init__(self, inner: PositionScheme, context: Context, start: int | None = None) -> None:
        super().__init__(inner, context)
        self.start = context.tokens("start", start, context.shape.train_len, least=2)

    @staticmethod
    def identity(length: int) -> dict[str, Any]:
        return {"start": length}

    def gain(self, site: Site) -> Tensor | None:
        keys_T = site.geo.q_index_T.double() + 1
        log_start = keys_T.new_tensor(self.start).log()
        return self.times((keys_T.log() / log_start).clamp(min=1), site)
