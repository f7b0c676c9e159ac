"""Logarithm of the number of visible keys: the logit scale of log-n attention."""

from torch import Tensor

from posbench.position.geometry import Geometry


def log_n(geo: Geometry, log_base: int) -> Tensor:
    """(T,) float64: log_b(n) for each query, n = i + 1 the keys up to its own and b = `log_base`.

    Su. From the Invariance of Entropy to the Scale of Attention. 2021 (in Chinese). https://kexue.fm/archives/8823.
    """
    n_T = geo.q_index_T.double() + 1
    # Both logarithms by torch, on one device: the ratio is exactly 1 at n = b.
    return n_T.log() / n_T.new_full((), log_base).log()
