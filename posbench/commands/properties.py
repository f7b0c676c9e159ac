"""Measures the properties of position schemes on their definitions, before any training, and writes a card of all.

Relativity, decay with distance, behavior past the training length, uniqueness of positions, cost and others, each
measured through the hooks of a scheme. Tables and figures go to results/properties.

most used settings:
  'schemes=[rope,alibi]'                 these schemes, by default all (posbench list schemes)
  costs=false                            leave out time and memory, which differ by machine
  results_dir=results/published          another results folder, by default results

examples:
  posbench properties
  posbench properties 'schemes=[rope,alibi]' costs=false
"""

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from posbench.commands import settings_command
from posbench.config import config_dir
from posbench.config.schema import PropertiesScript
from posbench.config.validation import check_given_list
from posbench.files import check_writable


def main(arguments: Sequence[str]) -> int:
    command = shlex.join(["posbench", "properties", *arguments])
    return settings_command.main("properties", __doc__, partial(run, command=command), arguments)


def run(script: PropertiesScript, command: str) -> None:
    """Measures all schemes of configs/scheme, or those that are named.

    Args:
        command: what was called, for captions.
    """
    from posbench.config.hydra_app import given_keys, load_option

    check_given_list("schemes", script.schemes, given_keys())
    names = script.schemes or sorted(path.stem for path in (config_dir() / "scheme").glob("*.yaml"))
    builds = {name: load_option("scheme", name)["build"] for name in names}
    extensions = {
        path.stem: load_option("extension", path.stem)["build"]
        for path in sorted((config_dir() / "extension").glob("*.yaml"))
    }
    import torch

    from posbench.properties.report import write

    torch.set_num_threads(1)
    folder = Path(script.results_dir) / "properties"
    check_writable(folder)
    written = write(builds, folder, command, script.costs, extensions)
    print(f"{len(written)} tables and figures of {len(names)} schemes in {folder}")
