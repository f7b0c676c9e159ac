"""Measures: what perplexity, bits per byte, accuracies and ranks are made of."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from posbench.errors import unknown


@dataclass(frozen=True)
class Measure:
    """scale * sum(values of `metric`) / sum(n, or values of the metric `per`), shown as its exp if asked.

    `tasks` are those whose rows it is made of, the first where none is named. `lower_is_better` is None where
    neither is. `guesses` are the metrics of what could be had without an answer, to be shown beside it.
    """

    name: str
    tasks: tuple[str, ...]
    metric: str
    label: str
    lower_is_better: bool | None
    per: str = ""
    scale: float = 1.0
    exponential: bool = False
    share: bool = False  # between 0 and 1
    guesses: tuple[str, ...] = ()

    def shown(self, ratio: float) -> float:
        """Means and intervals are made in nats: over seeds, perplexity is a geometric mean."""
        if self.share:
            return float(np.clip(ratio, 0.0, 1.0))  # what an interval covers beyond is impossible
        return math.exp(min(ratio, 700.0)) if self.exponential else ratio


BASELINES = ("chance", "context_guess")
_TEXT = ("perplexity", "long_perplexity")
_RETRIEVAL = ("key_value", "passkey", "multi_document")
_ANSWERS = (*_RETRIEVAL, "algorithmic")
_ALL = [
    Measure("bits_per_byte", _TEXT, "nll", "bits per byte", True, "bytes", scale=1 / math.log(2)),
    Measure("perplexity", (*_TEXT, "repetition"), "nll", "perplexity per token", True, exponential=True),
    Measure(
        "exact_match", _RETRIEVAL, "exact_match", "retrieval accuracy", False, share=True, guesses=BASELINES
    ),
    Measure(
        "exact_match",
        ("algorithmic",),
        "exact_match",
        "accuracy, whole answers",
        False,
        share=True,
        guesses=("chance",),
    ),
    Measure(
        "substring_match",
        _RETRIEVAL,
        "substring_match",
        "accuracy, the answer contained",
        False,
        share=True,
        guesses=BASELINES,
    ),
    Measure("symbol_accuracy", ("algorithmic",), "symbol_accuracy", "accuracy by symbol", False, share=True),
    Measure("token_accuracy", ("algorithmic",), "token_accuracy", "accuracy by token", False, share=True),
    Measure("hit", ("repetition",), "hit", "accuracy by token", False, share=True, guesses=("chance",)),
    Measure(
        "key_perplexity", ("long_perplexity",), "key_nll", "LongPPL, of key tokens", True, exponential=True
    ),
    Measure("key_share", ("long_perplexity",), "key", "share of key tokens", False, share=True),
    Measure(
        "adjacent",
        ("adjacent",),
        "adjacent",
        "neighbours told apart",
        False,
        share=True,
        guesses=("chance",),
    ),
    Measure("logprob", _ANSWERS, "logprob", "log-probability of the answer (nats)", False),
    Measure("rank", _ANSWERS, "rank", "mean rank of the answer", True),
    Measure("reciprocal_rank", _ANSWERS, "reciprocal_rank", "mean reciprocal rank", False, share=True),
    Measure("in_context", _RETRIEVAL, "in_context", "share of answers from the context", False, share=True),
    Measure("chance", _ANSWERS, "chance", "chance", False, share=True),
    Measure("context_guess", _RETRIEVAL, "context_guess", "some value of the context", False, share=True),
    Measure("entropy", ("attention",), "entropy", "entropy of attention (nats)", None),
    Measure(
        "first_tokens", ("attention",), "first_tokens", "attention to the first tokens", None, share=True
    ),
    Measure(
        "last_quarter", ("attention",), "last_quarter", "attention to the last quarter", None, share=True
    ),
    Measure("gold", ("attention",), "gold", "attention to the answer", None, share=True),
]
MEASURES = {each.name: each for each in reversed(_ALL)}  # of a name that several tasks have, the first


def measure_named(name: str, task: str | None = None) -> Measure:
    """The measure of a task, or of the first that has it; a task that is not known has any of them."""
    if name not in MEASURES:
        raise unknown("measure", name, [each.name for each in _ALL])
    if task is None:
        return MEASURES[name]
    found = [each for each in _ALL if each.name == name and task in each.tasks]
    return found[0] if found else replace(MEASURES[name], tasks=(task,), label=name.replace("_", " "))


def measures_of(task: str, metrics: Collection[str]) -> list[Measure]:
    """What a table can be made of, given a task and the metrics of its rows; guesses stand beside others."""
    names = dict.fromkeys(each.name for each in _ALL if each.name not in BASELINES)
    found = [measure_named(name, task) for name in names]
    return [each for each in found if {each.metric, each.per or each.metric} <= set(metrics)]
