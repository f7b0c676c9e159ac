"""Names that are functions of content: the same settings give the same name, on every machine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from typing import Any

# Metadata of a settings' field that came after names had been given: at its default it is no part of them.
HASH_IF_SET = {"hash_if_set": True}


def identity(content: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hashed_fields(settings: Any) -> dict[str, Any]:
    """A dataclass of settings as what a name is made of; its fields that came later only where they say something."""
    silent = {
        one.name
        for one in fields(settings)
        if one.metadata.get("hash_if_set") and getattr(settings, one.name) == one.default
    }
    return {key: value for key, value in asdict(settings).items() if key not in silent}
