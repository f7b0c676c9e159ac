"""Help and entry point of the commands that take Hydra overrides."""

from collections.abc import Callable, Sequence
from typing import Any

from posbench.commands import HELP_FLAGS
from posbench.runtime.signals import report_error

FOOTER = """\
options:
  --cfg job              print all settings and run nothing
  --multirun             run once for every combination of values: KEY=VALUE,VALUE KEY=VALUE,VALUE
  --config-dir FOLDER    also search FOLDER for choices of your own, such as FOLDER/scheme/mine.yaml
  allow=[my_schemes]     let them use classes of the package my_schemes

Quote values with brackets or spaces. `posbench list GROUP` shows the choices of a group, `posbench describe NAME`
the settings of one choice, and `posbench completion bash` makes the shell complete both.
"""


def main(command: str, doc: str | None, run: Callable[[Any], None], arguments: Sequence[str]) -> int:
    """Prints the help of a command, or composes its settings and passes them to `run`; returns the exit status."""
    if not {*HELP_FLAGS}.isdisjoint(arguments):
        print(
            f"usage: posbench {command} [KEY=VALUE ...] [OPTIONS]\n\n{(doc or '').strip()}\n\n{FOOTER}",
            end="",
        )
        return 0
    from posbench.config import overrides
    from posbench.config.hydra_app import run_app
    from posbench.config.keys import SCHEMAS

    return run_app(
        command,
        lambda script: run(overrides.expand_home(script)),
        overrides.quote_texts(SCHEMAS[command], arguments),
        report_error,
    )
