"""README.md of exported rows: their schema, units, licence and citation."""

from __future__ import annotations

import pandas as pd
import yaml

from posbench.errors import DataError
from posbench.results.rows import NULLABLE, SCHEMA, SCHEMA_VERSION
from posbench.version import __version__

# Column -> meaning and unit.
MEANINGS = {
    "cell_id": "hash of everything that the rows of one evaluation depend on",
    "model_id": "hash of everything that the weights depend on",
    "scheme": "position scheme, a label",
    "extension": "context extension or ensemble, a label; none: the scheme as it was trained",
    "model_size": "size of the model, a label",
    "n_params": "parameters",
    "train_len": "training length in tokens",
    "train_tokens": "tokens of the pretraining; those of fine-tuning are not counted",
    "train_seed": "seed of the training",
    "corpus": "text of training and evaluation, a label",
    "task": "what is measured",
    "variant": "form of the task",
    "protocol": "how targets and contexts are chosen",
    "eval_len": "evaluated length in tokens",
    "eval_seed": "seed of the prompts",
    "doc_id": "document or context of the row, the cluster of intervals",
    "example": "index of the document in the evaluation",
    "position": "of a token, the end of a bucket of tokens, or the index of the queried record; of attention_at_distance, the "
    "exclusive end of a range of distances in tokens",
    "depth": "relative position of the queried record, 0 first to 1 last",
    "layer": "layer, from 0; empty for the whole model",
    "head": "head, from 0; empty for the whole model",
    "metric": "what is summed",
    "value_sum": "sum over n items, in `unit`; empty where the status has no number",
    "n": "number of items",
    "unit": "of one item: nats, bytes, fraction (0 to 1) or rank (1 is best)",
    "status": "ok, not_learned (below the gate at the training length), undefined, out_of_memory or diverged",
    "kernel": "implementation of attention that ran",
    "dtype": "precision of the computation",
}


def data_card(rows: pd.DataFrame, name: str, licence: str, command: str) -> str:
    """Returns the text of README.md.

    Args:
        name: of the data.
        command: that exports it.
    """
    if missing := {*SCHEMA.names} - MEANINGS.keys():
        raise DataError(f"columns without a meaning: {', '.join(sorted(missing))}")
    head = {
        "license": licence,
        "pretty_name": f"posbench rows: {name}",
        "tags": ["posbench", "length-extrapolation"],
        "configs": [{"config_name": "default", "data_files": "rows.parquet"}],
    }
    counts = {
        "rows": len(rows),
        "evaluations (cell_id)": rows["cell_id"].nunique(),
        "models (model_id)": rows["model_id"].nunique(),
        "position schemes": rows["scheme"].nunique(),
        "tasks": rows["task"].nunique(),
    }
    facts = "\n".join(f"| {key} | {value:,} |" for key, value in counts.items())
    columns = "\n".join(
        f"| {field.name} | {field.type} | {'may be empty' if field.name in NULLABLE else ''} | {MEANINGS[field.name]} |"
        for field in SCHEMA
    )
    return f"""---
{yaml.safe_dump(head, sort_keys=False)}---

# posbench rows: {name}

Measurements of language models past their training length, one number a row, by posbench {__version__}. A metric
is the sum of `value_sum` over the sum of `n`, of rows with status `ok`: drop the others first. Bits per byte are the
sum of `nll` over the sum of `bytes`, over ln 2.

| | |
|---|---|
{facts}

## Schema

Version {SCHEMA_VERSION}, in the metadata of `rows.parquet` under `posbench.rows`.

| column | type | | meaning and unit |
|---|---|---|---|
{columns}

## Use

```python
import pandas as pd

rows = pd.read_parquet("rows.parquet")
```

`posbench results import FOLDER` adds them to a results folder, whose sweeps take them as measured. With `--name NAME` they
become an experiment, whose tables `posbench figures` draws.

## Command

```bash
{command}
```

## Licence and citation

{licence}. Please cite posbench with its version:

```bibtex
@software{{posbench,
  title = {{posbench: a length-extrapolation benchmark for position schemes}},
  author = {{{{The posbench maintainers}}}},
  version = {{{__version__}}}
}}
```
"""
