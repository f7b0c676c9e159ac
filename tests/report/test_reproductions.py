"""Claims of papers beside rows: each verdict on synthetic rows, and the claims and published numbers of the repository."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic_rows import synthetic_rows

import posbench
from posbench.errors import ConfigError
from posbench.report.reproductions import claims, page
from posbench.report.reproductions.claims import Claim, term_label
from posbench.report.tables.identities import report_rows
from posbench.report.tables.metrics import get_metric
from posbench.report.tables.selection import propagate_gate
from posbench.report.tables.summary import aggregate
from posbench.results.rows import write_rows
from posbench.results.statistics import interval

CONFIGS = Path(posbench.__file__).parents[1] / "configs"
CLAIMS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CONFIGS / "claim").glob("*.yaml"))}
SELECT = {"task": "perplexity", "protocol": "fixed_targets"}


@pytest.fixture(scope="module")
def three_seeds():
    return propagate_gate(report_rows(synthetic_rows(seeds=3, documents=16, contexts=8)))


def claim(*effects, **settings) -> Claim:
    content = {
        "name": "test",
        "claim": "A claim",
        "experiments": ["demo"],
        "select": SELECT,
        "effects": effects,
    }
    return Claim.from_config("test", content | settings)


def break_of(scheme="rope", **limits):
    one, far = ({"scheme": scheme, "length_multiple": multiple} for multiple in (1, 8))
    return {"plus": [far], "minus": [one], **limits}


def test_an_effect_is_the_difference_of_the_numbers_of_tables(three_seeds):
    decided = page.decide(claim(break_of(at_least=0.05)), lambda name: three_seeds)
    numbers = aggregate(three_seeds[three_seeds["protocol"] == "fixed_targets"], get_metric("bits_per_byte"))
    numbers = numbers.set_index(["scheme", "extension", "eval_len"])["estimate"]
    expected = (numbers["rope", "none", 512] - numbers["rope", "none", 64]) * math.log(2)
    (found,) = decided.found
    assert found.interval.estimate == pytest.approx(expected)
    assert (found.seeds, found.interval.method) == (3, "95% two-level t over 3 seeds")
    assert (decided.verdict, decided.experiment) == ("reproduced", "demo")


@pytest.mark.parametrize(
    ("effects", "settings", "verdict"),
    [
        ([break_of(at_least=0.05)], {}, "reproduced"),
        ([break_of(at_most=0.05)], {}, "contradicted"),
        ([break_of(at_least=0.05), break_of("alibi", at_least=0.05)], {}, "contradicted"),
        ([break_of(at_least=0.05), break_of("alibi", at_least=0.05)], {"need": "any"}, "reproduced"),
        ([break_of("alibi", at_least=0.012)], {}, "undecided"),  # inside the interval
        ([break_of("nobody", at_least=0)], {}, "not measured"),
        ([break_of("learned", at_least=0)], {}, "undecided"),  # undefined at longer lengths
        ([], {"not_comparable": "no such training"}, "not comparable"),
    ],
)
def test_verdicts(three_seeds, effects, settings, verdict):
    assert page.decide(claim(*effects, **settings), lambda name: three_seeds).verdict == verdict
    if verdict != "not comparable":
        assert page.decide(claim(*effects, **settings), lambda name: None).verdict == "not measured"


def test_a_claim_without_a_number_of_a_paper_says_so(three_seeds):
    """Fault: "reproduced" stood beside claims of which no paper has a number."""
    decided = page.decide(claim(break_of(at_least=0.05)), lambda name: three_seeds)
    text = page.markdown([decided], Path("results"))
    assert "**reproduced (no published number)**" in text


def test_lengths_of_length_generalization_are_numbers_of_symbols():
    """Fault: "at 202" meant inputs of 51 to 100 symbols, which are not 202 tokens under every rule."""
    term = {"scheme": "nope", "eval_len": 202, "task": "length_generalization"}
    assert term_label(term) == "nope at up to 100 symbols"
    assert term_label(term | {"task": "mqar"}) == "nope at 202 tokens"


def test_one_seed_decides_nothing(rows):
    """Rows of one seed have intervals over documents, which say nothing of other trainings."""
    decided = page.decide(claim(break_of(at_least=0.05)), lambda name: propagate_gate(report_rows(rows)))
    assert decided.verdict == "undecided"
    assert "undecided, 1 seed: 1 of 1 effects agree in these models" in page.markdown(
        [decided], Path("results")
    )


def test_an_unfinished_experiment_does_not_replace_a_finished_one(rows, three_seeds):
    """Fault: one seed of the leaderboard, which a claim prefers, made the three seeds of the demo undecided."""
    unfinished = propagate_gate(report_rows(rows))
    both = claim(break_of(at_least=0.05), experiments=["leaderboard", "demo"])
    decided = page.decide(both, {"leaderboard": unfinished, "demo": three_seeds}.get)
    assert (decided.verdict, decided.experiment) == ("reproduced", "demo")
    assert page.decide(both, {"leaderboard": unfinished}.get).experiment == "leaderboard"


def test_the_introduction_has_short_sentences(three_seeds):
    """Fault: a sentence of the introduction had five clauses."""
    text = page.markdown(
        [page.decide(claim(break_of(at_least=0.05)), lambda name: three_seeds)], Path("results")
    )
    introduction = text.partition("**Claims and verdicts**")[0]
    sentences = introduction.replace("\n", ". ").split(". ")
    assert max(len(sentence.split()) for sentence in sentences) <= 40
    assert "fewer than 3 training seeds" in introduction


def test_a_model_below_the_gate_has_no_number(three_seeds):
    effect = {"plus": [{"scheme": "nope", "length_multiple": 4}], "at_least": 0.5}
    below = claim(effect, select={"task": "key_value"}, metric="exact_match")
    decided = page.decide(below, lambda name: three_seeds)
    assert (decided.verdict, decided.found[0].reason) == ("undecided", "nope at 4×: not learned")
    assert decided.settled


def test_seeds_that_are_left_out_are_counted(three_seeds):
    """Fault: the page did not count seeds below the gate, and listed a command for a rerun that cannot help."""
    rows = three_seeds.assign(
        status=three_seeds["status"].mask(
            (three_seeds["scheme"] == "rope") & (three_seeds["train_seed"] == 2), "not_learned"
        )
    )
    effect = {"plus": [{"scheme": "rope", "length_multiple": 4}], "at_least": 0.0}
    decided = page.decide(
        claim(effect, select={"task": "key_value"}, metric="exact_match"), lambda name: rows
    )
    assert (decided.found[0].seeds, decided.found[0].left_out, decided.settled) == (2, 1, True)
    assert "| 2 (1 left out) |" in page.markdown([decided], Path("results"))


def test_models_of_two_sizes_are_not_one_number():
    """Rows of two sizes were added up by seed and document, and a verdict was given on their mean."""
    rows = synthetic_rows(seeds=3, documents=8, contexts=8)
    ids = {name: rows[name] + "-large" for name in ("cell_id", "model_id")}
    large = rows.assign(model_size="large", n_params=10**9, **ids)
    both = report_rows(pd.concat([rows, large], ignore_index=True))
    decided = page.decide(claim(break_of(at_least=0.05)), lambda name: both)
    assert (decided.verdict, decided.found[0].reason) == (
        "undecided",
        "rope at 8×: several models of one seed",
    )
    one = {"select": SELECT | {"model_size": "large"}}
    assert page.decide(claim(break_of(at_least=0.05), **one), lambda name: both).verdict == "reproduced"


def test_a_number_within_some_distance_of_the_papers(three_seeds):
    paper = {
        "select": {"source": "Huang et al.", "dataset": "sort", "scheme": "shifted_learned", "eval_len": 302}
    }
    paper["plus"] = [{"scheme": "shifted_learned"}]
    effect = {"plus": [{"scheme": "kerple_log", "length_multiple": 1}], "within": 0.2, "published": [paper]}
    near = claim(effect, select={"task": "key_value"}, metric="exact_match")
    assert page.decide(near, lambda name: three_seeds).verdict == "reproduced"


@pytest.mark.parametrize(
    "draw",
    [
        lambda generator, count: generator.choice([0.9225, 0.4195, 0.839, 0.8925, 0.9565], count),
        lambda generator, count: generator.choice([0.985, 0.9985, 0.999, 0.9995, 0.999], count),
        lambda generator, count: (generator.random(count) < 0.8).astype(float),
        lambda generator, count: generator.beta(8, 2, count),
        lambda generator, count: generator.normal(0.5, 0.1, count).clip(0, 1),
    ],
    ids=["sort", "majority", "all or nothing", "skewed", "normal"],
)
def test_an_exact_replication_is_seldom_contradicted(draw, monkeypatch):
    """Fault: a paper's mean of five seeds counted as exact; three more seeds of the same trainings could contradict it."""
    generator, times = np.random.default_rng(0), 2000
    paper = {
        "select": {"source": "Huang et al.", "dataset": "sort", "eval_len": 302},
        "plus": [{"scheme": "nope"}],
    }
    effect = claim(break_of(within=0.03, published=[paper]), metric="exact_match").effects[0]
    drawn = {}
    monkeypatch.setattr(claims, "seeds", lambda row: drawn["paper"])
    monkeypatch.setattr(claims, "number", lambda row: float(np.mean(drawn["paper"])))
    contradicted = 0
    for _ in range(times):
        drawn["paper"], ours = draw(generator, 5).tolist(), draw(generator, 3)
        found = interval(ours, np.ones(3), range(3), np.zeros(3))
        found = replace(found, low=max(found.low, 0), high=min(found.high, 1))
        contradicted += effect.judge(found) == claims.DISAGREES
    assert contradicted / times <= 0.05


