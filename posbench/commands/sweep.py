"""Runs an experiment: trains every model of a grid, evaluates each, and writes rows, tables and figures.

Everything goes to results/NAME, whose tables and figures are replaced; name=mine writes to results/mine. What is
finished is not computed again: the same command continues an interrupted sweep, and two sweeps on one results folder
share the work.

most used settings:
  experiment=demo                      what to run (posbench list experiments); by default extrapolation
  'grid.scheme=[rope,alibi]'           schemes to train (posbench list schemes)
  'grid.extension=[pi,yarn]'           extensions to try on the trained models (posbench list extensions)
  'grid.seed=[0,1,2]'                  one training per scheme and seed
  name=mine                            folder under results/; by default the experiment's name
  runtime.results_dir=results/mine     where everything is written

examples:
  posbench sweep experiment=demo
  posbench sweep experiment=demo name=short 'grid.scheme=[rope,alibi]' train.seq_len=32
  posbench sweep experiment=demo 'grid.seed=[0,1,2]' size=small runtime.results_dir=results/small
  posbench sweep experiment=demo overrides.scheme.rope.rope_theta=10000
  posbench sweep experiment=demo '+evaluate.sliding.length_multiples=[1,2,4]' +evaluate.sliding.settings.stride=16
  posbench sweep experiment=extrapolation runtime.workers_per_gpu=4 runtime.max_minutes=55
  posbench sweep experiment=extrapolation runtime=slurm runtime.wait=false

With --dry-run the jobs are listed with their tokens, their operations and whether they are done. Nothing is trained or
evaluated; a missing corpus is built.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from posbench.commands import checks, settings_command
from posbench.config.schema import SweepScript
from posbench.config.train import synthetic_sequences
from posbench.errors import ConfigError
from posbench.runtime import torchrun
from posbench.sweep import launch_local

DRY_RUN = "--dry-run"
MULTIRUN = {"--multirun", "-m", "hydra.mode=MULTIRUN"}
JOB = "hydra:job.num"  # number of a run of --multirun


def main(arguments: Sequence[str]) -> int:
    rest = [argument for argument in arguments if argument != DRY_RUN]
    check_multirun(rest)
    own = partial(run, dry_run=DRY_RUN in arguments, options=config_folder(rest))
    return settings_command.main("sweep", __doc__, own, rest)


def check_multirun(arguments: Sequence[str]) -> None:
    """Raises ConfigError for runs of --multirun that would replace each other's tables and figures."""
    if MULTIRUN.isdisjoint(arguments):
        return
    from posbench.config.hydra_app import is_sweep

    given = dict(one.lstrip("+").partition("=")[::2] for one in arguments)
    folder = given.get("name", "") + given.get("runtime.results_dir", "")
    # Runs that differ in one of these write to different folders.
    own = {"name", "runtime.results_dir"} if "name" in given else {"experiment", "runtime.results_dir"}
    for key, value in given.items():
        in_folder = re.search(rf"\$\{{[^}}]*\b({re.escape(key)}|{JOB})\b", folder)
        if key in own or in_folder or not is_sweep(f"{key}={value}"):
            continue
        is_name = key != "experiment" and value[:1] not in ("[", "{", "'", '"')
        chosen = JOB if not is_name else key if "." in key else f"{key}.name"
        raise ConfigError(
            f"--multirun with {key}={value} writes every run to one folder, in place of the run before: add "
            f"'name=NAME-${{{chosen}}}', or give the values as a list of grid"
        )


def config_folder(arguments: Sequence[str]) -> list[str]:
    """Returns the option --config-dir and its folder, as it was given, or nothing."""
    found: list[str] = []
    for index, one in enumerate(arguments):
        option, equals, value = one.partition("=")
        if option in ("--config-dir", "-cd"):
            found = ["--config-dir", *([value] if equals else arguments[index + 1 : index + 2])]
    return found


