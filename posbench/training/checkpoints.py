"""Checkpoint folders: safetensors files and metadata.json, written under a temporary name and renamed when complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from posbench import checksums
from posbench.files import atomic_path, set_aside

# Version of the layout, including the names of parameters.
FORMAT = 3


def write(folder: Path, tensors: dict[str, dict[str, Tensor]], metadata: dict[str, Any]) -> None:
    """Writes one safetensors file for each group of `tensors`, and the metadata, in place of an existing `folder`."""
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name, group in tensors.items():
            _save(group, temporary / f"{name}.safetensors")
        files = sorted(temporary.iterdir())
        sizes = {path.name: path.stat().st_size for path in files}
        digests = {path.name: checksums.file_digest(path) for path in files}
        document = {"format": FORMAT, "sizes": sizes, "sha256": digests, **metadata}
        (temporary / "metadata.json").write_bytes(checksums.dump_json(document))


def read_metadata(folder: Path) -> dict[str, Any] | None:
    """Returns the metadata of a complete checkpoint of this format, or None if there is none.

    A folder that is damaged, incomplete or of another format is set aside with a warning. Every file is verified, once
    per process.

    Raises:
        DataError: if a file cannot be read at the moment.
    """
    if not folder.is_dir():
        return None
    try:
        metadata = checksums.read_json(folder / "metadata.json")
        if metadata["format"] != FORMAT:
            raise ValueError(f"format {metadata['format']}, this version writes {FORMAT}")
        for name, size in metadata["sizes"].items():
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{name} has {(folder / name).stat().st_size} bytes of {size}")
        checksums.verify_listed(folder, metadata.get("sha256", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        set_aside(folder, error)
        return None
    return metadata


def read(folder: Path, name: str) -> tuple[dict[str, Any] | None, dict[str, Tensor] | None]:
    """Returns the metadata of a complete checkpoint and one group of its tensors, or None where there is none."""
    metadata = read_metadata(folder)
    return metadata, tensors(folder, name) if metadata is not None else None


def tensors(folder: Path, name: str, device: torch.device | str = "cpu") -> dict[str, Tensor] | None:
    """Loads one group of tensors, or sets the folder aside with a warning and returns None if it cannot be read."""
    path = folder / f"{name}.safetensors"
    try:
        path.open("rb").close()  # raises the system's error; safetensors reports any as a missing file
        return load_file(path, device=str(device))
    except (OSError, SafetensorError) as error:
        set_aside(folder, error)
        return None


def _save(group: dict[str, Tensor], path: Path) -> None:
    try:
        save_file({key: tensor.contiguous() for key, tensor in group.items()}, path)
    except SafetensorError as error:  # for example a full disk
        raise OSError(str(error)) from None
