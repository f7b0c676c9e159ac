"""The page of reproductions: each claim with the paper's number, ours with its interval, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from posbench import escaping
from posbench.files import write_text
from posbench.report.experiment import ROWS_FILE, remedy
from posbench.report.reproductions.claims import AGREES, DISAGREES, Claim, Effect, Measured, measure
from posbench.report.tables.formatting import format_interval, format_number
from posbench.report.tables.identities import report_rows
from posbench.report.tables.markup import Table, TableCell, to_csv, to_markdown
from posbench.report.tables.selection import propagate_gate
from posbench.results.rows import read_rows
from posbench.results.statistics import MIN_SEEDS

REPRODUCED, CONTRADICTED, UNDECIDED = "reproduced", "contradicted", "undecided"
NOT_MEASURED, NOT_COMPARABLE = "not measured", "not comparable"
COLUMNS = ["claim", "effect", "paper", "estimate", "low", "high", "interval_method", "least", "most", "seeds"]
COLUMNS += ["seeds_left_out"]
COLUMNS += ["judged_low", "judged_high", "experiment", "effect_verdict", "verdict"]
INTRODUCTION = f"""This page tests claims of papers on the results in this folder.

A claim has one or more effects. An effect is a number, or a difference paired by seed and document, with its 95% interval. The \
intervals are not corrected for the number of effects. The claim gives the range in which each effect should lie. An effect \
with – in the column "paper" has no published number.

- **{REPRODUCED}**: the intervals of all effects lie in their ranges.
- **{CONTRADICTED}**: the interval of at least one effect lies outside its range.
- **{UNDECIDED}**: neither of these.
- **{NOT_MEASURED}**: rows are missing.
- **{NOT_COMPARABLE}**: the claim cannot be tested here, for the reason in the table.

The notes name claims for which one effect suffices. Such a claim is reproduced if the interval of one effect lies in its \
range, and contradicted if the intervals of all effects lie outside. With fewer than {MIN_SEEDS} training seeds, a claim is \
always undecided, because the intervals are then over documents or contexts and hold for these models alone. Past the training \
length, seeds below the gate do not count. Seeds without a number for another reason never count. The column "seeds" has the \
number of seeds that count and, in brackets, of those that are left out.

Some ranges are around a paper's number, such as 0.78 to 0.84. They limit the difference between our number and the paper's. \
The interval that is judged then combines the spread of our seeds with that of the paper's seeds. The paper's interval stands \
beside its number, and the judged interval is in the csv. If the judged interval is wider than the range, these seeds cannot \
decide the claim.

Losses are in nats per token. In claims about text, a token is a byte here and a word or part of a word in the papers, and the \
models here are far smaller. Only signs and orders can be compared in these claims. This includes the U-shape, although the \
limit of its range is a paper's number. In length generalization, models and tasks have the papers' sizes, but the trainings \
differ; "up to 100 symbols" is the range of 51 to 100, and "up to 150 symbols" that of 101 to 150. In associative recall, the \
task and the width are the paper's. The papers' models are listed under Sources.

The notes say which claims and limits were chosen or changed after the numbers had been seen."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim, with its effects as they were measured."""

    claim: Claim
    verdict: str
    found: Sequence[Measured] = ()
    experiment: str = ""
    reason: str = ""

    @property
    def settled(self) -> bool:
        """Whether more seeds or rows are not needed."""
        enough = [one.seeds + one.left_out >= MIN_SEEDS or bool(one.reason) for one in self.found]
        return self.verdict == NOT_COMPARABLE or (bool(enough) and all(enough))


def write(configs: Mapping[str, Mapping[str, Any]], results: Path) -> list[Path]:
    """Writes reproductions.md and reproductions.csv to a results folder and returns their paths.

    Args:
        configs: content of each file of configs/claim, by name.

    Raises:
        ConfigError: a claim has impossible settings, or the folder cannot be written.
    """
    read = cache(lambda name: _rows(results / name / ROWS_FILE))
    verdicts = [decide(Claim.from_config(name, content), read) for name, content in configs.items()]
    paths = [results / "reproductions.md", results / "reproductions.csv"]
    write_text(paths[0], markdown(verdicts, results))
    write_text(
        paths[1], to_csv(pd.DataFrame([line for one in verdicts for line in _lines(one)], columns=COLUMNS))
    )
    return paths


