"""The logarithm of the number of visible keys, as a factor on logits.

Su, 2021: https://kexue.fm/archives/8823.
"""

from torch import Tensor

from posbench.position.scheme import AttentionInputs


def log_n_scale(inputs: AttentionInputs, log_base: int) -> Tensor:
    """Returns log_b(i + 1) for each query i, (T,) float64; i + 1 is the number of keys that a causal query attends to.

    Exactly 1 where i + 1 equals `log_base`.
    """
    geo = inputs.geo

    def compute() -> Tensor:
        n_keys_T = geo.q_index_T.double() + 1
        return n_keys_T.log() / n_keys_T.new_tensor(log_base).log()

    return geo.memo(("log n", log_base), compute)
