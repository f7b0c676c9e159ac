"""The report in HTML: escaping, what it holds without JavaScript, and its bad input."""

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_rows import ORDER, synthetic_rows
from test_escaping import LABELS

from posbench import escaping
from posbench.errors import DataError
from posbench.report.experiment import save_experiment
from posbench.report.html.charts import charts
from posbench.report.html.leaderboard import Board, Entry, boards
from posbench.report.html.results import ExperimentResults, read_results
from posbench.report.html.writer import write_html
from posbench.report.tables.caption_text import TUNED

NOTHING = Path("/nonexistent")
words = st.one_of(st.sampled_from(LABELS), st.text(max_size=12))


class Page(HTMLParser):
    """The elements, ids and visible text of a page, as a browser without JavaScript has them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.json = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.ids += [found["id"]] if found.get("id") else []
        self.links += [found["href"]] if found.get("href") else []
        self._inside = str(found.get("id")) if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "chart-data":
            self.json += data
        elif not self._inside:
            self.text += data


def written(folder: Path, rows: pd.DataFrame, name: str = "one", **changes: str) -> Page:
    for column, label in changes.items():
        rows = rows.assign(**{column: rows[column].astype(str).replace(rows[column].iat[0], label)})
    save_experiment(folder / name, rows, [], [])
    out = folder / "report.html"
    write_html([folder / name], out, lambda group, name: {}, lambda group, name: None, NOTHING)
    return Page(out.read_text())


@given(words)
def test_html_shows_the_label_and_nothing_else(label: str) -> None:
    page = Page(f'<p id="{escaping.html(label)}">{escaping.html(label)}</p>')
    assert page.tags == ["p"]
    assert page.text == escaping.printable(label)
    assert page.ids == [escaping.printable(label)] or not label


@given(words)
def test_json_in_a_script_ends_nothing(label: str) -> None:
    text = escaping.html_json({label: [label]})
    assert not set(text) & set("<>&")
    assert json.loads(text) == {label: [label]}


@pytest.mark.parametrize(
    "label", ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "a&b"]
)
def test_a_report_shows_labels_as_text(label: str, rows: pd.DataFrame, tmp_path: Path) -> None:
    """A name of a scheme, extension, size or experiment of somebody else's rows is a text, never markup."""
    few = rows[rows["scheme"].isin(["alibi", "rope"]) & rows["extension"].isin(["none", "window"])]
    clean = written(tmp_path / "a", few)
    page = written(tmp_path / "b", few, scheme=label, corpus=label)
    assert sorted(page.tags) == sorted(clean.tags)
    assert page.text.count(label) > 3
    assert label in str(json.loads(page.json)["charts"])


def test_without_javascript_it_holds_every_number_and_every_link_leads_somewhere(
    rows: pd.DataFrame, tmp_path: Path
) -> None:
    page = written(tmp_path, rows)
    results = read_results(tmp_path / "one", lambda group, name: {}, lambda group, name: None)
    for table in results.tables:
        for row in table.body:
            assert all(cell.text in page.text for cell in row), table.name
    inner = [link.removeprefix("#") for link in page.links if link.startswith("#")]
    assert len(inner) > 20
    assert set(inner) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert [link for link in page.links if not link.startswith(("#", "data:"))] == []


def test_nothing_is_fetched(rows: pd.DataFrame, tmp_path: Path) -> None:
    written(tmp_path, rows)
    text = (tmp_path / "report.html").read_text()
    markup = re.sub(r"(?s)<(script|style)\b.*?</\1>", "", text)
    assert not re.search(r"""(src|srcset|action|poster)\s*=\s*["'](?!data:)""", markup)
    assert "default-src 'none'" in text


def test_two_folders_of_one_name_stay_apart(rows: pd.DataFrame, tmp_path: Path) -> None:
    """results/demo and results/published/demo were one experiment of the page, with the curves of the second."""
    few = rows[rows["scheme"].isin(["alibi", "nope"])]
    folders = [tmp_path / "results" / "demo", tmp_path / "published" / "demo"]
    for folder in folders:
        save_experiment(folder, few, [], [])
    write_html(folders, tmp_path / "report.html", lambda group, name: {}, lambda group, name: None, NOTHING)
    page = Page((tmp_path / "report.html").read_text())
    assert len(page.ids) == len(set(page.ids))
    assert {"results", "published"} == {name.split("/")[0] for name in json.loads(page.json)["charts"]}