def test_seeds_that_cannot_decide_are_said_to(three_seeds):
    """Fault: the paper's seeds spread from .53 to 1.00, wider than the range of .03, and the page did not say so."""
    paper = {
        "select": {"source": "Huang et al.", "dataset": "sort", "eval_len": 302},
        "plus": [{"scheme": "nope"}],
    }
    effect = {"plus": [{"scheme": "kerple_log", "length_multiple": 1}], "within": 0.03, "published": [paper]}
    decided = page.decide(
        claim(effect, select={"task": "key_value"}, metric="exact_match"), lambda name: three_seeds
    )
    text = page.markdown([decided], Path("results"))
    assert "| **undecided: the interval over 3 seeds is wider than the claimed range** |" in text
    assert "| 0.81 [0.53, 1.00] (Huang et al.: nope) |" in text


def test_the_interval_of_an_accuracy_ends_at_one(three_seeds):
    """Fault: an accuracy of .72 had the interval [.14, 1.30]."""
    chosen = three_seeds["task"] == "key_value"
    scores = three_seeds["value_sum"].where(~chosen, three_seeds["train_seed"] / 2.0 * three_seeds["n"])
    effect = {"plus": [{"scheme": "kerple_log", "length_multiple": 1}], "at_least": 0.9}
    near = claim(effect, select={"task": "key_value"}, metric="exact_match")
    (found,) = page.decide(near, lambda name: three_seeds.assign(value_sum=scores)).found
    assert (found.interval.low, found.interval.high) == (0, 1)