def run(script: SweepScript, dry_run: bool = False, options: Sequence[str] = ()) -> None:
    """Plans, trains, evaluates, tabulates and draws.

    Args:
        options: of the command line, to be stored with its settings.
    """
    from posbench.config.hydra_app import given_keys, given_overrides, load_option

    checks.check_sweep(script, load_option, given_keys())
    from posbench.plan.labels import with_distinct_labels
    from posbench.plan.plan import plan_sweep

    if script.runtime.launcher == "local" and torchrun.world_size() == 1 and not dry_run:
        launch_local.warm_up()
    from posbench.evaluation.results_folder import ResultsFolder
    from posbench.plan.lr_selection import select_learning_rates
    from posbench.report import experiment
    from posbench.runtime.distributed import world
    from posbench.sweep.run import check_runtime, run_plan
    from posbench.tracking.report import checkpoint_name, log_report

    check_runtime(script.runtime)  # before a corpus is built
    plan = world().from_main(lambda: plan_sweep(script, load_option, Path(script.runtime.cache_dir)))
    note, selects_rate = "", bool(script.grid.lr)
    plan = plan if selects_rate else with_distinct_labels(plan)
    summary = run_plan(plan, script.runtime, script.name, selects_rate=selects_rate, dry_run=dry_run)
    # Tables and figures of an unfinished experiment would look like those of a finished one.
    if summary.n_remaining or dry_run or not world().is_main_process:
        return
    results_folder = ResultsFolder.from_runtime(script.runtime)
    if selects_rate:
        plan, note = select_learning_rates(plan, results_folder.path / "models")
        print(note)
        plan = with_distinct_labels(plan)
    note = " ".join(filter(None, [note, training_note(script)]))
    folder = results_folder.path / script.name
    order = list(dict.fromkeys(model.settings.scheme.name for model in plan.models))
    rows = results_folder.collect(plan.cells)
    # Settings of this machine change no number; kernels differ by rounding.
    own = [
        one
        for one in given_overrides()
        if not one.startswith("runtime.") or one.startswith("runtime.kernel=")
    ]
    experiment.save_experiment(
        folder, rows, order, script.figures, note, ["posbench", "sweep", *own, *options]
    )
    drawn = experiment.draw_report(folder, load_option)
    if summary.n_completed:
        models = [checkpoint_name(model.id) for model in plan.models if model.pretrained is None]
        log_report(rows, drawn, models, script.name, asdict(script), script.runtime)
    print(f"{len(drawn)} tables and figures in {folder}/tables and {folder}/figures")


def training_note(script: SweepScript) -> str:
    """Returns what captions say of the trainings and cannot read from rows: synthetic sequences, settings, fine-tuning."""
    from posbench.report.tables.caption_text import ALL_SYNTHETIC, SYNTHETIC_KINDS, TUNED

    sentences = []
    train = script.train
    if train.synthetic_fraction > 0 and "synthetic_fraction" not in script.grid.train:
        kinds = script.grid.train.get("synthetic_task", [train.synthetic_task])
        share = synthetic_sequences(train.synthetic_fraction, train.batch_size) / train.batch_size
        share = train.synthetic_fraction if "batch_size" in script.grid.train else share
        kind = " or ".join(SYNTHETIC_KINDS.get(one, str(one).replace("_", " ")) for one in kinds)
        sentences.append(
            f"{ALL_SYNTHETIC} ({kind})."
            if train.synthetic_fraction == 1
            else f"{share:.0%} of the training sequences are synthetic ({kind}), the others text."
        )
    for scheme, settings in script.overrides.scheme.items():
        if scheme in script.grid.scheme:
            changed = ", ".join(
                f"{key} {value:g}" for key, value in settings.items() if isinstance(value, float)
            )
            sentences += [f"{scheme}: {changed}."] if changed else []
    tuned = [
        f"{name} ({', '.join([tuning.extension or name, *_settings(tuning.settings), *_settings(tuning.train)])})"
        for name, tuning in script.finetune.items()
    ]
    sentences += [f"{TUNED} {', '.join(tuned)}."] if tuned else []
    return " ".join(sentences)


def _settings(settings: Mapping[str, Any]) -> list[str]:
    return [f"{key} {value}" for key, value in settings.items()]
