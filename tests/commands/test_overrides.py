"""Fault: Hydra changed texts of the command line: results_dir=2024_10_01 became 20241001, `~` became a folder."""

import os
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from posbench.config import hydra_app
from posbench.config.overrides import expand_home, quote_texts, with_quotes
from posbench.config.schema import RuntimeSettings, SweepScript


def parsed(argument: str, *others: str) -> object:
    return OverridesParser.create().parse_override(quote_texts(SweepScript, [argument, *others])[0]).value()


@pytest.mark.parametrize(
    "text",
    [
        "2024_10_01",
        "1e3",
        "0x10",
        "007",
        "true",
        "nan",
        "~",
        "/x/epoch=3",
        "a b",
        "it's",
        'say "x"',
        "a\\",
        "\\'",
        "/x/[1]{2}",
        "a,b",
        "(1)",
        "",
        " ",
        "x: y",
        "$HOME",
        "# no comment",
        "/x/\udcff",
    ],
)
def test_a_text_keeps_its_spelling(text: str) -> None:
    for key in ("runtime.results_dir", "data.path", "++name", "+data.paths.train"):
        assert parsed(f"{key}={text}") == text
    if text.strip() == text and text and not set(text) & set(",[]'\"\\"):
        assert parsed(f"figures=[{text}, x]") == [text, "x"]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("data.path='/x/a b'", "/x/a b"),
        ('data.path="/x/a b"', "/x/a b"),
        ("grid.seed=[0,1]", [0, 1]),
        ("train.lr=1e-3", 1e-3),
        ("grid.scheme=['a,b', c]", ["a,b", "c"]),
        ("grid.scheme=[]", []),
    ],
)
def test_other_values_are_read_by_hydra(argument: str, value: object) -> None:
    assert parsed(argument) == value


def test_entries_of_a_dictionary_need_no_plus() -> None:
    """Fault: 'runtime.slurm.sbatch={qos: low}', as docs/cluster.md has it, was refused: "is not set here"."""
    for one in ("runtime.slurm.sbatch={qos: low}", "data.paths={train: a}", "grid.train={steps: [1]}"):
        assert quote_texts(SweepScript, [one, f"+{one}"]) == [f"++{one}", f"+{one}"]


def test_a_multirun_has_several_values() -> None:
    arguments = ["--multirun", "train.optimizer=adamw,muon", "data.path=1_0"]
    assert quote_texts(SweepScript, arguments) == [arguments[1], "data.path='1_0'", "--multirun"]


@pytest.mark.parametrize(
    "override",
    [
        "data.paths={train: /x/epoch=3, test: /y}",
        "data.paths={train:/x/a=3}",
        "+x=/x/a=3",
        "+x=a=b c",
        "x=[a=b,'c=d']",
    ],
)
def test_the_quotes_of_the_hint_work(override: str) -> None:
    (word,) = shlex.split(with_quotes(override))
    OverridesParser.create().parse_override(word)


def test_a_home_folder_is_expanded_in_every_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    script = SweepScript(runtime=RuntimeSettings(results_dir="~/res"), name="~x")
    script.data.paths["train"] = "~/a.txt"
    script.overrides.scheme["x"] = {"path": ["~/b"]}
    found = expand_home(script)
    assert (found.runtime.results_dir, found.name) == (f"{tmp_path}/res", "~x")
    assert (found.data.paths["train"], found.overrides.scheme["x"]["path"]) == (
        f"{tmp_path}/a.txt",
        [f"{tmp_path}/b"],
    )
    monkeypatch.delenv("HOME")
    assert os.path.isabs(expand_home("~/res"))


def test_settings_are_composed_once(posbench, monkeypatch, tmp_path) -> None:
    """Fault: Hydra composed all settings twice, the first time to read hydra.mode alone: half of a mistake's answer."""
    monkeypatch.chdir(tmp_path)
    composed = []
    load = hydra_app.SafeLoader.load_configuration
    monkeypatch.setattr(
        hydra_app.SafeLoader,
        "load_configuration",
        lambda *args, **settings: composed.append(args) or load(*args, **settings),
    )
    assert posbench("train", "train.lr=nan")[0] == 2
    assert len(composed) == 1
    for multirun in ("--multirun", "hydra.mode=MULTIRUN"):
        lines = posbench("train", multirun, "train.lr=0,-1")[2].splitlines()
        assert [line.split(":")[0] + line.split(":")[1] for line in lines] == [
            "error train.lr 0.0",
            "error train.lr -1.0",
        ]
