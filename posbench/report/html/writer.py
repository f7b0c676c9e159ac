"""The file itself: results, charts and descriptions in the template, with the libraries that it needs inside."""

from __future__ import annotations

import base64
import gzip
import importlib.resources
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from posbench import escaping
from posbench.files import write_text
from posbench.report.html.cards import Card, Cards, read_cards
from posbench.report.html.charts import DRAWN, Chart, charts
from posbench.report.html.leaderboard import Board, Line, boards, columns_of, ranked_by, title
from posbench.report.html.results import Describe, Description, ExperimentResults, read_results
from posbench.report.tables.caption_text import PROTOCOLS, STATUS_NOTES, TASKS
from posbench.report.tables.captions import captions_with
from posbench.report.tables.effective_length import NOTE_OF_TABLE
from posbench.report.tables.formatting import format_cell
from posbench.report.tables.layout import PROTOCOL
from posbench.report.tables.markup import Table
from posbench.report.tables.selection import ordered_series, series_label
from posbench.results.gate import MIN_ACCURACY
from posbench.version import __version__

_TAGS = re.compile(r"<(/(?=script|style)|!(?=--))", re.IGNORECASE)
GROUPS = {"scheme": "Schemes", "extension": "Extensions", "ensemble": "Ensembles"}


@dataclass(frozen=True)
class Result:
    """The numbers of one series in one table: (length, text) of each."""

    experiment: ExperimentResults
    scheme: str
    extension: str
    measure: str
    values: Sequence[tuple[str, str]]

    @property
    def label(self) -> str:
        return series_label(self.scheme, self.extension)


@dataclass(frozen=True)
class Section:
    """The section of the report on one scheme, extension or ensemble.

    Attributes:
        queries: lines of Python that read its rows, one for each experiment.
    """

    group: str
    name: str
    description: Description | None
    card: Card | None
    lines: Sequence[Line]
    results: Sequence[Result]
    queries: Sequence[str]

    @property
    def anchor(self) -> str:
        return anchor(self.group, self.name)


def anchor(group: str, name: str) -> str:
    """Returns the fragment of the address of a section."""
    return f"{group}-{escaping.file_name(name)}"


def write_html(
    folders: Sequence[Path],
    out: Path,
    load_option: Callable[[str, str], dict[str, Any]],
    describe: Describe,
    properties: Path,
) -> int:
    """Writes the report of some experiments and returns its size in bytes.

    Args:
        folders: of experiments.
        load_option: returns the content of a config file, given its group and name.
        describe: returns the description of a choice.
        properties: folder that `posbench properties` has written.

    Raises:
        DataError: a folder is not an experiment's, or a file is damaged.
        ConfigError: the file cannot be written.
    """
    cards = read_cards(properties)
    shared = {name for name, count in Counter(folder.name for folder in folders).items() if count > 1}
    experiments = [
        replace(
            read_results(folder, load_option, describe),
            name=f"{folder.parent.name}/{folder.name}" if folder.name in shared else folder.name,
        )
        for folder in folders
    ]
    found = [board for one in experiments for board in boards(one, cards.costs, describe)]
    drawn = {}
    for one in experiments:
        with captions_with(one.note):
            drawn[one.name] = list(charts(one))
    columns = columns_of(found)
    text = (
        _environment()
        .get_template("report.html.j2")
        .render(
            experiments=experiments,
            boards=found,
            columns=columns,
            titles={column: title(column) for column in columns},
            ranked_by=ranked_by(columns),
            first=_fullest(found),
            charts=drawn,
            chart_data=_chart_data(drawn),
            sections=list(_sections(experiments, found, cards, describe)),
            groups=GROUPS,
            anchor=anchor,
            cards=cards,
            protocols=list(_protocols(experiments)),
            version=__version__,
            notes={"effective": NOTE_OF_TABLE, "statuses": STATUS_NOTES, "gate": MIN_ACCURACY},
            css=Markup(_own("report.css")),
            js=Markup(_own("report.js")),
            libraries=_libraries(),
        )
    )
    write_text(out, text)
    return len(text.encode())


def _environment() -> jinja2.Environment:
    """Returns a template environment in which every text is escaped, whatever it comes from."""

    def escaped(value: Any) -> Any:
        return value if isinstance(value, Markup) else Markup(escaping.html(str(value)))

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("posbench.report.html", "."),
        autoescape=True,
        finalize=escaped,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["footnotes"] = Table.footnotes
    environment.filters["json"] = lambda value: Markup(escaping.html_json(value))
    return environment


def _fullest(found: Sequence[Board]) -> str:
    """Returns the experiment whose lines have the most columns of the leaderboard."""

    def fill(board: Board) -> tuple[float, int]:
        return len({column for line in board.lines for column in line.entries}), len(board.lines)

    return max(found, key=fill).experiment.name if found else ""


