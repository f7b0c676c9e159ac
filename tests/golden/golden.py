"""Numbers that must not change unless a version does: `python tests/golden/golden.py` writes what is new.

Identities of models and cells hold a version for each scheme and extension. If its numbers change and its
version does not, rows of before and after would pass for the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml

from posbench.errors import PosbenchError
from posbench.instantiate import instantiate
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.model.gpt import GPT, Size, build_scheme
from posbench.position.extension import ExtensionContext
from posbench.position.scheme import PositionScheme

FILE = Path(__file__).with_name("numbers.json")
CONFIGS = Path(__file__).parents[2] / "configs"
SIZE, TRAIN_LEN, VOCABULARY = Size(n_layers=2, d_model=32, n_heads=4), 16, 50


def listed(group: str) -> dict[str, Any]:
    """The build settings of each choice of a group."""
    files = sorted((CONFIGS / group).glob("*.yaml"))
    return {file.stem: yaml.safe_load(file.read_text())["build"] for file in files}


def names() -> list[str]:
    """Every scheme, and every extension by its name behind a +."""
    return [*listed("scheme"), *(f"+{name}" for name, settings in listed("extension").items() if settings)]


def numbers(scheme: PositionScheme, model: GPT, length: int) -> list[float]:
    """A few final hidden states, in float64, on the kernel that is the specification."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (1, length), generator=draw)
    torch.manual_seed(2)  # for what draws as it runs
    with torch.no_grad():
        hidden, _ = model.with_scheme(scheme)(ids, kernel=KernelDispatcher("dense"))
    return [round(value, 9) for value in hidden[0, [length // 2, -1], :3].flatten().tolist()]


def measure(name: str, carrier: str | None = None) -> dict[str, Any]:
    """The entry of one name; an extension is measured around `carrier`, or the first scheme that can carry it."""
    schemes, shape = listed("scheme"), SIZE.shape(TRAIN_LEN)
    extension = listed("extension")[name[1:]] if name.startswith("+") else None
    for scheme_name in [carrier or name] if carrier or extension is None else schemes:
        scheme = build_scheme(schemes[scheme_name], shape, 0)
        model = GPT(SIZE, VOCABULARY, scheme, 0).double().eval()
        if extension is None:
            return {"version": scheme.version, "numbers": numbers(scheme, model, TRAIN_LEN)}
        try:
            length = 3 * TRAIN_LEN
            around = instantiate(extension, scheme, ExtensionContext(shape, length))
            return {
                "version": around.version,
                "carrier": scheme_name,
                "numbers": numbers(around, model, length),
            }
        except PosbenchError:
            continue
    raise AssertionError(f"no scheme can carry {name}")


def main() -> None:
    """Write entries that are new or of a new version; leave the others, right or wrong, to the test."""
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    written = {}
    for name in names():
        entry = measure(name, known.get(name, {}).get("carrier"))
        kept = known.get(name, {}).get("version") == entry["version"]
        written[name] = known[name] if kept else entry
        if not kept:
            print(f"{name}: version {entry['version']}")
    FILE.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
