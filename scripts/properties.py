"""Measure what makes a good position scheme on every scheme's own definition: python scripts/properties.py."""

from pathlib import Path

import torch

from posbench.config.hydra_app import config_dir, load_option, run_app
from posbench.config.schema import PropertiesScript
from posbench.properties.report import write


def main(script: PropertiesScript) -> None:
    """All schemes of configs/scheme, or those that are named."""
    torch.set_num_threads(1)
    names = script.schemes or sorted(path.stem for path in (config_dir() / "scheme").glob("*.yaml"))
    found = {name: load_option("scheme", name)["build"] for name in names}
    folder = Path(script.results_dir) / "properties"
    written = write(found, folder, script.costs)
    print(f"{len(written)} tables and figures of {len(names)} schemes in {folder}")


if __name__ == "__main__":
    run_app("properties", main)
