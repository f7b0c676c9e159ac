"""Claims of papers: their own numbers agree with them, and are of the condition that is measured."""

import math
from pathlib import Path

import pytest
import yaml

import posbench
from posbench.errors import ConfigError
from posbench.report.reproductions.claims import Claim
from posbench.report.reproductions.published import find, number

CONFIGS = Path(posbench.__file__).parents[1] / "configs"
CLAIMS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CONFIGS / "claim").glob("*.yaml"))}


@pytest.mark.parametrize("name", CLAIMS)
def test_the_papers_own_numbers_agree_with_the_claim(name):
    one = Claim.from_config(name, CLAIMS[name])
    assert one.name == name
    for effect in one.effects:
        low, high = effect.allowed
        assert all(low <= paper.number <= high for paper in effect.published), one.label(effect)
    for experiment in one.experiments[-1:]:
        assert (CONFIGS / "experiment" / f"{experiment}.yaml").is_file()


def test_published_numbers_are_of_the_condition_that_is_measured():
    """Copying random symbols stood beside a paper's counting of one symbol, YaRN of one table beside NTK of another."""
    copies = Claim.from_config("nope_copies", CLAIMS["nope_copies"])
    assert {row["dataset"] for one in copies.effects for paper in one.published for _, row in paper.rows} == {
        "copy cmc"
    }
    order = Claim.from_config("extension_order", CLAIMS["extension_order"])
    differences = [one.published[0].number for one in order.effects]
    assert differences == pytest.approx([0.4220 - 0.2316, 0.4745 - 0.4220, 0.4782 - 0.4745])


@pytest.mark.parametrize("name", ["alibi_flat", "rope_breaks", "sinusoidal_worst"])
def test_losses_of_windows_are_compared_with_those_of_windows(name):
    """Fault: our loss was on fixed targets, the paper's on non-overlapping windows, and the page did not say so."""
    one = Claim.from_config(name, CLAIMS[name])
    protocols = {
        row["protocol"] for effect in one.effects for paper in effect.published for _, row in paper.rows
    }
    assert protocols == {"non-overlapping"}
    assert one.select["protocol"] == "non_overlapping"
    assert "non-overlapping windows" in one.note


def test_published_numbers():
    assert number(find({"source": "KERPLE", "scheme": "alibi", "eval_len": 512})) == pytest.approx(
        math.log(23.9)
    )
    line = {"source": "Su", "scheme": "rope", "protocol": "1024"}
    with pytest.raises(
        ConfigError, match=r"^published\.csv has 0 lines with source Su, scheme rope, protocol 1024"
    ):
        find(line)
    with pytest.raises(ConfigError, match=r"^unknown column of published\.csv"):
        find({"paper": "Su"})
