"""Settings of every command, drawn at random: no traceback, no hang, and nothing that is accepted without an effect.

The commands run up to the point where work would start. POSBENCH_EXAMPLES sets the number of drawn command lines.
"""

import os
import random
import signal
import time
from dataclasses import asdict
from operator import attrgetter

import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import posbench.properties.report
import posbench.sweep.run
from posbench.commands import run
from posbench.config import hydra_app
from posbench.config.keys import SCHEMAS, kind_and_rule, typed_keys
from posbench.evaluation.results_folder import ResultsFolder
from posbench.sweep.run import SweepSummary, check_runtime

EXAMPLES = int(os.environ.get("POSBENCH_EXAMPLES", "60"))
SECONDS = 10  # of the CPU, because this machine can be busy
WAIT_SECONDS = 200  # for what waits, as for a pipe
SMALL = ("size.n_layers=1", "size.d_model=16", "size.n_heads=2", "train.seq_len=16")
COMMANDS = {
    "train": SMALL,
    "evaluate": (*SMALL, "task=key_value"),
    "sweep": ("experiment=miniature", "grid.extension=[pi]", "grid.scheme=[rope]", "figures=[fixed_targets]"),
    "figures": (),
    "properties": ("schemes=[rope]",),
    "report": (),
    "reproductions": (),
}
READERS = ("figures", "report", "reproductions")  # of rows, of which there are none here
# Endings of settings that are not drawn; another kind of tokenizer is trained on the corpus.
LEFT_OUT = ("_dir", "fingerprint", "launcher", "tokenizer.kind")
# Settings of dictionaries that the schemas leave open.
OPEN_KEYS = {
    "train": ["scheme.build.rope_theta", "scheme.build.interleaved", "+scheme.build.unknown"],
    "evaluate": [
        "task.build.num_contexts",
        "task.build.query_aware",
        "+evaluation.settings.num_contexts",
        "+lm.rope_scaling.factor",
        "+extension.build.factor",
    ],
    "sweep": [
        *(f"+grid.train.{key}" for key in ("steps", "seed", "lr", "batch_size", "optimizer", "unknown")),
        *(f"+overrides.scheme.{key}" for key in ("rope", "rop", "alibi", "t5.num_buckets", "rope.unknown")),
        *(f"+overrides.extension.{key}" for key in ("pi", "pi.factor", "yarn.beta_fast")),
        *(f"+variants.{key}" for key in ("pi", "mine", "mine.extension", "pi.settings")),
        *(f"+finetune.{key}" for key in ("pi", "pi.train", "mine.train.steps")),
        *(
            f"evaluate.{key}"
            for key in ("key_value", "key_value.settings", "prefix.lengths", "attention.seed")
        ),
        *(f"evaluate.key_value.settings.{key}" for key in ("num_contexts", "+query_aware")),
        *(
            f"+evaluate.{key}"
            for key in ("mine", "copy.task", "passkey.lengths", "key_value_uuid.settings.num_keys")
        ),
        "overrides.scheme.rope.rope_theta",
        "~evaluate",
        "~grid",
    ],
    "figures": ["+unknown"],
    "properties": ["+unknown"],
    "report": ["+unknown"],
    "reproductions": ["+unknown"],
}
NUMBERS = [
    "0",
    "1",
    "2",
    "3",
    "-1",
    "7",
    "1000000",
    "1000000000000",
    "100000000000000000000",
    "1.5",
    "-0.5",
    "1e308",
]
OTHERS = [
    "nan",
    "inf",
    "-inf",
    "null",
    "true",
    "false",
    "''",
    "many",
    "auto",
    "rope",
    "pi",
    "bfloat16",
    "cuda:99",
    "meta",
    "'../up'",
    "'ä €'",
    "???",
    "'${nothing}'",
]
SCALARS = st.sampled_from([*NUMBERS, *OTHERS]) | st.integers().map(str) | st.floats().map(str)
LISTS = st.lists(SCALARS, max_size=3).map(lambda values: f"[{','.join(values)}]")
DICTIONARIES = st.dictionaries(
    st.sampled_from(["steps", "lr", "extension", "train", "factor", "unknown", "task", "lengths"]),
    SCALARS,
    max_size=2,
).map(lambda values: "{" + ",".join(f"{key}: {value}" for key, value in values.items()) + "}")


@st.composite
def command_lines(draw):
    """A command and one override or two."""
    command = draw(st.sampled_from([*COMMANDS, "sweep", "sweep"]))
    keys = [*typed_keys(SCHEMAS[command]), *OPEN_KEYS[command]]
    keys = [key for key in keys if not key.endswith(LEFT_OUT)]
    overrides = []
    for key in draw(st.lists(st.sampled_from(keys), min_size=1, max_size=2, unique=True)):
        value = draw(st.one_of(SCALARS, SCALARS, LISTS, DICTIONARIES))
        plus = "+" if "+" in key else ""
        overrides.append(key if key.startswith("~") else f"{plus}{key.replace('+', '')}={value}")
    return command, overrides


