"""Golden values of every scheme and extension; `python tests/golden/golden.py` writes those of new versions.

Identities of models and cells contain the version of the scheme and extension. If numbers changed without a new
version, rows from before and after the change would have the same identity.
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
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.scheme import PositionScheme

FILE = Path(__file__).with_name("numbers.json")
CONFIGS = Path(__file__).parents[2] / "configs"
SIZE, TRAIN_LEN, VOCABULARY = Size(n_layers=2, d_model=32, n_heads=4), 16, 50


def listed(group: str) -> dict[str, Any]:
    """Returns the build settings of each yaml of a group by file name."""
    files = sorted((CONFIGS / group).glob("*.yaml"))
    return {file.stem: yaml.safe_load(file.read_text())["build"] for file in files}


def names() -> list[str]:
    """Returns the names of all schemes, and of all extensions with a leading +."""
    return [*listed("scheme"), *(f"+{name}" for name, settings in listed("extension").items() if settings)]


def numbers(scheme: PositionScheme, model: GPT, length: int) -> list[float]:
    """Returns a few final hidden states in float64, computed with the reference kernel."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (1, length), generator=draw)
    torch.manual_seed(2)  # for schemes that draw in the forward pass
    with torch.no_grad():
        hidden, _ = model.with_scheme(scheme)(ids, kernel=KernelDispatcher("dense"))
    return [round(value, 9) for value in hidden[0, [length // 2, -1], :3].flatten().tolist()]


def measure(name: str, carrier: str | None = None) -> dict[str, Any]:
    """Returns the entry of one name; an extension is measured around `carrier`, or the first compatible scheme."""
    schemes, shape = listed("scheme"), SIZE.shape(TRAIN_LEN)
    extension = listed("extension")[name[1:]] if name.startswith("+") else None
    for scheme_name in [carrier or name] if carrier or extension is None else schemes:
        scheme = build_scheme(schemes[scheme_name], shape, 0)
        model = GPT(SIZE, VOCABULARY, scheme, 0).double().eval()
        if extension is None:
            return {"version": scheme.version, "numbers": numbers(scheme, model, TRAIN_LEN)}
        try:
            length = 3 * TRAIN_LEN
            around = instantiate(extension, Extension, scheme, ExtensionContext(shape, length))
            return {
                "version": around.version,
                "carrier": scheme_name,
                "numbers": numbers(around, model, length),
            }
        except PosbenchError:
            continue
    raise AssertionError(f"no scheme is compatible with {name}")


def main() -> None:
    """Writes entries that are new or of a new version; keeps the others, which the test checks."""
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
