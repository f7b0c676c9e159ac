"""Labels once reached LaTeX, markdown, csv and matplotlib as they were: `$x^{` was 118 lines of matplotlib's parser."""

import csv
import io
import itertools
import re
import warnings

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.text import Text
from test_figure_kinds import config

from posbench import escaping
from posbench.errors import DataError
from posbench.report.figures import draw_figure
from posbench.report.report_writer import write_report
from posbench.report.tables.markup import Table, TableCell, to_csv, to_latex, to_markdown
from posbench.results.rows import RowStore

LABELS = [
    "$x^{",
    "$x^{$",  # which is a formula where "$x^{" alone is none
    "a_b_",
    "_x",
    "__init__",
    "a|b",
    "*a*",
    "`a`",
    "[a](http://b)",
    "![a](b)",
    "<b>x</b>",
    "<script>",
    "&lt;",
    "\\",
    "\\input{/etc/passwd}",
    "a\nb",
    "a\rb",
    "\x1b[31mred",
    "\u202egnp",
    "~~a~~",
    "[red]x[/red]",
    "[/x]",
    "[0.5, 1]",
    "*",
    "%",
    "=HYPERLINK(1)",
    "+1",
    "-1",
    "@x",
    " =1",
    "é ü 中",
    "#",
    "",
]


def table(label: str) -> Table:
    numbers = pd.DataFrame({"scheme": [label], label: [1.5]})
    return Table(
        "t", label, label, ["scheme", label], [[TableCell(label, note=label), TableCell("1.50")]], numbers
    )


def cells_of_markdown(text: str) -> list[str]:
    """The text of the cells of all tables, as a reader of the rendered page sees it."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    inside = [
        token.children
        for before, token in itertools.pairwise(tokens)
        if before.type in ("th_open", "td_open")
    ]
    assert all(
        child.type in ("text", "text_special", "strong_open", "strong_close")
        for cell in inside
        for child in cell
    )
    return ["".join(child.content for child in cell) for cell in inside]


words = st.one_of(st.sampled_from(LABELS), st.text(max_size=12))


@given(words)
def test_markdown_shows_the_label(label):
    label = escaping.printable(label)
    header, _, cell, _ = cells_of_markdown(to_markdown(table(f"a{label}b")))[:4] + [""] * 0
    assert header == "scheme"
    assert cell.removesuffix("†") == f"a{label}b"


@given(words)
def test_latex_has_no_active_character(label):
    text = escaping.latex(label)
    for allowed in (r"\\text\w+\{\}", r"\\[_%&#${}]", r"\$[|<>]\$", r"\$\\times\$", r"\$\^\\\W?\w*\$"):
        text = re.sub(allowed, "", text)
    assert not set(text) & set("\\_%&#${}^~")


@pytest.mark.parametrize("label", ["[a]", "*a", "[", "*"])
def test_a_latex_line_does_not_give_its_label_to_the_command_before(label):
    lines = to_latex(table(label)).splitlines()
    assert not [line for line in lines if line.startswith(("[", "*"))]


@given(words.filter(lambda label: label != "scheme"))  # the name of the other column
def test_csv_holds_no_formula_and_every_cell(label):
    (first, second), (cell, number) = csv.reader(io.StringIO(to_csv(table(label).numbers)))
    assert (first, number) == ("scheme", "1.5")
    for text in (second, cell):
        assert not text.lstrip().startswith(("=", "+", "-", "@"))
        assert text.removeprefix("'") in (
            escaping.printable(label),
            escaping.printable(label).removeprefix("'"),
        )


def test_numbers_of_csv_stay_numbers():
    numbers = pd.DataFrame({"estimate": [-1.25, float("nan")], "n": [-1, 2], "scheme": ["a", "b"]})
    assert to_csv(numbers) == "estimate,n,scheme\n-1.25,-1,a\n,2,b\n"


@given(words)
def test_terminal_shows_the_label(label):
    label = f"a{label}b"
    assert Text.from_markup(escaping.terminal(label)).plain == escaping.printable(label)


@given(st.text())
def test_printable_text_is_one_line_that_encodes(label):
    text = escaping.printable(label)
    assert text.encode() is not None
    assert len(text.splitlines()) <= 1
    assert "\x1b" not in text
    assert escaping.printable(text) == text


@given(st.text(), st.text())
def test_file_names_are_plain_and_distinct(one, other):
    names = escaping.file_name(one), escaping.file_name(other)
    assert all(re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,135}", name) for name in names)
    assert (names[0] == names[1]) == (one == other)


@pytest.mark.parametrize("first", range(8))
def test_figures_and_tables_take_every_label(rows, tmp_path, first):
    """As the name of a scheme and of an extension, and with others as the name of a corpus."""
    labels = [label for label in LABELS[first::8] if label]
    few = rows[(rows["scheme"] == "rope") & (rows["protocol"] == "fixed_targets") & (rows["eval_len"] <= 128)]
    few = few[few["extension"].isin(["none", "pi"])].assign(corpus=" ".join(labels))
    own = {name: few[name].astype(str) for name in ("model_id", "cell_id")}
    shown = [
        few.assign(
            scheme=label,
            extension=few["extension"].replace("pi", label),
            **{name: ids + f"-{n}" for name, ids in own.items()},
        )
        for n, label in enumerate(labels)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = write_report(pd.concat(shown, ignore_index=True), [config("fixed_targets")], tmp_path)
    assert any(path.suffix == ".png" for path in paths)


def test_a_protocol_with_braces_is_a_label(rows, tmp_path):
    few = rows[(rows["scheme"] == "rope") & (rows["protocol"] == "fixed_targets")]
    assert write_report(few.assign(protocol="{x}", task="{0}"), [], tmp_path)


def test_a_lone_surrogate_is_refused_in_rows(rows, tmp_path):
    with pytest.raises(DataError, match=r"^[^\n]*'scheme'[^\n]*$"):
        RowStore(tmp_path).write("cell", [{**rows.iloc[0].to_dict(), "scheme": "\ud800"}], {})


def test_labels_that_look_alike_when_printed_are_not_averaged(rows, tmp_path):
    few = rows[
        (rows["scheme"] == "rope") & (rows["protocol"] == "fixed_targets") & (rows["extension"] == "none")
    ]
    second = few.assign(scheme="rope\x00", model_id="other", cell_id=few["cell_id"] + "-2")
    first = few.assign(scheme="rope\x01")
    with pytest.raises(DataError, match="would average"):
        draw_figure(config("fixed_targets"), pd.concat([first, second]), tmp_path)


def test_no_mark_of_a_footnote_begins_a_heading():
    """Fault: the sixth footnote of a table was a heading, "# Out of memory."."""
    cells = [TableCell("1", note=f"note {number}.") for number in range(13)]
    table = Table("name", "title", "caption", ["scheme"], [[cell] for cell in cells], pd.DataFrame())
    assert not [line for line in to_markdown(table).splitlines() if line.startswith(("#", "-", ">", "+"))]
    assert to_latex(table).isascii()