def decide(claim: Claim, read: Any) -> Verdict:
    """Returns the verdict on a claim, from the first of its experiments that has all rows of MIN_SEEDS seeds.

    Without one, it is undecided, and shows the first that has all rows.

    Args:
        read: function from the name of an experiment to its rows, or None.
    """
    if claim.not_comparable:
        return Verdict(claim, NOT_COMPARABLE, reason=claim.not_comparable)
    unfinished: Verdict | None = None
    for experiment in claim.experiments:
        rows = read(experiment)
        if rows is None:
            continue
        found = [measure(claim, effect, rows) for effect in claim.effects]
        if not any(one.missing for one in found):
            one = Verdict(claim, *_verdict(claim, found), experiment)
            if all(effect.seeds >= MIN_SEEDS for effect in found):
                return one
            unfinished = unfinished or one
    return unfinished or Verdict(claim, NOT_MEASURED)


def _verdict(claim: Claim, found: Sequence[Measured]) -> tuple[str, Sequence[Measured]]:
    judged = [effect.judge(one.interval) for effect, one in zip(claim.effects, found, strict=True)]
    whole = all if claim.need == "all" else any
    if any(one.seeds < MIN_SEEDS for one in found):
        return UNDECIDED, found
    if whole(one == AGREES for one in judged):
        return REPRODUCED, found
    if (any if claim.need == "all" else all)(one == DISAGREES for one in judged):
        return CONTRADICTED, found
    return UNDECIDED, found


def markdown(verdicts: Sequence[Verdict], results: Path) -> str:
    """Returns the page."""
    body = []
    for one in verdicts:
        cells = _cells(one)
        for place, line in enumerate(cells):
            first = place == 0
            body.append(
                [
                    TableCell(one.claim.claim if first else ""),
                    *map(TableCell, line),
                    TableCell(_shown(one) if first else "", best=first),
                ]
            )
    words = ["effect", "paper", "experiment", "verdict"]
    header = [
        "claim",
        "effect",
        "paper",
        "ours [95% interval]",
        "claimed range",
        "seeds",
        "experiment",
        "verdict",
    ]
    noted: dict[str, list[str]] = {}
    for one in verdicts:
        if one.claim.note:
            noted.setdefault(one.claim.note, []).append(one.claim.claim)
    notes = [escaping.markdown(f"{'; '.join(claims)}. {note}") for note, claims in noted.items()]
    table = Table("reproductions", "Claims and verdicts", "", header, body, pd.DataFrame(), words=words)
    commands = dict.fromkeys(one.claim.command for one in verdicts if not one.settled)
    parts = [
        "# Results of papers, beside ours",
        f"Made by `posbench reproductions results_dir={results}`. {INTRODUCTION}",
        to_markdown(table).strip(),
    ]
    parts += ["## Notes", "\n".join(f"- {note}" for note in notes)] if notes else []
    if commands:
        parts += [
            f"## Claims without a verdict\n\nRows are missing, or have fewer than {MIN_SEEDS} training seeds. The commands "
            f"below compute them. Afterwards, copy the folders of these experiments from `results` to `{results}`.",
            "\n".join(["```bash", *commands, "```"]),
        ]
    return "\n\n".join([*parts, "## Sources", _sources(verdicts)]) + "\n"


