"""No table and no figure has a number of two identities: models, evaluations, or settings of one task.

Models of two learning rates, an evaluation with another seed or dtype, and one task with two settings were once averaged
under one label, and a model that was named twice counted twice.
"""

import itertools
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import posbench
from posbench.config.schema import (
    DataSettings,
    ExtensionSettings,
    ModelSettings,
    SchemeSettings,
    SizeSettings,
    TaskSettings,
    TrainSettings,
)
from posbench.errors import ConfigError, DataError
from posbench.plan.cell import Cell, FineTuning, ModelPlan, Plan
from posbench.plan.finetune import finetune_settings
from posbench.plan.labels import with_distinct_labels
from posbench.report import figures
from posbench.report.figures import draw_from_data
from posbench.report.figures.figure_data import FigureData, MissingRowsError
from posbench.report.tables.identities import report_rows
from posbench.report.tables.layout import build_tables
from posbench.results.rows import read_rows, write_rows

ROOT = Path(posbench.__file__).parents[1]
ROPE = {"_target_": "posbench.schemes.rope.RoPE"}
ALIBI = {"_target_": "posbench.schemes.alibi.ALiBi"}
PI = {"_target_": "posbench.extensions.pi.PositionInterpolation"}
FIXED = {"_target_": "posbench.tasks.fixed_targets.FixedTargets", "max_context": 64, "num_examples": 2}
LABELS = ["scheme", "extension", "model_size", "corpus", "train_len", "train_tokens"]
LABELS += ["task", "protocol", "variant", "eval_len"]


def other(field: Any) -> Any:
    """Returns a value of a setting that is not its default."""
    if choices := field.metadata.get("rule") and field.metadata["rule"].choices:
        return next(choice for choice in choices if choice != field.default)
    if isinstance(field.default, bool | str) or field.default is None:
        return {True: False, False: True, None: 32}[field.default]
    return field.default / 2 if isinstance(field.default, float) and field.default else field.default + 1


TRAIN = {field.name: other(field) for field in fields(TrainSettings) if field.name != "seed"}
SIZE = {field.name: other(field) for field in fields(SizeSettings) if field.name != "name"}
# Every setting that changes a model or an evaluation, as (part, key, value).
CHANGES: list[tuple[str, str, Any]] = [
    *(("train", *item) for item in TRAIN.items()),
    *(("size", *item) for item in SIZE.items()),
    *(("finetune", key, value) for key, value in TRAIN.items() if key != "steps"),
    ("data", "num_keys", 40),
    ("data", "num_values", 8),
    ("scheme", "rope_theta", 500.0),
    ("scheme", "_target_", ALIBI["_target_"]),
    ("corpus", "fingerprint", "another text"),
    ("version", "scheme", 2),
    ("extension", "factor", 3.0),
    ("extension", "_target_", "posbench.extensions.ntk.NTK"),
    ("task", "num_examples", 3),
    ("cell", "seed", 1),
    ("cell", "dtype", "bfloat16"),
]


def cells(changes: tuple[tuple[str, str, Any], ...], seed: int) -> list[Cell]:
    """The cells of a model and its fine-tuned version with some settings changed, under labels that do not change."""
    changed: dict[str, dict[str, Any]] = {}
    for part, key, value in changes:
        changed.setdefault(part, {})[key] = value
    train = TrainSettings(**changed.get("train", {}), seed=seed)
    model = ModelPlan(
        ModelSettings(
            SchemeSettings("rope", {**ROPE, **changed.get("scheme", {})}),
            SizeSettings(**changed.get("size", {})),
            DataSettings(**changed.get("data", {})),
            train,
        ),
        changed.get("corpus", {}).get("fingerprint", "a text"),
        changed.get("version", {}).get("scheme", 1),
    )
    pi = ExtensionSettings("pi", {**PI, **changed.get("extension", {})})
    tuned = replace(pi, name="pi_tuned", finetune={"steps": 5, **changed.get("finetune", {})})
    fine_tuning = FineTuning(model, tuned, 1, finetune_settings(train, tuned))
    task = TaskSettings("fixed_targets", {**FIXED, **changed.get("task", {})})
    return [
        replace(Cell(of, extension, 1, task, 1, length, 0, "float32"), **changed.get("cell", {}))
        for of, extension in (
            (model, ExtensionSettings()),
            (model, pi),
            (replace(model, fine_tuning=fine_tuning), tuned),
        )
        for length in (64, 128)
    ]


