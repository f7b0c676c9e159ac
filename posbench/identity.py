"""Names that are functions of content: the same settings give the same name, on every machine."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def identity(content: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
