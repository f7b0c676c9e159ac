"""Identities of models and cells: hashes of their settings, the same on every machine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from typing import Any, get_type_hints

# Metadata of a field that was added to a settings class after results had been published. At its default value it is
# left out of the hash, so that the identities of models from before the field existed stay as they are.
HASH_IF_SET = {"hash_if_set": True}


def identity(content: Any) -> str:
    """Returns 16 hexadecimal digits of the SHA-256 of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hashed_fields(settings: Any) -> dict[str, Any]:
    """Returns the fields of a settings dataclass that enter a hash: all but HASH_IF_SET fields at their default.

    A whole number in a field of type float is a float, so that 0 and 0.0 are one setting.
    """
    omitted = {
        one.name
        for one in fields(settings)
        if one.metadata.get("hash_if_set") and getattr(settings, one.name) == one.default
    }
    hints = get_type_hints(type(settings))
    return {
        key: float(value) if type(value) is int and hints[key] is float else value
        for key, value in asdict(settings).items()
        if key not in omitted
    }
