"""The schema of each command, and the dotted keys of a schema."""

from __future__ import annotations

import dataclasses
from typing import get_type_hints

from posbench.config import schema
from posbench.config.search import SearchScript

SCHEMAS = {
    "train": schema.TrainScript,
    "evaluate": schema.EvaluateScript,
    "search": SearchScript,
    "sweep": schema.SweepScript,
    "figures": schema.FiguresScript,
    "report": schema.ReportScript,
    "reproductions": schema.ReproductionsScript,
    "properties": schema.PropertiesScript,
}

# Config group -> the settings in its files.
OPTION_SCHEMAS = {
    "scheme": schema.SchemeSettings,
    "extension": schema.ExtensionSettings,
    "ensemble": schema.EnsembleSettings,
    "task": schema.TaskSettings,
    "size": schema.SizeSettings,
    "data": schema.DataSettings,
}


def keys(schema: type, prefix: str = "") -> list[str]:
    """Returns every dotted key of a schema."""
    return list(typed_keys(schema, prefix))


def typed_keys(schema: type, prefix: str = "") -> dict[str, object]:
    """Returns every dotted key of a schema with its annotation."""
    found: dict[str, object] = {}
    hints = get_type_hints(schema)
    for one in dataclasses.fields(schema):
        path, kind = f"{prefix}{one.name}", hints[one.name]
        found |= typed_keys(kind, f"{path}.") if dataclasses.is_dataclass(kind) else {path: kind}  # type: ignore[arg-type]
    return found
