"""Answers that need no model: without the imports of one, and within a second."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "wandb", "pandas", "matplotlib", "scipy")
SECONDS = 2.0  # of CPU; one is the goal
CODE = """
import json, sys, time
from posbench.commands import run
try:
    status = run(sys.argv[1:])
except SystemExit as end:
    status = end.code
heavy = [name for name in %r if name in sys.modules]
print(json.dumps([status, time.process_time(), heavy, "hydra" in sys.modules]), file=sys.stderr)
"""


def answer(*arguments: str, cwd=None) -> tuple[int, float, list[str], bool]:
    """Status, CPU seconds, heavy modules that were imported, and whether Hydra was."""
    done = subprocess.run(
        [sys.executable, "-c", CODE % (HEAVY,), *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
    )
    return tuple(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["sweep", "--help"],
        ["benchmark", "--help"],
        ["list"],
        ["describe", "yarn"],
        ["completion", "bash"],
        ["gpu-check", "--help"],
        ["report", "--help"],
        ["status", "--help"],
        ["worker", "--help"],
    ],
    ids=" ".join,
)
def test_help_and_lists(arguments):
    status, seconds, heavy, hydra = answer(*arguments)
    assert (status, heavy, hydra) == (0, [], False)
    assert seconds < SECONDS


@pytest.mark.parametrize(
    "arguments",
    [
        ["sweep", "experiment=dmo"],
        ["sweep", "grid.scheme=[rop]"],
        ["sweep", "experiment=demo", "grid.extension=[yarm]"],
        ["sweep", "experiment=demo", "grid.ensemble=[nbc]"],
        ["sweep", "experiment=demo", "figures=[fixed]"],
        ["sweep", "experiment=demo", "+evaluate.key_valu.length_multiples=[1]"],
        ["sweep", "experiment=demo", "+overrides.scheme.rop.rope_theta=3"],
        ["sweep", "experiment=demo", "+overrides.scheme.rope.rope_thta=3"],
        ["sweep", "experiment=demo", "+evaluate.key_value.settings.num_context=3"],
        ["sweep", "experiment=demo", "grid.extended_schemes=[rop]"],
        ["sweep", "size=tiy"],
        ["sweep", "data=source"],
        ["sweep", "train.lenght=3"],
        ["sweep", "train.steps=many"],
        ["sweep", "train.optimizer=sgd"],
        ["sweep", "+grid.train.lrr=[1]"],
        ["train", "scheme=rop"],
        ["search", "search.parents=99"],
        ["train", "+scheme.build.rope_thta=3"],
        ["evaluate", "task=key_valu"],
        ["evaluate", "extension=yarm"],
        ["evaluate", "lm.kind=x"],
        ["evaluate", "extension=yarn", "ensemble=nbce"],
        ["properties", "schemes=[rop]"],
        ["figures", "experiments=[none]"],
        ["figures"],
        ["report"],
        ["reproductions", "results_dir=none"],
        ["benchmark", "--only", "schemes", "--scheme", "rop"],
        ["gpu-check", "--only", "rop"],
    ],
    ids=" ".join,
)
def test_mistakes(arguments, tmp_path):
    status, seconds, heavy, _ = answer(*arguments, cwd=tmp_path)
    assert (status, heavy) == (2, [])
    assert seconds < SECONDS
