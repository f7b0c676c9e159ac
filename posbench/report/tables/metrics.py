"""Metrics of reports, defined as ratios of sums over rows."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from posbench.errors import unknown


@dataclass(frozen=True)
class Metric:
    """scale * sum(values of `row_metric`) / sum(n, or values of the metric `normalize_by`).

    Attributes:
        tasks: tasks whose rows have it; the first is the default.
        lower_is_better: None if neither direction is better, or values of several models cannot be compared.
        exponential: show the exponential of the ratio.
        is_fraction: the ratio lies between 0 and 1.
        least, most: bounds of other ratios.
        baselines: metrics of guessing, shown beside it.
    """

    name: str
    tasks: tuple[str, ...]
    row_metric: str
    label: str
    lower_is_better: bool | None
    normalize_by: str = ""
    scale: float = 1.0
    exponential: bool = False
    is_fraction: bool = False
    least: float = -math.inf
    most: float = math.inf
    baselines: tuple[str, ...] = ()

    @property
    def row_metrics(self) -> list[str]:
        """Names of the row metrics that it is computed from."""
        return [self.row_metric, self.normalize_by] if self.normalize_by else [self.row_metric]

    def shown(self, ratio: float) -> float:
        """Converts a ratio to the value that is shown.

        Means and intervals are computed before the exponential: perplexity is a geometric mean over seeds.
        """
        least, most = (0.0, 1.0) if self.is_fraction else (self.least, self.most)
        ratio = min(max(ratio, least), most)  # bounds of an interval can exceed the possible range
        return math.exp(min(ratio, 700.0)) if self.exponential else ratio


def nats_per_token(metric: Metric) -> Metric:
    """Returns the loss in nats per token in place of one in bits per byte, or of a perplexity."""
    label = "loss (nats per token)"
    return replace(metric, name="loss", label=label, normalize_by="", scale=1.0, exponential=False)


# A task whose rows have metrics under the names of another harness, of which higher is better.
OTHER_NAMES = "lm_eval"
BASELINES = ("chance", "random_in_context")
_TEXT = ("perplexity", "longppl")
_RETRIEVAL = ("key_value", "passkey", "multi_document", "mqar")
_ALGORITHMS = ("algorithmic", "length_generalization", "flip_flop")
SYMBOL_TASKS = ("algorithmic", "length_generalization")  # whose answers have several symbols
_ANSWERS = (*_RETRIEVAL, *_ALGORITHMS)
_RULER = ("multi_value", "multi_query", "variable_tracking")
_ALL = [
    Metric("bits_per_byte", _TEXT, "nll", "bits per byte", True, "bytes", scale=1 / math.log(2), least=0),
    Metric(
        "perplexity", (*_TEXT, "repetition"), "nll", "perplexity per token", True, exponential=True, least=0
    ),
    Metric(
        "exact_match",
        _RETRIEVAL,
        "exact_match",
        "retrieval accuracy",
        False,
        is_fraction=True,
        baselines=BASELINES,
    ),
    Metric(
        "exact_match",
        _ALGORITHMS,
        "exact_match",
        "accuracy of whole answers",
        False,
        is_fraction=True,
    ),
    Metric(
        "substring_match",
        _RETRIEVAL,
        "substring_match",
        "accuracy (answer contained)",
        False,
        is_fraction=True,
        baselines=BASELINES,
    ),
    Metric("recall", _RULER, "recall", "recall of the answers", False, is_fraction=True),
    Metric(
        "symbol_accuracy",
        _ALGORITHMS,
        "symbol_accuracy",
        "symbol accuracy",
        False,
        is_fraction=True,
        baselines=("chance",),  # of one read of flip_flop; the other tasks have none
    ),
    Metric(
        "token_accuracy",
        ("repetition",),
        "token_accuracy",
        "token accuracy",
        False,
        is_fraction=True,
        baselines=("chance",),
    ),
    Metric(  # each model has its own key tokens, so that no model is the best
        "longppl",
        ("longppl",),
        "key_token_nll",
        "LongPPL (perplexity of key tokens)",
        None,
        exponential=True,
        least=0,
    ),
    Metric(
        "key_token_fraction",
        ("longppl",),
        "key_token_fraction",
        "fraction of key tokens",
        None,
        is_fraction=True,
    ),
    Metric(
        "position_accuracy",
        ("position_resolution",),
        "position_accuracy",
        "accuracy on neighbouring positions",
        False,
        is_fraction=True,
        baselines=("chance",),
    ),
    Metric("logprob", SYMBOL_TASKS, "logprob", "log-probability of a symbol (nats)", False, most=0),
    Metric("logprob", _ANSWERS, "logprob", "log-probability of the answer (nats)", False, most=0),
    Metric("rank", _ANSWERS, "rank", "mean rank of the answer", True, least=1),
    Metric("reciprocal_rank", _ANSWERS, "reciprocal_rank", "mean reciprocal rank", False, is_fraction=True),
    Metric(
        "predicted_in_context",
        _RETRIEVAL,
        "predicted_in_context",
        "fraction of predictions from the context",
        False,
        is_fraction=True,
    ),
    Metric("chance", _ANSWERS, "chance", "chance", False, is_fraction=True),
    Metric(
        "random_in_context",
        _RETRIEVAL,
        "random_in_context",
        "random value of the context",
        False,
        is_fraction=True,
    ),
    Metric(
        "attention_entropy", ("attention",), "attention_entropy", "attention entropy (nats)", None, least=0
    ),
    Metric(
        "sink_attention",
        ("attention",),
        "sink_attention",
        "attention to the first 4 tokens",
        None,
        is_fraction=True,
    ),
    Metric(
        "last_quarter_attention",
        ("attention",),
        "last_quarter_attention",
        "attention to the last quarter of the context",
        None,
        is_fraction=True,
    ),
    Metric(
        "answer_attention",
        ("attention",),
        "answer_attention",
        "attention to the answer",
        None,
        is_fraction=True,
    ),
]
METRICS = {each.name: each for each in reversed(_ALL)}  # the first of those with the same name


def get_metric(name: str, task: str | None = None) -> Metric:
    """Returns the metric of a task, by default of the first task that has it; unknown tasks may use every metric.

    Raises:
        ConfigError: no metric has this name.
    """
    if name not in METRICS and task == OTHER_NAMES:
        return Metric(name, (task,), name, name.replace("_", " "), False)
    if name not in METRICS:
        raise unknown("metric", name, [each.name for each in _ALL])
    if task is None:
        return METRICS[name]
    found = [each for each in _ALL if each.name == name and task in each.tasks]
    return found[0] if found else replace(METRICS[name], tasks=(task,), label=name.replace("_", " "))


def metrics_for_task(task: str, metrics: Collection[str]) -> list[Metric]:
    """Returns the metrics that a table of a task can show, given the metrics of its rows; without baselines."""
    names = dict.fromkeys(each.name for each in _ALL if each.name not in BASELINES)
    if task == OTHER_NAMES:
        parts = {part for each in _ALL for part in each.row_metrics}
        names |= dict.fromkeys(sorted({*metrics} - parts))
    found = [get_metric(name, task) for name in names]
    return [each for each in found if set(each.row_metrics) <= set(metrics)]