def _shown(one: Verdict) -> str:
    if one.reason:
        return f"{one.verdict}: {one.reason}"
    seeds = min((found.seeds for found in one.found if not found.reason), default=MIN_SEEDS)
    if one.verdict == UNDECIDED and seeds < MIN_SEEDS:
        judged = [
            effect.judge(found.interval) for effect, found in zip(one.claim.effects, one.found, strict=True)
        ]
        agree = judged.count(AGREES)
        several = "s" if seeds > 1 else ""
        return f"{UNDECIDED}, {seeds} seed{several}: {agree} of {len(judged)} effects agree in these models"
    wide = any(
        effect.too_wide(found.interval) for effect, found in zip(one.claim.effects, one.found, strict=False)
    )
    if one.verdict == UNDECIDED and wide:
        return f"{UNDECIDED}: the interval over {seeds} seeds is wider than the claimed range"
    if one.verdict == REPRODUCED and not any(effect.published for effect in one.claim.effects):
        return f"{REPRODUCED} (no published number)"
    return one.verdict


def _cells(one: Verdict) -> list[list[str]]:
    """Texts of the columns from effect to experiment, a line for each effect."""
    if not one.claim.effects:
        return [["", "", "", "", "", ""]]
    found = one.found or [Measured(missing=True)] * len(one.claim.effects)
    lines = []
    for effect, measured in zip(one.claim.effects, found, strict=True):
        ours = measured.reason or format_number(measured.interval.estimate)
        interval = format_interval(measured.interval.low, measured.interval.high)
        seeds = f"{measured.seeds}" if measured.seeds else "–"
        seeds += f" ({measured.left_out} left out)" if measured.left_out else ""
        lines.append(
            [
                one.claim.label(effect),
                _paper(effect),
                f"{ours} {interval}".strip() or "–",
                _range(effect),
                seeds,
                one.experiment or "–",
            ]
        )
    return lines


def _paper(effect: Effect) -> str:
    """The published numbers with their intervals over seeds, their sources and, of differences, their terms."""
    texts = []
    for paper in effect.published:
        found = paper.interval
        spread = f" {format_interval(found.low, found.high)}" if found.method else ""
        texts.append(f"{format_number(paper.number)}{spread} ({paper.label})")
    return "; ".join(texts) or "–"


def _range(effect: Effect) -> str:
    low, high = effect.allowed
    if math.isinf(high):
        return f"≥ {low:g}"
    return f"≤ {high:g}" if math.isinf(low) else f"{format_number(low)} to {format_number(high)}"


def _lines(one: Verdict) -> list[dict[str, Any]]:
    """Unrounded numbers of a claim, a line for each effect."""
    found = one.found or [Measured(missing=True)] * len(one.claim.effects)
    lines = []
    for effect, measured in zip(one.claim.effects, found, strict=True):
        interval, (least, most) = measured.interval, effect.allowed
        paper = effect.published[0].number if effect.published else math.nan
        judged = effect.judge(interval) if interval.method else ""
        lines.append(
            {
                "claim": one.claim.name,
                "effect": one.claim.label(effect),
                "paper": paper,
                "estimate": interval.estimate,
            }
            | {"low": interval.low, "high": interval.high, "interval_method": interval.method}
            | {"least": least, "most": most, "seeds": measured.seeds}
            | {"seeds_left_out": measured.left_out, "experiment": one.experiment}
            | {"judged_low": effect.compared(interval).low, "judged_high": effect.compared(interval).high}
            | {"effect_verdict": judged, "verdict": one.verdict}
        )
    return lines or [{"claim": one.claim.name, "verdict": one.verdict}]


def _sources(verdicts: Sequence[Verdict]) -> str:
    columns = ("source", "where", "model", "dataset", "train_len", "protocol", "checked")
    rows = [
        row
        for one in verdicts
        for effect in one.claim.effects
        for paper in effect.published
        for _, row in paper.rows
    ]
    lines = dict.fromkeys(tuple(row[column] for column in columns) for row in rows)
    header = [
        "source",
        "where",
        "model",
        "text or task",
        "training length",
        "protocol",
        "how the numbers were read",
    ]
    body = [[TableCell(value) for value in line] for line in lines]
    return to_markdown(
        Table("sources", "Published numbers", "", header, body, pd.DataFrame(), words=header)
    ).strip()


def _rows(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    return propagate_gate(report_rows(read_rows(path, categorical=True, remedy=remedy(path.parent))))
