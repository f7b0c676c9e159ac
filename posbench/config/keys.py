"""The schema of each command, and the dotted keys of a schema."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

from posbench.config import schema
from posbench.config.search import SearchScript
from posbench.config.setting import Rule

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


def kind_and_rule(schema: type, key: str) -> tuple[Any, Rule] | None:
    """Returns the annotation and the Rule of a dotted key; None for an unknown one."""
    kind: Any = schema
    rule = Rule()
    for name in key.split("."):
        if not dataclasses.is_dataclass(kind) or name not in (hints := get_type_hints(kind)):
            return None
        rule = next(one.metadata.get("rule", Rule()) for one in dataclasses.fields(kind) if one.name == name)
        kind = hints[name]
    return kind, rule