def rows_of(cell: Cell) -> list[dict[str, Any]]:
    """Rows of a cell as an evaluation writes them: two documents of four tokens."""
    model = cell.model.settings
    tokens = model.train.steps * model.train.batch_size * model.train.seq_len
    columns = {
        **{
            "cell_id": cell.id,
            "model_id": cell.model.id,
            "scheme": model.scheme.name,
            "extension": cell.extension.name,
        },
        **{"model_size": model.size.name, "n_params": 1000, "train_len": model.train.seq_len},
        **{"train_tokens": tokens, "train_seed": model.train.seed, "corpus": model.data.name},
        **{"task": "perplexity", "variant": "", "protocol": "fixed_targets", "eval_len": cell.length},
        **{
            "eval_seed": cell.seed,
            "example": 0,
            "n": 4,
            "status": "ok",
            "kernel": "sdpa",
            "dtype": cell.dtype,
        },
    }
    return [
        {**columns, "doc_id": doc_id, "metric": metric, "unit": unit, "value_sum": 4.0}
        for doc_id in ("a", "b")
        for metric, unit in (("nll", "nats"), ("bytes", "bytes"))
    ]


def collected(plan: Plan, folder: Path) -> pd.DataFrame:
    """The rows of a plan, as a report reads them."""
    path = folder / "rows.parquet"
    write_rows(pd.DataFrame([row for cell in plan.cells for row in rows_of(cell)]), path)
    return read_rows(path, categorical=True)


def assert_nothing_is_pooled(rows: pd.DataFrame) -> None:
    """The labels of a report determine the cell of each seed, and every number counts the items of its seeds once."""
    shown = report_rows(rows)
    assert (shown.groupby([*LABELS, "train_seed"], observed=True)["cell_id"].nunique() == 1).all()
    for table in build_tables(rows):
        numbers = table.numbers
        if {"n", "seeds"} <= set(numbers):
            assert (numbers["n"] == 8 * numbers["seeds"]).all(), table.name


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: "-".join(map(str, change[:2])))
def test_two_values_of_a_setting_are_told_apart_or_refused(change, tmp_path):
    plan = Plan([], [cell for seed in (0, 1) for of in ((), (change,)) for cell in cells(of, seed)], [])
    plan = replace(plan, models=list({cell.model.id: cell.model for cell in plan.cells}.values()))
    # Without labels that tell them apart, the report refuses.
    own_setting = change[1] in ("seq_len", "steps", "batch_size")  # a figure of its own
    if len({cell.id for cell in plan.cells}) > len(plan.cells) // 2 and not own_setting:
        with pytest.raises(DataError, match=r"^[^\n]*would average: [^\n]*$"):
            report_rows(collected(plan, tmp_path))
    if change[0] in ("cell", "task", "extension", "finetune", "version"):
        with pytest.raises(ConfigError, match=r"^[^\n]*$"):
            with_distinct_labels(plan)
    else:
        assert_nothing_is_pooled(collected(with_distinct_labels(plan), tmp_path))


@settings(max_examples=10, deadline=None)
@given(
    st.lists(
        st.sampled_from([one for one in CHANGES if one[0] in ("train", "size", "scheme", "data")]),
        min_size=1,
        max_size=3,
        unique_by=lambda one: one[:2],
    )
)
def test_grids_of_several_settings_pool_nothing(tmp_path_factory, changes):
    subsets = [of for size in range(len(changes) + 1) for of in itertools.combinations(changes, size)]
    found = [cell for seed in (0, 1) for of in subsets for cell in cells(of, seed)]
    models = list({cell.model.id: cell.model for cell in found}.values())
    rows = collected(with_distinct_labels(Plan(models, found, [])), tmp_path_factory.mktemp("rows"))
    assert_nothing_is_pooled(rows)
    assert rows["cell_id"].nunique() == len({cell.id for cell in found})


def test_a_model_that_is_planned_twice_counts_once(tmp_path):
    plan = Plan([], [*cells((), 0), *cells((), 0)], [])
    assert_nothing_is_pooled(collected(plan, tmp_path))


# The rows of every experiment that is published, and rows of tasks that are not, made from them.
FIGURES = sorted((ROOT / "configs" / "figure").glob("*.yaml"))
EXPERIMENTS = sorted(path.parent for path in (ROOT / "results" / "published").glob("*/rows.parquet"))


