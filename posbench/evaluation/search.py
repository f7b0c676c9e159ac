"""A search of LongRoPE's factors on one model, by its loss on a task at one length.

Candidates are measured on the validation split; the best and the starting factors are then measured once on the test
split, which posbench evaluate reads. The losses measured so far are in results/search/NAME/candidates.json and test.json,
from which an interrupted search continues.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from posbench.checksums import dump_json, read_json
from posbench.config.schema import EvaluationSettings, ExtensionSettings
from posbench.config.search import SearchScript
from posbench.data.corpus import open_corpus
from posbench.errors import ConfigError, DataError, IncompatibleError, LengthError
from posbench.evaluation.evaluator import EvaluatedModel
from posbench.evaluation.evolution import MARGIN, Factors, on_grid, search
from posbench.evaluation.pretrained import load_evaluated_model
from posbench.evaluation.results_folder import ResultsFolder
from posbench.files import write_bytes, write_text
from posbench.identity import identity
from posbench.instantiate import by_name, instantiate
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.plan.cell import Cell, ModelPlan
from posbench.plan.grid import LoadOption
from posbench.plan.plan import build_task, build_untrained_scheme, evaluated_lengths, model_shape, plan_model
from posbench.plan.pretrained import plan_pretrained
from posbench.position.extension import ExtensionContext
from posbench.position.factor_extension import FrequencyScaling, NTKScaling, frequencies
from posbench.results.gate import MIN_ACCURACY
from posbench.runtime.oom import is_out_of_memory
from posbench.tasks.task import Task

LONGROPE, YARN = "longrope", "yarn"  # in configs/extension
# Metrics that can be minimised, with their signs.
LOSSES = {"nll": 1.0, "logprob": -1.0}


def run_search(script: SearchScript, load_option: LoadOption) -> Path:
    """Searches the factors and writes the extension; returns its file.

    Raises:
        IncompatibleError: if the scheme does not rotate, or its layers rotate by different numbers of frequencies, if
            the task has no loss, or if the model fails it at its training length.
        LengthError: if the task has lengths of its own.
        DataError: if there is no trained model.
    """
    model = plan_model(script) if script.lm.kind == "native" else plan_pretrained(script.lm, script.data)
    train_len, settings = model.settings.train.seq_len, script.search
    multiple = EvaluationSettings(length_multiples=[settings.length_multiple])
    (length,) = evaluated_lengths(multiple, train_len, "search.length_multiple")
    k = length / train_len
    extension = ExtensionSettings(settings.name, load_option("extension", LONGROPE)["build"] | {"factor": k})
    starts = starting_factors(model, extension, load_option("extension", YARN)["build"], k, length)
    task_content = {"name": script.task.name, "build": script.task.build}
    evaluation = EvaluationSettings(task=script.task.name)
    task, built = build_task(script.task.name, evaluation, lambda group, name: task_content, length)
    results_folder = ResultsFolder.from_runtime(script.runtime)
    if not model.pretrained and not results_folder.is_trained(model.id):
        raise DataError(
            f"no trained model of {model.label} at {results_folder.model_dir(model.id)}: run posbench train with the "
            "same settings first"
        )
    results_folder.prepare()
    test = open_corpus(model.settings.data, Path(script.runtime.cache_dir))
    if fixed := built.fixed_lengths(test):
        raise LengthError(
            f"task={task.name}: a search measures at {train_len} and {length} tokens, and the settings of this task give "
            f"{', '.join(map(str, fixed))}: choose settings that allow any length (key_value_uuid: task.build.num_keys=[]), "
            "or task=fixed_targets"
        )
    corpus = replace(test, evaluated_split="validation")
    evaluated = load_evaluated_model(model, results_folder.model_dir(model.id), corpus, script.runtime)
    plain = ExtensionSettings()
    plain = model.pretrained.resolve_extension(plain) if model.pretrained else plain
    base = Cell(model, plain, 0, task, 0, train_len, settings.seed, "float32")
    check_capable(evaluated, base)
    folder = results_folder.path / "search" / settings.name
    measured = [
        model.id, model.corpus, by_name(task.build), built.version, by_name(extension.build), length, settings.seed
    ]  # fmt: skip
    found = Losses(folder / "candidates.json", identity([*measured, corpus.evaluated_split]))

    def measure(factors: Factors) -> float:
        build = {**(extension.build or {}), "long_factor": list(factors)}
        return mean_loss(evaluated, replace(base, extension=replace(extension, build=build), length=length))

    def loss(factors: Factors) -> float:
        return found.get(factors, measure)

    best, lowest = search([*starts.values()], k, loss, settings)
    evaluated.corpus = replace(evaluated.corpus, evaluated_split=test.evaluated_split)
    tested = Losses(folder / "test.json", identity([*measured, test.evaluated_split]))
    print(
        f"nats at {length} tokens: validation, of which the searched one is the lowest of {len(found.losses)}, and test"
    )
    for name, factors in [*starts.items(), ("searched", best)]:
        print(f"{name:8} {loss(tuple(factors)):.4f} {tested.get(tuple(factors), measure):.4f}")
    path = folder / "extension" / f"{settings.name}.yaml"
    content = {"name": settings.name, "build": {**(extension.build or {}), "long_factor": list(best)}}
    comment = f"# posbench search, {model.label}: {lowest:.4f} nats on {task.name} of the validation split at {length} tokens.\n"
    write_text(path, comment + yaml.safe_dump(content, sort_keys=False, default_flow_style=None))
    return path


def starting_factors(
    model: ModelPlan, extension: ExtensionSettings, yarn: Any, k: float, length: int
) -> dict[str, Factors]:
    """Returns the factors of position interpolation, NTK-aware scaling and YaRN, from the fastest frequency."""
    if model.pretrained is not None:
        model.pretrained.resolve_extension(extension)  # a black box takes none
    scheme = build_untrained_scheme(model.settings)
    context = ExtensionContext(model_shape(model.settings), length)
    instantiate(extension.build or {}, FrequencyScaling, scheme, context)
    found = frequencies(scheme, context)
    counts = sorted({len(inv_freq_M) for inv_freq_M in found})
    if len(counts) > 1:
        raise IncompatibleError(
            f"a search needs one number of frequencies, and the layers of {model.label} rotate by "
            f"{' and '.join(map(str, counts))}: choose another model"
        )
    inv_freq_M = found[0]
    scaled = {
        "pi": inv_freq_M / k,
        "ntk": NTKScaling(k)(inv_freq_M),
        "yarn": instantiate({**yarn, "factor": k}, FrequencyScaling, scheme, context).scale_inv_freq(
            inv_freq_M
        ),
    }
    largest = round(MARGIN * k, 2)
    return {name: on_grid((inv_freq_M / one).tolist(), largest) for name, one in scaled.items()}


class Losses:
    """The losses of candidates, in a file that is written after each of them.

    Args:
        id: identity of what is measured; a file of another one is refused.
    """

    def __init__(self, path: Path, id: str) -> None:
        self.path, self.id = path, id
        self.losses: dict[Factors, float] = {}
        if path.exists():
            try:
                content = read_json(path)
                given = content["id"]
                losses = {tuple(factors): float(loss) for factors, loss in content["candidates"]}
            except (OSError, ValueError, LookupError, TypeError) as error:
                raise DataError(
                    f"{path} is damaged ({error}): remove it, and its losses are measured again"
                ) from None
            if given != id:
                raise ConfigError(
                    f"{path} is of another model, corpus, task, length or seed: choose another search.name, or remove it"
                )
            self.losses = losses

    def get(self, factors: Factors, measure: Callable[[Factors], float]) -> float:
        """Returns the loss of a candidate, measured unless it is in the file."""
        if factors not in self.losses:
            self.losses[factors] = measure(factors)
            candidates = [[list(one), loss] for one, loss in self.losses.items()]
            write_bytes(self.path, dump_json({"id": self.id, "candidates": candidates}))
        return self.losses[factors]


def metrics(model: EvaluatedModel, cell: Cell) -> dict[str, float]:
    """Returns the mean of each metric of a cell."""
    try:
        rows = model.run_task(
            cell, instantiate(cell.task.build, Task), KernelDispatcher(model.runtime.kernel)
        )
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(
            f"out of memory: {model.plan.label}, {cell.task.name} at {cell.length} tokens: give a smaller "
            "search.length_multiple or runtime.max_tokens_per_batch, or use a device with more memory"
        ) from None
    names = dict.fromkeys(row["metric"] for row in rows)
    parts = {name: [row for row in rows if row["metric"] == name] for name in names}
    return {
        name: sum(row["value_sum"] for row in some) / sum(row["n"] for row in some)
        for name, some in parts.items()
    }


def mean_loss(model: EvaluatedModel, cell: Cell) -> float:
    """Returns the mean loss of a cell in nats: per token of text, or per answer; a number that is not finite is 1e9."""
    try:
        found = metrics(model, cell)
    except FloatingPointError:
        return 1e9
    name = next(name for name in LOSSES if name in found)
    loss = LOSSES[name] * found[name]
    return loss if math.isfinite(loss) else 1e9


def check_capable(model: EvaluatedModel, cell: Cell) -> None:
    """Raises IncompatibleError if the task has no loss, or if the model does not solve it at its training length."""
    try:
        found, task = metrics(model, cell), cell.task.name
    except FloatingPointError:
        raise IncompatibleError(
            f"{model.plan.label}: its logits are not finite at its training length, so that nothing can be searched; "
            "train it with a smaller learning rate"
        ) from None
    if not set(LOSSES) & set(found):
        raise IncompatibleError(
            f"task={task} measures {', '.join(found)}, not nll or logprob, which a search minimises: choose "
            "task=fixed_targets (perplexity) or task=passkey (needles)"
        )
    accuracy = found.get("exact_match")
    if accuracy is not None and accuracy < MIN_ACCURACY:
        raise IncompatibleError(
            f"task={task}: {model.plan.label} answers {accuracy:.0%} at its training length of {cell.length} tokens, below "
            f"{MIN_ACCURACY:.0%}, which gives factors no difference in score: choose task=fixed_targets, or another model"
        )