def changed_lines(usual):
    """Some command lines with one setting that has another value of its type, many of which are allowed."""
    found = []
    for command, composed in usual.items():
        for key in typed_keys(SCHEMAS[command]):
            value, rule = attrgetter(key)(composed), kind_and_rule(SCHEMAS[command], key)[1]
            if rule.choices:
                value = next(one for one in rule.choices if one != value)
            elif isinstance(value, bool):
                value = not value
            elif isinstance(value, int | float):
                value += 1 if isinstance(value, int) else value / 2
            else:
                continue
            found += [] if key.endswith(LEFT_OUT) else [(command, [f"{key}={value}"])]
    return random.Random(0).sample(found, min(len(found), EXAMPLES // 4))


def effective(command, runtime):
    """The settings of runtime that change something with launcher local, tracker wandb and no GPU."""
    found = asdict(runtime)
    for key in ("slurm", "ray", "wait", "workers_per_gpu"):
        del found[key]
    if runtime.tracker != "wandb":
        del found["wandb_mode"]
        if runtime.tracker != "trackio":
            del found["wandb_project"]
    unused = {
        "train": ("max_tokens_per_batch", "num_workers"),
        "evaluate": ("compile", "checkpoint_minutes", "checkpoint_interval", "num_workers"),
    }
    return {key: value for key, value in found.items() if key not in unused.get(command, ())}


class Planned:
    """Stands for the start of the work: keeps what would be done."""

    def __init__(self) -> None:
        self.work = None

    def run_plan(self, plan, runtime, experiment, **_):
        check_runtime(runtime)
        models = [(model.id, repr(model.settings)) for model in plan.all_models]
        self.work = repr(
            [
                models,
                [(cell.id, repr(cell.task)) for cell in plan.cells],
                effective(experiment, runtime),
                experiment,
            ]
        )
        return SweepSummary(0, 1)

    def write(self, builds, folder, command, costs, extensions=None):
        self.work = repr([builds, costs, extensions])
        return []


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder of tokenized corpora."""
    return tmp_path_factory.mktemp("cache")


class NoAnswer(BaseException):
    """Raised in a command that takes too long. posbench reports an OSError, such as TimeoutError, as an error of the disk."""


def too_long(*_):
    raise NoAnswer(f"no answer within {SECONDS} s of the CPU or {WAIT_SECONDS} s")


def test_drawn_settings(monkeypatch, capsys, tmp_path, cache):
    """One setting in three with a value without sense was a traceback, a hang, or accepted in silence."""
    planned = Planned()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["posbench"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(posbench.sweep.run, "run_plan", planned.run_plan)
    monkeypatch.setattr(posbench.properties.report, "write", planned.write)
    monkeypatch.setattr(ResultsFolder, "is_trained", lambda self, model: True)
    composed = []
    to_settings = hydra_app.to_settings
    monkeypatch.setattr(
        hydra_app, "to_settings", lambda *args: composed.append(to_settings(*args)) or composed[-1]
    )
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, too_long)

    def call(command, overrides):
        GlobalHydra.instance().clear()
        planned.work = None
        where = [f"runtime.cache_dir={cache}"] if command in ("train", "evaluate", "sweep") else []
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(WAIT_SECONDS)
        try:
            status = run([command, *COMMANDS[command], *where, *overrides])
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
        lines = [
            line
            for line in capsys.readouterr().err.splitlines()
            if "corpus" not in line and " tokens in " not in line
        ]
        return status, lines, planned.work

    usual, usual_settings = {}, {}
    for command in COMMANDS:
        status, lines, usual[command] = call(command, [])
        if command not in READERS:
            assert (status, usual[command] is None) == (0, False), f"posbench {command}: {lines}"
        usual_settings[command] = composed[-1]
    counts, seconds = {"accepted": 0, "refused": 0, "compared": 0}, []

    def check(command, overrides):
        started = time.process_time()
        status, lines, work = call(command, overrides)
        seconds.append(time.process_time() - started)
        line = f"posbench {command} {' '.join(overrides)}: {status} {lines}"
        counts["accepted" if status == 0 else "refused"] += 1
        if status:
            assert status == 2, line
            assert len(lines) == 1, line
        elif (
            command not in READERS
            and composed[-1] != usual_settings[command]
            and len(overrides) == 1
            and not only_labels(overrides[0])
        ):
            counts["compared"] += 1
            assert work != usual[command], f"{line}: accepted without an effect"

    @seed(0)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(command_lines())
    def check_drawn(drawn):
        check(*drawn)

    check_drawn()
    # Nearly all of those are refused, so that whether what is accepted has an effect shows on these.
    for one in changed_lines(usual_settings):
        check(*one)
    with capsys.disabled():
        print(f"\n{counts}, slowest {max(seconds):.1f} s of the CPU")
    assert all(counts.values()), counts


def only_labels(override):
    """Returns whether an override changes nothing but names of tables, which no plan has."""
    return override.partition("=")[0].endswith(("name", "figures"))
