"""The model card (README.md) of an exported model: description, metrics, usage and the commands that produced it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from posbench import escaping
from posbench.config.schema import DataSettings, ModelSettings, SchemeSettings, SizeSettings, TrainSettings
from posbench.export.source_model import SourceModel
from posbench.instantiate import by_name
from posbench.plan.finetune import extension_length
from posbench.report.tables.layout import build_tables
from posbench.report.tables.markup import to_markdown
from posbench.results.rows import RowStore
from posbench.version import __version__

# Group -> options in the files of configs/.
Options = Mapping[str, Mapping[str, dict[str, Any]]]
# Columns that name an evaluation of a model in its tables.
LABELS = ("extension", "task", "variant", "protocol")
DEFAULTS = {"scheme": SchemeSettings, "size": SizeSettings, "data": DataSettings}


def model_card(
    source: SourceModel,
    rows: pd.DataFrame,
    notes: Sequence[str],
    family: str,
    licence: str,
    command: str,
    options: Options,
    packages: Iterable[str],
    copied: Iterable[str],
) -> str:
    """Returns the text of README.md.

    Args:
        rows, notes: of this model, as `rows_of` returns them.
        family: model type in transformers; posbench for one that needs the files in its folder.
        command: that exports it.
        packages: that its files import besides torch and transformers.
        copied: packages besides posbench whose files are in the folder.
    """
    head: dict[str, Any] = {
        "license": licence,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["posbench", "position-scheme"],
    }
    if name := hub_name(source):
        head["base_model"] = name
        if licence == "other":
            head["license_link"] = f"https://huggingface.co/{name}"
    own_code = family == "posbench"
    extension = source.extension.name if source.extension.build is not None else "none"
    facts = {
        "position scheme": source.settings.scheme.name if source.settings else json.dumps(source.scheme),
        "extension": extension,
        "declared length": f"{source.length} tokens" if source.length else "any; the number of tokens read",
        "training length": f"{source.train_len} tokens",
        "parameters": f"{source.model.parameter_count():,}",
        "model type": family,
    }
    if source.settings:
        facts |= {
            "model id": source.id,
            "size": source.settings.size.name,
            "trained tokens": trained_tokens(source),
            "seed": str(source.settings.train.seed),
            "corpus": source.settings.data.name,
            "tokenizer": source.settings.data.tokenizer.kind,
        }
    built = {"scheme": source.scheme, "extension": source.extension.build}
    trainings = [train_command(source.settings, options)] if source.settings else []
    if source.finetune:
        built["finetune"] = source.finetune
        trainings = [f"# the pretraining; posbench sweep fine-tuned the model\n{trainings[0]}"]
    title = escaping.markdown(source.label + ("" if extension == "none" else f" + {extension}"))
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
        f"# {title}\n",
        f"{origin(source)} posbench {__version__}, which measures how models behave past their training length.\n",
        "\n".join(
            ["| | |", "|---|---|", *(f"| {key} | {escaping.markdown(one)} |" for key, one in facts.items())]
        )
        + "\n",
        usage(source, own_code, packages),
        figures(source, rows, notes),
        "## Settings\n\n```yaml\n" + yaml.safe_dump(built) + "```\n",
        "## Commands\n\n```bash\n" + "\n".join([*trainings, command]) + "\n```\n",
        "## Licence\n\n" + licences(source, licence, own_code, sorted(copied)) + "\n",
    ]
    return "\n".join(parts)


def hub_name(source: SourceModel) -> str:
    """Returns the name on the hub of the pretrained model that was exported; empty for a folder or a model trained here."""
    name = source.pretrained.settings.name if source.pretrained else ""
    return "" if Path(name).exists() else name


def origin(source: SourceModel) -> str:
    """Returns where a model comes from, as the first words of the card's first sentence."""
    if source.pretrained is None:
        return "A language model from"
    with_extension = source.extension.build != source.pretrained.scaling.build
    extended = f" with the extension {source.extension.name}" if with_extension else ""
    return f"The pretrained model {hub_name(source) or source.label}{extended}, exported by"


def licences(source: SourceModel, licence: str, own_code: bool, copied: Sequence[str]) -> str:
    """Returns the text on the licences of the weights and of the Python files."""
    text = f"{licence}."
    if source.pretrained:
        text += f" The weights come from {hub_name(source) or source.label}, whose licence applies to them."
    if own_code:
        text += " The Python files are posbench's, under Apache-2.0"
        text += f", and those of {', '.join(copied)}, under their own licence." if copied else "."
    return text


