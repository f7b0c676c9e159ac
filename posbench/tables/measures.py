"""Measures: what perplexity, bits per byte and accuracy are made of."""

import math
from dataclasses import dataclass

import numpy as np

from posbench.errors import unknown


@dataclass(frozen=True)
class Measure:
    """scale * sum(values of `metric`) / sum(n, or values of the metric `per`), shown as its exp if asked."""

    name: str
    task: str
    metric: str
    label: str
    lower_is_better: bool
    per: str = ""
    scale: float = 1.0
    exponential: bool = False
    share: bool = False  # between 0 and 1

    def shown(self, ratio: float) -> float:
        """Means and intervals are made in nats: over seeds, perplexity is a geometric mean."""
        if self.share:
            return float(np.clip(ratio, 0.0, 1.0))  # what an interval covers beyond is impossible
        return math.exp(min(ratio, 700.0)) if self.exponential else ratio


BASELINES = ("chance", "context_guess")
_ALL = [
    Measure("bits_per_byte", "perplexity", "nll", "bits per byte", True, "bytes", scale=1 / math.log(2)),
    Measure("perplexity", "perplexity", "nll", "perplexity per token", True, exponential=True),
    Measure("exact_match", "key_value", "exact_match", "retrieval accuracy", False, share=True),
    Measure("logprob", "key_value", "logprob", "log-probability of the value (nats)", False),
    Measure("in_context", "key_value", "in_context", "share of answers from the context", False, share=True),
    Measure("chance", "key_value", "chance", "chance", False, share=True),
    Measure("context_guess", "key_value", "context_guess", "some value of the context", False, share=True),
]
MEASURES = {each.name: each for each in _ALL}


def measure_named(name: str) -> Measure:
    if name not in MEASURES:
        raise unknown("measure", name, MEASURES)
    return MEASURES[name]
