"""Evaluations that cannot be measured are named, and take no others with them."""

import pytest

from posbench.errors import IncompatibleError, LengthError
from posbench.tasks.non_overlapping import NonOverlapping

MINIATURE = (
    *("experiment=miniature", "runtime.launcher=inline", "grid.scheme=[rope]", "grid.extension=[]"),
    *("~evaluate", "figures=[]", "train.steps=2"),
)
FIXED = "+evaluate.fixed_targets={lengths: [16]}"
WINDOWS = "+evaluate.non_overlapping={lengths: [16]}"


def test_a_task_that_no_model_can_do_is_an_error(script):
    """Fault: a forgotten train.synthetic_task left out the evaluation without a line."""
    result = script("sweep", *MINIATURE, "+evaluate.mqar={lengths: [64]}", "--dry-run")
    assert result.code == 2
    assert (
        "nothing can be measured: evaluate.mqar: task mqar needs a model of train.synthetic_task=mqar"
        in result.err
    )
    result = script("sweep", *MINIATURE, FIXED, "+evaluate.mqar={lengths: [64]}", "--dry-run")
    assert result.code == 0
    assert "left out: evaluate.mqar: task mqar needs a model of train.synthetic_task=mqar" in result.out
    assert "1 cells" in result.out


@pytest.mark.parametrize("order", [(FIXED, WINDOWS), (WINDOWS, FIXED)])
def test_a_task_that_is_not_possible_leaves_out_no_other(script, monkeypatch, order):
    """Fault: all evaluations after it were left out, and the line named the extension "none"."""

    def refuse(*arguments):
        raise IncompatibleError("this task samples its answers")

    monkeypatch.setattr(NonOverlapping, "prompts", refuse)
    result = script("sweep", *MINIATURE, *order, "--dry-run")
    assert result.code == 0
    assert "left out: evaluate.non_overlapping: this task samples its answers" in result.out
    assert "1 cells" in result.out


def test_a_length_that_is_not_possible_leaves_other_cells_measured(script, monkeypatch, tmp_path):
    """Fault: the job ended at the first such cell, the same command ended there again, and there were no rows at all."""
    prompts = NonOverlapping.prompts

    def refuse_later(self, *arguments):
        yield next(prompts(self, *arguments))
        raise LengthError("the second prompt is too long")

    monkeypatch.setattr(NonOverlapping, "prompts", refuse_later)
    result = script("sweep", *MINIATURE, WINDOWS, FIXED)
    assert result.code == 2
    assert "the second prompt is too long" in result.err
    assert len(list((tmp_path / "results" / "cells").glob("*.parquet"))) == 1
    monkeypatch.setattr(NonOverlapping, "check_all_prompts", True)
    result = script("sweep", *MINIATURE, WINDOWS, FIXED, "--dry-run")
    assert (result.code, "too long" in result.err) == (2, True)
