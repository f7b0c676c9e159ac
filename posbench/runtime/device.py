"""Where a model is computed, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from posbench.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r}: give auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r}: this machine has no CUDA device; give device=cpu or auto")
    return device


def autocast_context(device: torch.device, dtype: str) -> AbstractContextManager[Any]:
    """Autocast to bfloat16, or nothing for float32."""
    if dtype == "float32":
        return nullcontext()
    if dtype == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    raise ConfigError(f"dtype {dtype!r}: give float32 or bfloat16")