def one_board(rows: pd.DataFrame, folder: Path) -> Board:
    save_experiment(folder / "one", rows, ORDER, [])
    results: ExperimentResults = read_results(
        folder / "one", lambda group, name: {}, lambda group, name: None
    )
    (board,) = boards(results, {"rope": Entry("1.05", 1.05)}, lambda group, name: None)
    return board


def test_the_best_has_passed_the_gate_with_every_seed(tmp_path: Path) -> None:
    """The mean over the seeds above the gate could be the best retrieval, as the footnote began with the seeds left out."""
    rows = synthetic_rows(seeds=3, documents=8, contexts=8, schemes=("rope", "alibi", "kerple_log"))
    assert [best.line.label for best in one_board(rows, tmp_path).best][1] == "rope + rerope"
    rows = rows[rows["extension"] == "none"]
    lost = (rows["scheme"] == "kerple_log") & (rows["train_seed"] == 2) & (rows["eval_len"] > 64)
    rows.loc[lost & (rows["task"] == "key_value"), "status"] = "not_learned"
    board = one_board(rows, tmp_path)
    note = {line.label: line for line in board.lines}["kerple_log"].entries["retrieval 4×"].note
    assert note == "1 of 3 seeds has not learned the task and is left out."
    assert [best.line.label for best in board.best][1] == "alibi"


def test_the_leaderboard_has_the_numbers_of_the_tables(rows: pd.DataFrame, tmp_path: Path) -> None:
    board = one_board(rows, tmp_path)
    lines = {line.label: line for line in board.lines}
    assert len(lines) == 12
    nll, size = (
        rows.loc[
            (rows["protocol"] == "fixed_targets")
            & (rows["scheme"] == "alibi")
            & (rows["eval_len"] == 512)
            & (rows["metric"] == metric),
            "value_sum",
        ].sum()
        for metric in ("nll", "bytes")
    )
    assert lines["alibi"].entries["loss 8×"].value == pytest.approx(nll / size / 0.6931471805599453)
    assert lines["learned"].entries["loss 8×"].text == "–"
    assert lines["learned"].entries["loss 8×"].note.startswith("Undefined")
    assert lines["nope"].entries["retrieval 4×"].text == "not learned"
    assert lines["rope + window"].entries["effective_loss"].text == "> 1024"
    assert lines["rope"].entries["time"].text == "1.05"
    assert lines["rope + window"].kind == "extension"
    # Fault: an extension and an ensemble had the time of the plain scheme.
    assert "time" not in lines["rope + window"].entries
    loss, retrieval = board.best
    assert loss.line.label in ("rope + window", "rope + rerope")
    assert "8× the training length (512 tokens)" in loss.measure
    entries = [line.entries["retrieval 4×"] for line in board.lines if "retrieval 4×" in line.entries]
    highest = max(entry.value for entry in entries if not math.isnan(entry.value) and not entry.note)
    assert retrieval.line.entries["retrieval 4×"].value == highest


def test_a_scheme_without_the_longest_context_has_its_curve(rows: pd.DataFrame, tmp_path: Path) -> None:
    """Fault: the curve by position of a scheme that is undefined at the longest context was missing."""
    prefix = rows[(rows["protocol"] == "prefix") & (rows["extension"] == "none")]
    here = prefix[prefix["scheme"] == "alibi"]
    ids = dict.fromkeys(("scheme", "model_id", "cell_id"), "learned")
    short = here[here["position"] <= 64].assign(eval_len=64, **ids)
    missing = short.iloc[:1].assign(eval_len=1024, value_sum=float("nan"), n=0, status="undefined")
    save_experiment(tmp_path / "one", pd.concat([prefix, short, missing]), ORDER, [])
    found = read_results(tmp_path / "one", lambda group, name: {}, lambda group, name: None)
    (chart,) = [one for one in charts(found) if one.name.endswith("bits_per_byte-position")]
    assert "learned" in {str(point["series"]) for point in chart.points}


