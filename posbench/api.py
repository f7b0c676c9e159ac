"""Functions for use from Python, without a command line or configs: `import posbench as pb`.

`train` and `evaluate` run the code of `posbench train` and `posbench evaluate`, and `choices` that of `posbench list`,
so models, rows and ids are the same. Progress is printed to stderr. A mistake raises PosbenchError with one line.

>>> import posbench as pb
>>> model = pb.train("alibi", seq_len=64, steps=300)
>>> rows = pb.evaluate(model, "fixed_targets", length=[64, 256])
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posbench.errors import ConfigError, DataError, IncompatibleError, PosbenchError, unknown

if TYPE_CHECKING:
    import pandas as pd

    from posbench.config.schema import EvaluateScript

Settings = Mapping[str, Any]
# One job after another in this process, without a mirror of results on a server.
RUNTIME = {"runtime.launcher": "inline", "runtime.tracker": "none"}
# Function -> the settings of `posbench evaluate` that are its arguments.
ARGUMENTS = {
    "load": ("lm", "lm.name", "extension", "data"),
    "evaluate": ("task", *(f"evaluation.{key}" for key in ("lengths", "length_multiples", "seed", "dtype"))),
}


@dataclass(frozen=True)
class Model:
    """A model to be evaluated, as `train` and `load` return it. Its weights are read when it is evaluated.

    Attributes:
        name: the path or name that it was loaded by.
        extension: name of the context extension around it, "none" for the model as it was trained.
        folder: of a model trained here, under models/ of its results folder; None for a pretrained model.
        settings: settings of `posbench evaluate` for this model, by dotted name.
    """

    name: str
    extension: str = "none"
    folder: Path | None = None
    settings: Settings = field(default_factory=dict)


def choices(group: str) -> pd.DataFrame:
    """Lists what can be chosen by name.

    Args:
        group: "schemes", "extensions", "ensembles", "tasks", "experiments", "sizes", "data" or "figures"; or the name of
            the setting, such as "scheme".

    Returns:
        A frame with the columns name, kind, paper and summary, as `posbench list` prints them.

    Raises:
        ConfigError: for another group.
    """
    import pandas as pd

    from posbench.commands.catalog import GROUPS, choice, names

    if group not in (*GROUPS, *GROUPS.values()):
        raise unknown("group", str(group), GROUPS)
    folder = GROUPS.get(group, group)
    found = [choice(folder, name) for name in names(folder)]
    columns = ("name", "kind", "paper", "summary")
    return pd.DataFrame([[getattr(one, column) for column in columns] for one in found], columns=columns)


def train(
    scheme: str,
    size: str = "tiny",
    data: str = "sources",
    *,
    settings: Settings | None = None,
    **train_settings: Any,
) -> Model:
    """Trains a model, or returns the one that was trained with the same settings, for `evaluate`: `posbench train`.

    Args:
        scheme: name of a position scheme.
        size: name of a model size.
        data: name of a corpus.
        settings: further settings by dotted name, such as {"size.n_layers": 2, "runtime.results_dir": "results"}.
        **train_settings: settings of the training, such as `seq_len=128`, `steps=1000` or `seed=1`: those that the command
            line gives as train.KEY.

    Raises:
        PosbenchError: for settings that are not possible, and for a training that runtime.max_minutes has stopped.
    """
    from posbench.commands.python_settings import checked, composed
    from posbench.commands.train import train as train_model

    by_key = {f"train.{key}": value for key, value in train_settings.items()}
    given = {**RUNTIME, **checked(settings, {"train": ("scheme", "size", "data", *by_key)}), **by_key}
    script = composed("train", {"scheme": scheme, "size": size, "data": data}, given)
    with _progress_on_stderr():
        folder = train_model(script)
    if not (folder / "final" / "metadata.json").is_file():
        raise PosbenchError(
            "the training has stopped before its end (runtime.max_minutes): the same call continues it"
        )
    kept = ("runtime.", "allow", "hydra.")
    return load(folder, settings={key: value for key, value in given.items() if key.startswith(kept)})


def load(
    model: str | Path,
    extension: str = "none",
    *,
    data: str | None = None,
    settings: Settings | None = None,
) -> Model:
    """Returns a trained or pretrained model, with a context extension around it, for `evaluate`.

    Args:
        model: the folder of a model that posbench has trained, such as "results/models/0f3a...", a folder with a
            transformers model, or a name on the Hugging Face hub.
        extension: name of a context extension.
        data: name of the corpus that a pretrained model is evaluated on, by default "sources". A model trained here
            keeps its own.
        settings: further settings of `posbench evaluate` by dotted name, such as {"extension.build.factor": 4},
            {"ensemble": "nbce"} or {"runtime.device": "cpu"}. Those of the model itself are fixed.

    Raises:
        PosbenchError: for a folder without a model, and for settings that are not possible.
    """
    from posbench.commands.checks import check_lm
    from posbench.commands.python_settings import checked
    from posbench.config.validation import is_given

    if not isinstance(model, str | os.PathLike):
        raise ConfigError(f"model {model!r}: give a folder, or a name on the Hugging Face hub")
    path = Path(model).expanduser()
    path = path.parent if path.name == "final" else path
    settings = checked(settings, ARGUMENTS)
    own = {**RUNTIME, **settings}
    if (path / "final" / "metadata.json").is_file() and path.absolute().parent.name == "models":
        for group in ("scheme", "size", "data", "train", "lm"):
            if is_given(group, settings) or (group == "data" and data is not None):
                raise ConfigError(
                    f"settings of {group} change nothing: {path} is a trained model, so remove them"
                )
        results = path.absolute().parents[1]
        if Path(str(own.get("runtime.results_dir", results))).expanduser().absolute() != results:
            raise ConfigError(
                f"settings 'runtime.results_dir': rows of a trained model go to its own results folder, {results}; remove "
                "it, or move the folder"
            )
        own["runtime.results_dir"] = str(results)
        found = Model(str(model), extension, path.absolute(), own)
    elif path.is_dir() and not (path / "config.json").is_file():
        raise DataError(
            f"no model in {path}: give a folder of results/models, a folder with a config.json of transformers, or a "
            "name on the Hugging Face hub"
        )
    else:
        found = Model(
            str(model),
            extension,
            None,
            {"lm": "hugging_face", "lm.name": str(model), "data": data or "sources", **own},
        )
    check_lm(_script(found, "fixed_targets", {}), list(settings))
    return found


def evaluate(
    model: Model | str | Path,
    task: str = "fixed_targets",
    length: int | Sequence[int] | None = None,
    *,
    seed: int = 0,
    dtype: str = "float32",
    **settings: Any,
) -> pd.DataFrame:
    """Evaluates a model on a task and returns the rows, those of an earlier evaluation where they exist.

    Args:
        model: what `train` or `load` returned, or the first argument of `load`.
        task: name of a task.
        length: tokens of a prompt, or several such lengths; by default the training length. Tasks whose settings fix the
            lengths, such as key_value_uuid, use those and refuse a length.
        seed: of the prompts.
        dtype: of the computation, "float32" or "bfloat16".
        **settings: settings of the task, such as `num_examples=16`; `posbench describe TASK` lists them.

    Returns:
        One number in each row. The value of a metric is the sum of `value_sum` over the sum of `n`; a row whose status
        is not "ok" has no value.

    Raises:
        PosbenchError: for a name or a length that is not possible.
    """
    from posbench.commands.evaluate import measure

    model = model if isinstance(model, Model) else load(model)
    lengths = [] if length is None else list(length) if isinstance(length, Iterable) else [length]
    for one in lengths:
        if not isinstance(one, Integral):
            raise ConfigError(f"length {one!r}: give a whole number of tokens, or a list of them")
    given = {
        "evaluation.lengths": lengths,
        "evaluation.length_multiples": [] if lengths else [1],
        "evaluation.seed": seed,
        "evaluation.dtype": dtype,
        **{f"task.build.{key}": value for key, value in settings.items()},
    }
    script = _script(model, task, given)
    with _progress_on_stderr():
        _, rows = measure(script, ["evaluation.lengths"] if lengths else [])
    if rows is None:
        raise PosbenchError(
            "the evaluation has stopped before its end (runtime.max_minutes): the same call continues it"
        )
    return rows


def rows(folder: str | Path = "results", categorical: bool = False) -> pd.DataFrame:
    """Reads rows, without torch.

    Args:
        folder: the folder of an experiment, such as "results/demo", or a results folder, whose rows are those of all
            its cells.
        categorical: return strings as sorted categories, which are faster to group and compare.

    Returns:
        One number in each row, as `evaluate` returns them.

    Raises:
        DataError: if there are no rows.
    """
    from posbench.report.experiment import ROWS_FILE, find_experiments
    from posbench.results.gate import apply_gate
    from posbench.results.rows import AGAIN, RowStore, read_rows

    if not isinstance(folder, str | os.PathLike):
        raise DataError(f"folder {folder!r}: give the path of a folder that posbench has written")
    path = Path(folder).expanduser()
    if (path / ROWS_FILE).is_file():
        return read_rows(path / ROWS_FILE, categorical)
    cells = sorted(file.stem for file in (path / "cells").glob("*.parquet"))
    if not cells:
        experiments = [str(found) for found in find_experiments(path)]
        raise DataError(
            f"{path} has neither {ROWS_FILE} nor cells: "
            + (
                f"give one of {', '.join(experiments)}"
                if experiments
                else "give a folder that posbench has written"
            )
        )
    found = apply_gate(RowStore(path / "cells").collect(cells, AGAIN)[0])
    return found.astype(dict.fromkeys(found.select_dtypes("str"), "category")) if categorical else found


def _script(model: Model, task: str, given: Settings) -> EvaluateScript:
    """Returns the settings of `posbench evaluate` for a model and a task."""
    from posbench.commands.python_settings import composed

    script = composed("evaluate", {"extension": model.extension, "task": task}, {**model.settings, **given})
    if model.folder is None:
        return script
    from posbench import checksums
    from posbench.config.hydra_app import to_dataclass
    from posbench.config.schema import ModelSettings

    try:
        saved = checksums.read_json(model.folder / "final" / "metadata.json")["settings"]
    except (OSError, KeyError, checksums.DamageError) as error:
        raise DataError(f"{model.folder} cannot be read ({error}): train the model again") from None
    if "finetune" in saved:
        raise IncompatibleError(
            f"{model.folder} is fine-tuned with an extension: load the model that it was tuned from, with the settings "
            "extension.finetune"
        )
    own = to_dataclass(ModelSettings, saved, "")
    return replace(script, scheme=own.scheme, size=own.size, data=own.data, train=own.train)


@contextlib.contextmanager
def _progress_on_stderr() -> Iterator[None]:
    from posbench.runtime.signals import Interrupted

    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except Interrupted:
        raise KeyboardInterrupt from None
