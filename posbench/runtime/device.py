"""Device and precision selection."""

from __future__ import annotations

import gc
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch

from posbench.errors import ConfigError
from posbench.runtime.allocator import release_freed_memory


def pick_device(name: str) -> torch.device:
    """Returns the device of a name; "auto" is a GPU if there is one, otherwise the CPU.

    Raises:
        ConfigError: if the name is not a device, or a GPU that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r}: give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r}: this machine has no CUDA device; give cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices; give cuda:0 to "
            f"cuda:{torch.cuda.device_count() - 1}"
        )
    return device


def free_memory() -> None:
    """Returns memory that no object uses to the device and the system, where other processes may need it."""
    gc.collect()  # of models in reference cycles, such as those of compiled code
    release_freed_memory()
    if torch.cuda.is_initialized():
        with suppress(RuntimeError):  # of a device that an earlier error has ended
            torch.cuda.empty_cache()


def autocast_context(device: torch.device, dtype: str) -> AbstractContextManager[Any]:
    """Returns an autocast context for bfloat16, or an empty context for float32."""
    if dtype == "float32":
        return nullcontext()
    if dtype == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    raise ConfigError(f"dtype {dtype!r}: give float32 or bfloat16")