def test_fine_tuned_models_have_more_tokens(rows: pd.DataFrame, tmp_path: Path) -> None:
    """Fault: a fine-tuned model had the training tokens of the model that it starts from."""
    note = f"rope: rope_theta 500. {TUNED} window (window, steps 200), yarn_200 (yarn, steps 200)."
    save_experiment(tmp_path / "one", rows, ORDER, [], note)
    found = read_results(tmp_path / "one", lambda group, name: {}, lambda group, name: None)
    (board,) = boards(found, {}, lambda group, name: None)
    tokens = {line.label: line.entries["tokens"].text for line in board.lines}
    assert tokens["rope + window"] == "921,600 + fine-tuning"
    assert {tokens[name] for name in ("rope", "rope + yarn")} == {"921,600"}
    # Fault: the price of the best was "921,600 + fine-tuning training tokens".
    write_html([tmp_path / "one"], tmp_path / "out", lambda *_: {}, lambda *_: None, NOTHING)
    assert re.search(
        r"Price: parameters [\d,]+; training tokens [\d,]+( \+ fine-tuning)?\.",
        Page((tmp_path / "out").read_text()).text,
    )


def test_effective_lengths_have_their_footnotes(tmp_path: Path) -> None:
    """Fault: effective lengths had no daggers, so the reasons of dashes and the seeds left out were missing."""
    rows = synthetic_rows(seeds=3, documents=8, contexts=8, schemes=("nope", "alibi", "learned"))
    lost = (rows["scheme"] == "alibi") & (rows["train_seed"] == 2)
    rows.loc[lost & (rows["task"] == "key_value"), "status"] = "not_learned"
    board = one_board(rows, tmp_path)
    found = {line.label: line.entries["effective_retrieval"] for line in board.lines}
    assert found["nope"].text == "not learned"
    assert found["nope"].note.startswith("Not learned")
    assert found["learned"].note.startswith("Undefined")
    assert found["alibi"].note == "1 of 3 seeds has not learned the task and is left out."
    (table,) = [
        one
        for one in board.experiment.tables
        if one.name == "perplexity-fixed_targets-bits_per_byte-effective_length"
    ]
    printed = {row[0].text: row[1].text for row in table.body}
    assert {line.label: line.entries["effective_loss"].text for line in board.lines} == printed


def test_descriptions_name_their_variants(rows: pd.DataFrame, tmp_path: Path) -> None:
    """Faults: "Sequences to of a rule, teacher-forced", and "accuracy by position of the position of the passkey"."""
    some = rows[(rows["task"] == "key_value") & rows["scheme"].isin(["alibi", "learned"])]
    ids = some["cell_id"].astype(str)
    rules = [
        some.assign(task="algorithmic", protocol="teacher_forced", variant=name, cell_id=ids + name)
        for name in ("reverse", "copy")
    ]
    passkey = some.assign(task="passkey", protocol="synthetic", cell_id=ids + "passkey")
    page = written(tmp_path, pd.concat([*rules, passkey]))
    assert "Sequences to copy or reverse, teacher-forced" in page.text
    assert "of a rule" not in page.text
    assert "Retrieval accuracy by position of the passkey" in page.text
    # Fault: charts gave no reason for a missing line, and mentioned a csv that the page does not have.
    found = read_results(tmp_path / "one", lambda group, name: {}, lambda group, name: None)
    (chart,) = [one for one in charts(found) if one.name.startswith("passkey") and one.name.endswith("depth")]
    assert "Undefined beyond the length that the scheme was built for (learned)." in chart.caption
    assert "in the csv" not in chart.caption


def test_bands_are_those_over_seeds(rows: pd.DataFrame, tmp_path: Path) -> None:
    """Fault: charts of one seed had bands, which held for this training alone; figures have none."""
    rows = rows[rows["protocol"] == "fixed_targets"]
    save_experiment(tmp_path / "one", rows, ORDER, [])
    found = read_results(tmp_path / "one", lambda group, name: {}, lambda group, name: None)
    (chart,) = [one for one in charts(found) if one.name.endswith("bits_per_byte")]
    assert not any("low" in point for point in chart.points)
    assert "[" in str(chart.points[0]["value"])


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    def report(*arguments: str) -> tuple[int, str]:
        run = [sys.executable, "-m", "posbench", "report", f"results_dir={tmp_path}", *arguments]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    for arguments, words in (((), "no experiment in"), (("experiments=[mine]",), "no folder")):
        status, error = report(*arguments)
        assert status == 2
        assert error.count("\n") == 1
        assert words in error


def test_a_damaged_card_is_one_line(rows: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "cards.json").write_text("{}")
    with pytest.raises(DataError, match=r"cards\.json cannot be used .*run posbench properties again"):
        write_html([], tmp_path / "report.html", lambda group, name: {}, lambda group, name: None, tmp_path)
