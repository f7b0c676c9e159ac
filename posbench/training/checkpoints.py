"""Checkpoint folders: safetensors files and metadata.json, written under a temporary name and renamed when complete."""

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

# Version of the layout, including the names of parameters.
FORMAT = 3


def write(folder: Path, tensors: dict[str, dict[str, Tensor]], metadata: dict[str, Any]) -> None:
    """Writes one safetensors file for each group of `tensors`, and the metadata, in place of an existing `folder`."""
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
    """Returns the metadata of a complete checkpoint of this format, or None if there is none.

    A folder that is damaged, incomplete or of another format is set aside with a warning.
    """
    if not folder.is_dir():
        return None
    try:
        metadata = json.loads((folder / "metadata.json").read_text())
        if metadata["format"] != FORMAT:
            raise ValueError(f"format {metadata['format']}, this version writes {FORMAT}")
        for name, size in metadata["sizes"].items():
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{name} has {(folder / name).stat().st_size} bytes of {size}")
    except (OSError, ValueError, KeyError) as error:
        set_aside(folder, error)
        return None
    return metadata


def tensors(folder: Path, name: str, device: torch.device | str = "cpu") -> dict[str, Tensor] | None:
    """Loads one group of tensors, or sets the folder aside with a warning and returns None if it cannot be read."""
    try:
        return load_file(folder / f"{name}.safetensors", device=str(device))
    except (OSError, SafetensorError) as error:
        set_aside(folder, error)
        return None


def set_aside(folder: Path, reason: object) -> None:
    """Renames a broken folder to <name>.broken, so that it can be inspected and its content is made again."""
    broken = folder.with_name(folder.name + ".broken")
    shutil.rmtree(broken, ignore_errors=True)
    folder.rename(broken)
    log.warning("%s is broken (%s): set aside as %s and made again", folder, reason, broken.name)
