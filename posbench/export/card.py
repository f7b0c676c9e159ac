"""The model card (README.md) of an exported model: description, metrics, usage and the commands that produced it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import yaml

from posbench import escaping
from posbench.config.schema import DataSettings, ModelSettings, SchemeSettings, SizeSettings, TrainSettings
from posbench.export.source_model import SourceModel
from posbench.report.tables.layout import build_tables
from posbench.report.tables.markup import to_markdown
from posbench.results.rows import RowStore
from posbench.version import __version__

# Group -> options in the files of configs/.
Options = Mapping[str, Mapping[str, dict[str, Any]]]
DEFAULTS = {"scheme": SchemeSettings, "size": SizeSettings, "data": DataSettings}


def model_card(
    source: SourceModel,
    rows: pd.DataFrame,
    family: str,
    licence: str,
    command: str,
    options: Options,
    packages: Iterable[str],
) -> str:
    """Returns the text of README.md.

    Args:
        rows: of this model; may be empty.
        family: model type in transformers; posbench for one that needs the files in its folder.
        command: that exports it.
        packages: that its files import besides torch and transformers.
    """
    head = {
        "license": licence,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["posbench", "position-scheme"],
    }
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
            "trained tokens": f"{source.metadata['train_tokens']:,}",
            "seed": str(source.settings.train.seed),
            "corpus": source.settings.data.name,
            "tokenizer": source.settings.data.tokenizer.kind,
        }
    title = escaping.markdown(source.label + ("" if extension == "none" else f" + {extension}"))
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
        f"# {title}\n",
        f"A language model from posbench {__version__}, which measures how "
        "models behave past their training length.\n",
        "\n".join(
            ["| | |", "|---|---|", *(f"| {key} | {escaping.markdown(one)} |" for key, one in facts.items())]
        )
        + "\n",
        usage(own_code, packages),
        figures(source, rows),
        "## Settings\n\n```yaml\n"
        + yaml.safe_dump({"scheme": source.scheme, "extension": source.extension.build})
        + "```\n",
        "## Commands\n\n```bash\n"
        + (f"{train_command(source.settings, options)}\n" if source.settings else "")
        + f"{command}\n```\n",
        f"## Licence\n\n{licence}."
        + (" The Python files are posbench's, under Apache-2.0.\n" if own_code else "\n"),
    ]
    return "\n".join(parts)


def usage(own_code: bool, packages: Iterable[str]) -> str:
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
    return (
        "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("THIS FOLDER"{trust})\n'
        'tokenizer = AutoTokenizer.from_pretrained("THIS FOLDER")\n'
        'inputs = tokenizer("def main", return_tensors="pt")\n'
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))\n```\n\n"
        f"A small research model, not meant to answer people.{notes}\n"
    )


def figures(source: SourceModel, rows: pd.DataFrame) -> str:
    """Returns the section of results."""
    if rows.empty:
        return "## Results\n\nNot evaluated by posbench yet.\n"
    name = [source.settings.scheme.name] if source.settings else []
    tables = [to_markdown(table) for table in build_tables(rows, name, mix_kernels=True)]
    return "## Results\n\nAs `posbench evaluate` prints them.\n\n" + "\n".join(tables) + "\n"


def rows_of(model: str, extension: str, results_dir: Path) -> pd.DataFrame:
    """Returns the rows of a trained model with an extension and without one."""
    store = RowStore(results_dir / "cells")
    cells = []
    for path in sorted(store.root.glob("*.parquet")) if model else ():
        if "model_id" not in pq.read_schema(path).names:  # of an old version
            continue
        first = pq.read_table(path, columns=["model_id", "extension"]).slice(0, 1).to_pylist()
        if any(row["model_id"] == model and row["extension"] in ("none", extension) for row in first):
            cells.append(path.stem)
    return store.collect(cells)[0]


def train_command(settings: ModelSettings, options: Options) -> str:
    """Returns the command that trains a model with these settings."""
    words = ["posbench", "train"]
    for group, schema in DEFAULTS.items():
        given = asdict(getattr(settings, group))
        words.append(f"{group}={given['name']}")
        base = {**flat(asdict(schema())), **flat(options[group].get(given["name"], given))}
        words += overrides(group, given, base)
    words += overrides("train", asdict(settings.train), asdict(TrainSettings()))
    return shlex.join(words)


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
