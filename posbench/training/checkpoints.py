"""Folders of tensors that are whole or not there: written under a temporary name and renamed."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from posbench.files import atomic_path

log = logging.getLogger(__name__)

FORMAT = 3


def write(folder: Path, tensors: dict[str, dict[str, Tensor]], metadata: dict[str, Any]) -> None:
    """`folder` with one safetensors file for each of `tensors`, and metadata.json."""
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        sizes = {}
        for name, group in tensors.items():
            path = temporary / f"{name}.safetensors"
            save_file({key: tensor.contiguous() for key, tensor in group.items()}, path)
            sizes[path.name] = path.stat().st_size
        (temporary / "metadata.json").write_text(
            json.dumps({"format": FORMAT, "sizes": sizes, **metadata}, indent=1)
        )


def read_metadata(folder: Path) -> dict[str, Any] | None:
    """What was written beside the tensors; None if there is no whole folder of this version.

    One that is torn, cut short or of another version is said and set aside, to be made again.
    """
    if not folder.is_dir():
        return None
    try:
        found = json.loads((folder / "metadata.json").read_text())
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']}, this version writes {FORMAT}")
        for name, size in found["sizes"].items():
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{name} has {(folder / name).stat().st_size} bytes of {size}")
    except (OSError, ValueError, KeyError) as error:
        set_aside(folder, error)
        return None
    return found


def tensors(folder: Path, name: str, device: torch.device | str = "cpu") -> dict[str, Tensor] | None:
    """One of the groups of tensors, or None if it cannot be read, which is said and set aside."""
    try:
        return load_file(folder / f"{name}.safetensors", device=str(device))
    except (OSError, SafetensorError) as error:
        set_aside(folder, error)
        return None


def set_aside(folder: Path, why: object) -> None:
    """Rename a broken folder, so that it is made again and can be looked at."""
    broken = folder.with_name(folder.name + ".broken")
    shutil.rmtree(broken, ignore_errors=True)
    folder.rename(broken)
    log.warning("%s is broken (%s): set aside as %s and made again", folder, why, broken.name)


def latest_first(folder: Path, pattern: str) -> list[Path]:
    """The folders that match, the last name first; leftovers of a killed writer are not among them."""
    return sorted((path for path in folder.glob(pattern) if path.suffix == ""), reverse=True)
