"""The report in a headless Chromium: sorting, filtering, links, keyboard, numbers, and the time until it is there.

Chromium and its driver come from Debian's packages (tests/report/chromium_up.sh).
"""

import json
import math
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic_rows import ORDER, synthetic_rows

import posbench
from posbench.commands.report import described
from posbench.report.experiment import find_experiments, save_experiment
from posbench.report.html.writer import write_html
from posbench.results.rows import read_rows

PROGRAMS = [shutil.which(name) for name in ("chromium", "chromedriver")]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(
        None in PROGRAMS, reason="no chromium with chromedriver: see tests/report/chromium_up.sh"
    ),
]
PUBLISHED = Path(posbench.__file__).parents[1] / "results" / "published"
SECONDS = 2.0  # until a report is there
BYTES = 5_000_000


# Sums of red, green and blue of the text of the leaderboard and of what is behind it.
COLOURS = """
const sum = (colour) => { const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number); return a ? r + g + b : null; };
const cell = document.querySelector('#leaderboard-table tbody td');
let behind = cell;
while (sum(getComputedStyle(behind).backgroundColor) === null) behind = behind.parentElement;
return [sum(getComputedStyle(cell).color), sum(getComputedStyle(behind).backgroundColor)];
"""


class Browser:
    """A page in Chromium."""

    def __init__(self) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = str(PROGRAMS[0])
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(str(PROGRAMS[1])))

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Waits for a condition in JavaScript."""
        end = time.monotonic() + seconds
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < end, condition
            time.sleep(0.05)

    def open(self, path: Path, fragment: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get(f"{path.as_uri()}{fragment}")
        self.wait("document.documentElement.dataset.ready")

    def column(self, place: int) -> list[str]:
        """The texts of a column of the leaderboard as it is shown."""
        script = "return [...document.querySelectorAll('#leaderboard-table tbody tr')].map(r => r.cells[arguments[0]].innerText)"
        return self.run(script, place)

    def choose(self, select: str, value: str) -> None:
        script = "const s = document.querySelector(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'))"
        self.run(script, select, value)

    def press(self, selector: str, key: str) -> None:
        from selenium.webdriver.common.by import By
        from selenium.webdriver.common.keys import Keys

        self.driver.find_element(By.CSS_SELECTOR, selector).send_keys(getattr(Keys, key, key))

    def errors(self) -> list[Any]:
        return self.driver.get_log("browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    made = Browser()
    yield made
    made.driver.quit()


def test_a_hundred_thousand_rows(browser: Browser, tmp_path: Path) -> None:
    """It opens within two seconds and five megabytes, sorts, filters, searches, and answers the keyboard."""
    rows = synthetic_rows(seeds=1, documents=32, contexts=32)
    assert len(rows) > 100_000
    save_experiment(tmp_path / "large", rows, ORDER, [])
    save_experiment(tmp_path / "other", rows[rows["scheme"] == "alibi"], ORDER, [])
    out = tmp_path / "report.html"
    folders = [tmp_path / "large", tmp_path / "other"]
    assert write_html(folders, out, lambda group, name: {}, described, PUBLISHED / "properties") < BYTES
    browser.open(out)
    took = browser.run("return performance.getEntriesByType('mark').at(-1).startTime") / 1000
    assert took < SECONDS or Path("/proc/loadavg").read_text().split()[0] > "4", took

    # Filters: at first one experiment is chosen, since numbers of two do not compare.
    assert len(browser.column(0)) == 12
    browser.choose("#filter-kind", "extension")
    assert len(browser.column(0)) == 5
    browser.choose("#filter-kind", "")
    browser.choose("#filter-experiment", "")
    assert len(browser.column(0)) == 13
    browser.choose("#filter-experiment", "large")

    # Sorting, by keyboard, by loss at 16×: the number decides, and what has none comes last in both directions.
    head = "#leaderboard-table thead th:nth-child(8)"
    for order, sign in (("ascending", 1), ("descending", -1)):
        browser.press(f"{head} [role=button], {head}[tabindex]", "ENTER")
        browser.wait(f"document.querySelector('{head}').ariaSort === '{order}'")
        texts = browser.column(7)
        assert texts[-1].startswith("–")
        values = [float(text.split()[0]) for text in texts[:-1]]
        assert values == sorted(values, key=lambda value: sign * value)

    browser.press("#leaderboard input[type=search]", "rerope")
    browser.wait("document.querySelectorAll('#leaderboard-table tbody tr').length === 1")

    # Curves: arrows move over the points, whose values are read out.
    name = "large/perplexity-fixed_targets-bits_per_byte"
    figure = f'figure[data-chart="{name}"]'
    browser.run("document.querySelector(arguments[0]).scrollIntoView()", figure)
    browser.wait(f"document.querySelector('{figure}').dataset.ready")
    for key in ("ARROW_RIGHT", "ARROW_RIGHT", "ARROW_DOWN"):
        browser.press(f"{figure} .plot", key)
    readout = browser.run("return document.querySelector(arguments[0] + ' .readout').textContent", figure)
    assert readout.startswith("sinusoidal, 128 tokens (2×): 4.")
    marks = "document.querySelectorAll('{} .plot path[aria-roledescription=point]').length"
    assert browser.run(f"return {marks.format(figure)}") > 40
    browser.run("document.querySelector(arguments[0]).click()", f"{figure} [data-all='']")
    browser.wait(f"{marks.format(figure)} === 0")
    assert browser.errors() == []


def rows_of(name: str) -> pd.DataFrame:
    """Returns the rows behind a line of the leaderboard, such as `demo` or `convergence (train tokens 768000)`."""
    folder, _, tokens = name.partition(" (train tokens ")
    rows = read_rows(PUBLISHED / folder / "rows.parquet")
    return rows[rows["train_tokens"] == int(tokens.rstrip(")"))] if tokens else rows


def test_the_published_results(browser: Browser, tmp_path: Path) -> None:
    """Fifty numbers are those of their rows, links open their section, and nothing is wider than a phone."""
    out = tmp_path / "report.html"
    assert (
        write_html(find_experiments(PUBLISHED), out, no_figures, described, PUBLISHED / "properties") < BYTES
    )
    browser.open(out, "#scheme-fox")
    assert browser.run("return document.getElementById('scheme-fox').open")
    top = browser.run("return document.getElementById('scheme-fox').getBoundingClientRect().top")
    assert -5 < top < 600
    picture = "return document.querySelector('#scheme-fox img')"
    assert browser.run(f"{picture}.alt").startswith("Layer 1 of 4: Logit of query i")

    browser.choose("#filter-experiment", "")
    cells = browser.run(
        """const table = document.querySelector('#leaderboard-table');
        const heads = [...table.tHead.rows[0].cells].map(cell => cell.innerText.trim().replace(/\\s+/g, ' '));
        return [...table.tBodies[0].rows].flatMap(row => [...row.cells].slice(3, -1).map((cell, place) =>
            [row.cells[2].innerText, row.cells[0].innerText, heads[place + 3], cell.dataset.order, cell.innerText]))"""
    )
    measured = [cell for cell in cells if cell[2].startswith(("Loss", "Retrieval")) and cell[3]]
    assert len(measured) > 300
    sample = random.Random(0).sample(measured, 50)
    rows = {name: rows_of(name) for name in {cell[0] for cell in sample}}
    for experiment, series, head, value, text in sample:
        expected = from_rows(rows[experiment], series, head)
        assert float(value) == pytest.approx(expected, rel=1e-9), (experiment, series, head)
        assert text.split()[0] == f"{expected:.2f}"

    data = json.loads(browser.run("return document.getElementById('chart-data').textContent"))
    points = data["points"]["demo/perplexity-fixed_targets-bits_per_byte"]
    table = pd.read_csv(PUBLISHED / "demo" / "tables" / "perplexity-fixed_targets-bits_per_byte.csv")
    place = points["columns"].index("y")
    drawn = sorted(row[place] for row in points["rows"])
    assert drawn == pytest.approx(sorted(table["estimate"].dropna()), rel=1e-5)

    # In the dark, the leaderboard once had the white of its library behind a light text.
    for scheme, dark in (("dark", True), ("light", False)):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        ink, paper = browser.run(COLOURS)
        assert (ink > paper) == dark
        assert abs(ink - paper) > 500

    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    assert browser.errors() == []


def no_figures(group: str, name: str) -> dict[str, Any]:
    return {}


def from_rows(rows: pd.DataFrame, series: str, head: str) -> float:
    """A number of the leaderboard, from the rows alone."""
    scheme, _, extension = series.partition(" + ")
    multiple = int(head.rpartition(" ")[2].rstrip("×"))
    chosen = rows[(rows["scheme"] == scheme) & (rows["extension"] == (extension or "none"))]
    chosen = chosen[chosen["eval_len"] == multiple * chosen["train_len"]]
    if head.startswith("Loss"):
        chosen = chosen[chosen["protocol"] == "fixed_targets"]
        sums = chosen.groupby("metric")["value_sum"].sum()
        return sums["nll"] / sums["bytes"] / math.log(2)
    chosen = chosen[
        (chosen["task"] == "key_value") & (chosen["variant"] == "") & (chosen["metric"] == "exact_match")
    ]
    return chosen["value_sum"].sum() / chosen["n"].sum()