def test_the_page_names_numbers_commands_and_sources(three_seeds, tmp_path):
    (tmp_path / "demo").mkdir()
    write_rows(synthetic_rows(seeds=3, documents=16, contexts=8), tmp_path / "demo" / "rows.parquet")
    text, numbers = (path.read_text() for path in page.write(CLAIMS, tmp_path))
    assert "| 1.52 (KERPLE: 4096 − 512); 0.67 (ALiBi: 4512 − 512) |" in text
    assert "| demo | **reproduced** |" in text
    assert "posbench sweep experiment=convergence 'grid.seed=[0,1,2]'\n" in text
    assert "nan" not in text.lower()
    # The sources left out the protocol: the papers' perplexity is over windows, these rows are of fixed targets.
    assert "| OpenWebText2 | 512 | non-overlapping |" in text
    assert numbers.splitlines()[0].startswith("claim,effect,paper,estimate,low,high,interval_method")
    assert {"ALiBi, arXiv 2108.12409", "KERPLE, arXiv 2205.09921"} <= set(text.replace(" |", "|").split("| "))


def test_the_command_runs_without_torch(tmp_path):
    (tmp_path / "demo").mkdir()
    write_rows(synthetic_rows(seeds=1, documents=8, contexts=8), tmp_path / "demo" / "rows.parquet")
    code = (
        "import sys\nfrom posbench.commands import run\n"
        f"print(run(['reproductions', 'results_dir={tmp_path}']), 'torch' in sys.modules)\n"
        f"print(run(['reproductions', 'results_dir={tmp_path}/missing']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = [f"{tmp_path}/reproductions.{kind}" for kind in ("md", "csv")]
    assert done.stdout.splitlines() == [*names, "0 False", "2"]
    assert (
        done.stderr
        == f"error: no results folder {tmp_path}/missing: run posbench sweep experiment=demo first, or give results_dir=FOLDER\n"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"effects": [break_of()]}, "claim test: each effect needs at_least or at_most, or within and a"),
        ({"effects": [break_of(at_lest=0)]}, "unknown setting of claim test 'at_lest'"),
        ({"need": "some"}, "unknown need of claim test 'some'"),
        ({"effects": []}, "claim test: give experiments with effects, or the reason as not_comparable"),
        ({"claim": None, "clam": ""}, "unknown setting of claim test 'clam'"),
    ],
)
def test_a_wrong_claim_is_one_line(changes, message):
    content = {"name": "test", "claim": "A claim", "experiments": ["demo"], "effects": [break_of(at_least=0)]}
    with pytest.raises(ConfigError, match=f"^{message}[^\n]*$"):
        Claim.from_config("test", content | changes)