@cache
def published(folder: Path) -> pd.DataFrame:
    """The rows of two documents or contexts of every cell of two seeds, of the three schemes most extended."""
    path = folder / "rows.parquet"
    series = pd.read_parquet(path, columns=["scheme", "extension"])
    extensions = series.groupby("scheme")["extension"].nunique().sort_values(ascending=False, kind="stable")
    # Millions of rows: only those that are used are read.
    wanted = [("train_seed", "<", 2), ("scheme", "in", list(extensions.index[:3]))]
    rows = pd.read_parquet(path, filters=wanted)
    documents = rows[["cell_id", "doc_id"]].drop_duplicates()
    few = documents[documents.groupby("cell_id").cumcount() < 2]
    return rows.merge(few, on=["cell_id", "doc_id"])


# Tasks without a published experiment, whose rows are those of copying under other names, and the variants that are drawn.
COPIED = {"length_generalization": ("binary_majority", "unique_copy"), "mqar": ("num_pairs=4", "")}


@cache
def experiments() -> list[pd.DataFrame]:
    """Rows of every experiment, and of tasks that none has, made from those of similar tasks."""
    found = [published(folder) for folder in EXPERIMENTS]
    renamed = {
        ("key_value", "synthetic_records"): [("passkey", "passkey"), ("key_value", "json_uuid")],
        ("perplexity", "non_overlapping"): [("perplexity", "sliding")],
    }
    for rows in tuple(found):
        for (task, protocol), others in renamed.items():
            chosen = rows[(rows["task"] == task) & (rows["protocol"] == protocol)]
            found += [chosen.assign(task=a, protocol=b) for a, b in others if len(chosen)]
        copied = rows[(rows["task"] == "algorithmic") & (rows["variant"] == "copy")]
        for task, variants in COPIED.items():
            parts = [
                copied.assign(task=task, variant=one, cell_id=copied["cell_id"] + one) for one in variants
            ]
            found += [pd.concat(parts, ignore_index=True)] if len(copied) else []
    # Trainings of two numbers of steps.
    demo = found[[folder.name for folder in EXPERIMENTS].index("demo")]
    other = {name: demo[name] + "-longer" for name in ("model_id", "cell_id")}
    longer = demo.assign(train_tokens=2 * demo["train_tokens"], **other)
    return [*found, pd.concat([demo, longer], ignore_index=True)]


def with_second_models(rows: pd.DataFrame, label: str) -> pd.DataFrame:
    """Adds a second model for every model of the rows, whose scheme has `label` behind its name."""
    second = {name: rows[name] + "-2" for name in ("model_id", "cell_id")}
    return pd.concat([rows, rows.assign(scheme=rows["scheme"] + label, **second)], ignore_index=True)


def drawn(config: dict[str, Any], rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The numbers of a figure, without the time to save it."""
    monkeypatch.setattr(figures, "save", lambda figure, shown, stem: shown)
    return draw_from_data(config, FigureData.of(rows, []), "")


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_no_figure_pools_two_models(path, monkeypatch):
    config = yaml.safe_load(path.read_text())
    for rows in experiments():
        try:
            alone = drawn(config, rows, monkeypatch)
        except MissingRowsError:
            continue
        except ConfigError as error:
            if "a figure shows one" not in str(error):
                raise
            continue  # an experiment with several of a setting
        break
    else:
        pytest.fail(f"no experiment has rows for {path.name}: publish one, or add to experiments()")
    with pytest.raises(DataError, match="would average"):
        drawn(config, with_second_models(rows, ""), monkeypatch)
    both = drawn(config, with_second_models(rows, " (lr 0.1)"), monkeypatch)
    twice = drawn(config, pd.concat([rows, rows], ignore_index=True), monkeypatch)
    assert_equal_counts(alone, both)
    assert_equal_counts(alone, twice)


@pytest.mark.parametrize("place", range(len(EXPERIMENTS)))
def test_no_table_pools_two_models(place):
    rows = experiments()[place]
    alone = {table.name: table.numbers for table in build_tables(rows, mix_kernels=True)}
    with pytest.raises(DataError, match="would average"):
        list(build_tables(with_second_models(rows, "")))
    for changed in (with_second_models(rows, " (lr 0.1)"), pd.concat([rows, rows], ignore_index=True)):
        found = {table.name: table.numbers for table in build_tables(changed, mix_kernels=True)}
        assert found.keys() >= alone.keys()
        for name, numbers in alone.items():
            assert_equal_counts(numbers, found[name])


def assert_equal_counts(alone: pd.DataFrame, other: pd.DataFrame) -> None:
    """No point has more items, seeds or documents than without the second models."""
    for name in {"n", "seeds", "n_docs", "train_seeds"} & set(alone):
        assert other[name].max() == alone[name].max(), name