def usage(source: SourceModel, own_code: bool, packages: Iterable[str]) -> str:
    """Returns how the model is loaded, and what must be known."""
    trust = ", trust_remote_code=True" if own_code else ""
    more = "".join(f" It needs the package {one}." for one in packages)
    notes = (
        " The Python files of this folder are the model: read them before you trust them."
        + more
        + " Batches are padded on the left. Positions follow from the attention mask."
        if own_code
        else ""
    )
    note = "" if source.pretrained else "A small research model, not meant to answer people."
    return (
        "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("THIS FOLDER"{trust})\n'
        'tokenizer = AutoTokenizer.from_pretrained("THIS FOLDER")\n'
        'inputs = tokenizer("def main", return_tensors="pt")\n'
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))\n```\n\n"
        + (note + notes).strip()
        + "\n"
    )


def trained_tokens(source: SourceModel) -> str:
    """Returns the tokens of the pretraining, and of the fine-tuning if there is one."""
    pretrained = f"{source.metadata['train_tokens']:,}"
    if not (tuned := source.finetune):
        return pretrained
    return f"{pretrained}, and {tuned['steps'] * tuned['batch_size'] * tuned['seq_len']:,} of the fine-tuning"


def figures(source: SourceModel, rows: pd.DataFrame, notes: Sequence[str]) -> str:
    """Returns the section of results."""
    if rows.empty:
        return "\n\n".join(["## Results", *(notes or ["Not evaluated by posbench yet."])]) + "\n"
    name = [source.settings.scheme.name] if source.settings else []
    tables = [to_markdown(table) for table in build_tables(rows, name, mix_kernels=True)]
    head = "\n\n".join(["## Results", " ".join(["As `posbench evaluate` prints them.", *notes])])
    return head + "\n\n" + "\n".join(tables) + "\n"


def rows_of(source: SourceModel, results_dir: Path) -> tuple[pd.DataFrame, list[str]]:
    """Returns the rows of a trained model, and sentences about those that are left out.

    Rows with an extension are those of the exported one: of the same settings and, where its angles depend on the
    length (factor auto), at the declared length. Of several evaluations of a task, the rows are those of the newest.
    """
    store = RowStore(results_dir / "cells")
    evaluations: dict[tuple[str, ...], dict[str, dict[int, tuple[str, str]]]] = {}
    is_extended, unreadable = False, []
    for path in sorted(store.root.glob("*.parquet")) if source.id else ():
        try:
            if "model_id" not in pq.read_schema(path).names:  # of an old version
                continue
            found = pq.read_table(path, columns=["model_id", "eval_len", "eval_seed", "dtype", *LABELS])
        except (pa.ArrowException, OSError):
            unreadable.append(path.name)
            continue
        first: dict[str, Any] = next(iter(found.slice(0, 1).to_pylist()), {})
        if first.get("model_id") != source.id:
            continue
        run = store.run_metadata(path.stem)
        if first["extension"] != "none" or source.finetune:
            if not is_exported(source, run.get("extension"), first["eval_len"]):
                continue
            is_extended = True
        settings = json.dumps([run.get("task"), first["eval_seed"], first["dtype"]], sort_keys=True)
        of_task = evaluations.setdefault(tuple(first[name] for name in LABELS), {}).setdefault(settings, {})
        cell = run.get("date", ""), path.stem
        of_task[first["eval_len"]] = max(of_task.get(first["eval_len"], cell), cell)
    newest = [max(found.values(), key=lambda cells: max(cells.values())) for found in evaluations.values()]
    notes = [f"Left out because they cannot be read: {', '.join(unreadable)}."] if unreadable else []
    if source.extension.build is not None and not is_extended:
        notes.append(
            "Not evaluated by posbench with these settings of the extension and this declared length; rows are of the "
            "model without it."
            if newest
            else "Not evaluated by posbench with these settings of the extension and this declared length yet."
        )
    several = [labels[1:] for labels, found in evaluations.items() if len(found) > 1]
    if earlier := sorted({" ".join(filter(None, names)) for names in several}):
        notes.append(f"Earlier evaluations with other settings of {', '.join(earlier)} are left out.")
    return store.collect([cell for cells in newest for _, cell in cells.values()])[0], notes


def is_exported(source: SourceModel, build: Any, length: int) -> bool:
    """Returns whether an extension with the settings `build`, evaluated at a length, is the exported one."""
    if source.extension.build is None:
        return bool(source.finetune) and build is None
    return build == by_name(source.extension.build) and (
        source.extended().scheme.traits.prefix_stable
        or extension_length(length, source.finetune) == source.length
    )


def train_command(settings: ModelSettings, options: Options) -> str:
    """Returns the command that trains a model with these settings."""
    words = ["posbench", "train"]
    for group, schema in DEFAULTS.items():
        given = asdict(getattr(settings, group))
        files = {name: flat(asdict(schema())) | flat(file) for name, file in options[group].items()}
        name = nearest(given, files)
        words += [f"{group}={name}", *overrides(group, given, files.get(name, flat(given)))]
    words += overrides("train", asdict(settings.train), asdict(TrainSettings()))
    return shlex.join(words)


def nearest(given: dict[str, Any], files: Mapping[str, dict[str, Any]]) -> str:
    """Returns the name of the file of a group that settings come from.

    It is the label of the settings. A label that is not a file was given on the command line: then it is the file of
    the same class with the fewest other settings.
    """
    label, settings = given["name"], flat(given)
    target = settings.get("build._target_")
    alike = [name for name, file in files.items() if file.get("build._target_") == target]
    if label in files or not alike:
        return label
    return min(alike, key=lambda name: sum(files[name].get(key) != value for key, value in settings.items()))


def overrides(group: str, given: dict[str, Any], base: dict[str, Any]) -> list[str]:
    """Returns the settings of a group that differ from its file, as words of a command."""
    return [
        f"{group}.{key}={value if isinstance(value, str) and value else json.dumps(value)}"
        for key, value in flat(given).items()
        if base.get(key) != value
    ]


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings under dotted keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found
