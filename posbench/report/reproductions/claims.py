"""Claims of papers, as configs/claim declares them, and their effects in the rows of an experiment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeVar

import pandas as pd

from posbench.config.lengths import tokens_at
from posbench.errors import ConfigError, unknown
from posbench.report.reproductions.published import Row, find, number, seeds
from posbench.report.tables.metrics import Metric, get_metric, nats_per_token
from posbench.report.tables.selection import conclusive, series_label
from posbench.report.tables.serial_position import PARTS, between
from posbench.report.tables.summary import CLUSTER, NO_INTERVAL, metric_sums
from posbench.results.rows import STATUSES
from posbench.results.statistics import MIN_SEEDS, Interval, contrast, interval

AGREES, DISAGREES, OPEN = "agrees", "disagrees", "open"
NEEDS = ("all", "any")
LABELLED = (
    "scheme",
    "extension",
    "model_size",
    "length_multiple",
    "eval_len",
    "task",
)  # settings of `select` that labels depend on
TOKENS = {"shortest": "min", "longest": "max"}  # trainings of an experiment by their tokens
Settings = TypeVar("Settings")


@dataclass(frozen=True)
class PublishedEffect:
    """The effect in a paper: numbers of published.csv, plus minus, each selected by `select` and its own columns."""

    plus: Sequence[Mapping[str, Any]]
    minus: Sequence[Mapping[str, Any]] = ()
    select: Mapping[str, Any] | None = None

    @property
    def rows(self) -> list[tuple[float, Row]]:
        """The lines of published.csv with their signs."""
        signed = [*((1.0, one) for one in self.plus), *((-1.0, one) for one in self.minus)]
        return [(sign, find({**(self.select or {}), **one})) for sign, one in signed]

    @property
    def number(self) -> float:
        return sum(sign * number(row) for sign, row in self.rows)

    @property
    def interval(self) -> Interval:
        """The number with its interval over the published training seeds, without width if they are not published."""
        values = seeds(self.rows[0][1]) if len(self.rows) == 1 else []
        if len(values) < MIN_SEEDS:
            return Interval(self.number, self.number, self.number, "")
        found = interval(values, [1.0] * len(values), range(len(values)), [0] * len(values))
        return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))

    @property
    def label(self) -> str:
        """The source and the terms in words, such as "KERPLE: alibi 8192 − alibi 512"."""
        plus, minus = (
            [" ".join(str(value) for value in one.values()) for one in side]
            for side in (self.plus, self.minus)
        )
        source = self.rows[0][1]["source"].split(",")[0]
        return f"{source}: {' − '.join([' + '.join(plus), *minus])}"


@dataclass(frozen=True)
class Effect:
    """A sum and difference of numbers of an experiment, and the range that the claim allows.

    Attributes:
        plus, minus: selections of rows, each in addition to the claim's `select`: columns with their values;
            `length_multiple`, a multiple of the training length; `part`, first, middle or last records of a context;
            `training`, the shortest or the longest of the experiment.
        at_least, at_most: the range that the claim allows.
        within: or how far from the first published number, an accuracy, it may be.
        published: the same effect in papers.
    """

    plus: Sequence[Mapping[str, Any]]
    minus: Sequence[Mapping[str, Any]] = ()
    at_least: float | None = None
    at_most: float | None = None
    within: float | None = None
    published: Sequence[PublishedEffect] = ()

    @property
    def terms(self) -> list[tuple[float, Mapping[str, Any]]]:
        """The selections with their signs."""
        return [*((1.0, one) for one in self.plus), *((-1.0, one) for one in self.minus)]

    @property
    def allowed(self) -> tuple[float, float]:
        """The smallest and the largest value of the claim."""
        if self.within is not None:
            return self.published[0].number - self.within, self.published[0].number + self.within
        low = -math.inf if self.at_least is None else self.at_least
        return low, math.inf if self.at_most is None else self.at_most

    def compared(self, found: Interval) -> Interval:
        """Returns the interval that is judged: of the number or, if the paper's has an interval too, widened by that.

        The difference of two numbers with intervals (l, u) and (l', u') has the ends x - x' - |(x - l, u' - x')| and
        x - x' + |(u - x, x' - l')|: Zou and Donner, Construction of confidence limits about effect measures. Statistics
        in Medicine 27, 2008. The paper's number is added here, so that the result compares with the allowed range.
        """
        if self.within is None:
            return found
        paper = self.published[0].interval
        return replace(
            found,
            low=found.estimate - math.hypot(found.estimate - found.low, paper.high - paper.estimate),
            high=found.estimate + math.hypot(found.high - found.estimate, paper.estimate - paper.low),
        )

    def too_wide(self, found: Interval) -> bool:
        """Returns whether the interval has no place in the allowed range, so that these seeds cannot decide."""
        one = self.compared(found)
        return self.within is not None and one.high - one.low > 2 * self.within

    def judge(self, found: Interval) -> str:
        """Returns whether an interval lies inside the allowed range, outside, or neither."""
        low, high = self.allowed
        found = self.compared(found)
        if found.low >= low and found.high <= high:
            return AGREES
        return DISAGREES if found.high < low or found.low > high else OPEN


@dataclass(frozen=True)
class Claim:
    """A claim of papers, with the effects in which it shows.

    Attributes:
        experiments: names of experiments, of which the first with the rows is used.
        select: columns and values of all rows, such as the task.
        metric: name of a metric, or "loss" in nats per token.
        need: whether all effects must agree, or any.
        sweep: arguments of the command that measures it, by default the first experiment.
        not_comparable: the reason why it cannot be measured here; it then has no effects.
        note: a sentence about the comparison.
    """

    name: str
    claim: str
    experiments: Sequence[str] = ()
    select: Mapping[str, Any] | None = None
    metric: str = "loss"
    need: str = "all"
    effects: Sequence[Effect] = ()
    sweep: str = ""
    not_comparable: str = ""
    note: str = ""

    @classmethod
    def from_config(cls, name: str, content: Mapping[str, Any]) -> Claim:
        """Creates a claim from its yaml file.

        Raises:
            ConfigError: a setting is unknown, missing or impossible.
        """
        effects = []
        for one in content.get("effects", ()):
            papers = [_from(PublishedEffect, name, paper) for paper in one.get("published", ())]
            effect = _from(Effect, name, {**one, "published": papers})
            limits = [limit is not None for limit in (effect.at_least, effect.at_most, effect.within)]
            if not any(limits) or (effect.within is not None and (sum(limits) > 1 or not papers)):
                raise ConfigError(
                    f"claim {name}: each effect needs at_least or at_most, or within and a published number"
                )
            effects.append(effect)
        claim = _from(cls, name, {**content, "effects": effects})
        if bool(claim.not_comparable) == bool(effects) or (effects and not claim.experiments):
            raise ConfigError(f"claim {name}: give experiments with effects, or the reason as not_comparable")
        if claim.need not in NEEDS:
            raise unknown(f"need of claim {name}", claim.need, NEEDS)
        return claim

    @property
    def row_metric(self) -> Metric:
        task = (self.select or {}).get("task")
        return (
            nats_per_token(get_metric("bits_per_byte"))
            if self.metric == "loss"
            else get_metric(self.metric, task)
        )

    def label(self, effect: Effect) -> str:
        """Returns an effect in words, such as "rope at 8× − rope at 1×"."""
        shared = {key: value for key, value in (self.select or {}).items() if key in LABELLED}
        plus, minus = (
            [term_label(shared | dict(one)) for one in side] for side in (effect.plus, effect.minus)
        )
        return " − ".join([" + ".join(plus), *minus])

    @property
    def command(self) -> str:
        """The command that makes the rows."""
        arguments = self.sweep or f"experiment={self.experiments[0]}"
        return f"posbench sweep {arguments} 'grid.seed=[0,1,2]'"


@dataclass(frozen=True)
class Measured:
    """An effect in the rows of an experiment.

    Attributes:
        missing: whether there are no rows.
        reason: why rows have no number, such as "not learned".
        left_out: number of seeds that have rows and do not count, such as those that have not learned the task.
    """

    interval: Interval = NO_INTERVAL
    seeds: int = 0
    left_out: int = 0
    missing: bool = False
    reason: str = ""


def measure(claim: Claim, effect: Effect, rows: pd.DataFrame) -> Measured:
    """Returns an effect with its interval, over the seeds and clusters that all its numbers have."""
    metric, parts, trained = claim.row_metric, [], set[int]()
    for sign, term in effect.terms:
        chosen = selected(rows, {"extension": "none", **(claim.select or {}), **term})
        of_metric = chosen[chosen["metric"].isin(metric.row_metrics)]
        if (of_metric.groupby("train_seed")["model_id"].nunique() > 1).any():
            return Measured(reason=f"{term_label(term)}: several models of one seed")
        if chosen.empty or (of_metric.empty and chosen["value_sum"].notna().any()):
            return Measured(missing=True)
        sums = metric_sums(of_metric, metric, ["train_seed", *CLUSTER], conclusive(of_metric))
        trained |= set(chosen["train_seed"])
        if sums.empty:
            worst = max(map(STATUSES.index, chosen["status"].unique()))
            return Measured(reason=f"{term_label(term)}: {STATUSES[worst].replace('_', ' ')}")
        parts.append((sign, sums))
    shared = parts[0][1].index
    for _, sums in parts[1:]:
        shared = shared.intersection(sums.index)
    if shared.empty:
        return Measured(reason="no seed and document in common")
    terms = [(sign, sums.loc[shared, "numerator"], sums.loc[shared, "denominator"]) for sign, sums in parts]
    seeds = shared.get_level_values("train_seed")
    clusters = pd.factorize(shared.droplevel("train_seed"))[0]
    found = contrast(terms, seeds, clusters)
    if len(terms) == 1 and metric.is_fraction:
        found = replace(found, low=metric.shown(found.low), high=metric.shown(found.high))
    return Measured(found, seeds.nunique(), len(trained) - seeds.nunique())


def selected(rows: pd.DataFrame, term: Mapping[str, Any]) -> pd.DataFrame:
    """Returns the rows of a term; see Effect for what it may select by."""
    for key, value in term.items():
        if key == "length_multiple":
            rows = rows[rows["eval_len"] == rows["train_len"].map(partial(tokens_at, value)).astype(float)]
        elif key == "part":
            rows = between(rows, *PARTS[value])
        elif key == "training":
            rows = rows[rows["train_tokens"] == rows["train_tokens"].agg(TOKENS[value])]
        elif key in rows:
            rows = rows[rows[key] == value]
        else:
            raise unknown("column in a claim", key, [*rows.columns, "length_multiple", "part", "training"])
    return rows


def term_label(term: Mapping[str, Any]) -> str:
    """Returns a term in words, such as "rope + yarn at 8×"."""
    words = [series_label(term.get("scheme", ""), term.get("extension", "none"))]
    words += [f"{term[key]}" for key in ("model_size", "variant") if term.get(key)]
    words += [f"{term['training']} training"] if "training" in term else []
    words += [f"{term['part']} records"] if "part" in term else []
    words += [f"at {term['length_multiple']:g}×"] if "length_multiple" in term else []
    if "eval_len" in term:
        symbols = term.get("task") == "length_generalization"
        length = f"up to {(term['eval_len'] - 2) // 2} symbols" if symbols else f"{term['eval_len']} tokens"
        words += [f"at {length}"]
    return " ".join(word for word in words if word)


def _from(kind: type[Settings], name: str, content: Mapping[str, Any]) -> Settings:
    allowed = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    for key in content:
        if key not in allowed:
            raise unknown(f"setting of claim {name}", key, allowed)
    try:
        return kind(**content)
    except TypeError as error:
        raise ConfigError(f"claim {name}: {error}; give its settings in configs/claim/{name}.yaml") from None