def _chart_data(drawn: dict[str, list[Chart]]) -> dict[str, Any]:
    """Returns the specifications of all charts, the points that they draw and the texts of these, each only once."""
    points, specs = {}, {}
    texts: dict[str, int] = {}  # texts are most of the points, and most occur many times
    for name, found in drawn.items():
        for chart in found:
            key = f"{name}/{chart.name}"
            data = f"{name}/{chart.data}"
            columns = list(dict.fromkeys(column for point in chart.points for column in point))
            written = [
                column
                for column in columns
                if any(isinstance(point.get(column), str) for point in chart.points)
            ]
            points[data] = {
                "columns": columns,
                "texts": written,
                "rows": [
                    [
                        texts.setdefault(point[column], len(texts))
                        if column in written
                        else point.get(column)
                        for column in columns
                    ]
                    for point in chart.points
                ],
            }
            specs[key] = {
                "data": data,
                "spec": chart.spec,
                "series": [{"name": label, "colour": colour} for label, colour, _ in chart.series],
            }
    return {"texts": list(texts), "points": points, "charts": specs}


def _sections(
    experiments: Sequence[ExperimentResults], found: Sequence[Board], cards: Cards, describe: Describe
) -> Iterator[Section]:
    """Yields a section for everything that has results or a property card."""
    lines = [line for board in found for line in board.lines]
    series = {
        pair
        for one in experiments
        for pair in one.rows[["scheme", "extension"]].drop_duplicates().itertuples(index=False, name=None)
    }
    around = {extension for _, extension in series} - {"none"}
    ensembles = {name for name in around if describe("ensemble", name)}
    names = {
        "scheme": {scheme for scheme, _ in series} | set(cards.by_scheme),
        "extension": (around - ensembles) | set(cards.by_extension),
        "ensemble": ensembles,
    }
    results = list(_results(experiments))
    pictured = {"scheme": cards.by_scheme, "extension": cards.by_extension, "ensemble": {}}
    for group, every in names.items():
        column = "scheme" if group == "scheme" else "extension"
        for name in sorted(every):
            own = [line for line in lines if name == getattr(line, column)]
            with_it = [one for one in results if getattr(one, column) == name]
            sources = list(dict.fromkeys(result.experiment.name for result in with_it))
            queries = [one.rows_query({column: name}) for one in experiments if one.name in sources]
            card = pictured[group].get(name)
            yield Section(group, name, describe(group, name), card, own, with_it, queries)


def _results(experiments: Sequence[ExperimentResults]) -> Iterator[Result]:
    """Yields the numbers of every series in the tables of main metrics."""
    for one in experiments:
        for table in one.tables:
            if table.about["kind"] != "values" or table.about["metric"] not in DRAWN:
                continue
            words = [table.about[name] for name in ("metric", "task", "protocol", "variant")]
            measure = ", ".join(str(word).replace("_", " ") for word in words if word not in ("", "none"))
            values: dict[tuple[str, str], list[tuple[str, str]]] = {}
            for line in table.numbers.itertuples():
                cell = f"{line.eval_len:,}", format_cell(line).text
                values.setdefault((line.scheme, line.extension), []).append(cell)
            for pair in ordered_series(table.numbers, one.order):
                yield Result(one, *pair, measure, values[pair])


def _protocols(experiments: Sequence[ExperimentResults]) -> Iterator[tuple[str, str]]:
    """Yields the names of the protocols and tasks of the results with their descriptions."""
    variants: dict[tuple[str, str], set[str]] = {}
    for table in (table for one in experiments for table in one.tables):
        if table.about["kind"] == "values":
            task, protocol, variant = (str(table.about[name]) for name in PROTOCOL)
            variants.setdefault((task, protocol), set()).add(variant)
    for (task, protocol), found in sorted(variants.items()):
        words = PROTOCOLS.get(protocol) or TASKS.get(task) or f"Protocol {protocol}."
        plain = words.replace("{targets}", "").replace("{text}", "document").replace(" {ranges}", "")
        plain = plain.replace("{variant}", " or ".join(sorted(found)))
        yield f"{task}, {protocol}".replace("_", " "), plain


def _own(name: str) -> str:
    return importlib.resources.files("posbench.report.html").joinpath(name).read_text("utf-8")


@cache
def _libraries() -> dict[str, Markup]:
    """Returns Vega-Lite and DataTables from their packages: JavaScript as base64 of gzip, CSS as text."""
    import itables
    import vl_convert

    tables = importlib.resources.files(itables) / "html"
    code = {
        "vega": vl_convert.javascript_bundle(),  # type: ignore[call-arg]  # the stub lacks the default
        "datatables": (tables / "dt_bundle.js").read_text("utf-8"),
    }
    packed = {
        name: Markup(base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode())
        for name, text in code.items()
    }
    # Escapes what would end the style element.
    style = _TAGS.sub(r"<\\\1", (tables / "dt_bundle.css").read_text("utf-8"))
    return {**packed, "datatables_css": Markup(style)}
