"""The command line, `posbench COMMAND ...`: a module for each command, imported when the command runs."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from posbench.errors import PosbenchError, unknown
from posbench.runtime import signals, torchrun

# Command -> (module of this package, what it does).
COMMANDS = {
    "train": ("train", "train one model"),
    "evaluate": ("evaluate", "evaluate one trained or pretrained model on one task"),
    "sweep": ("sweep", "run an experiment: train, evaluate, tabulate and draw"),
    "status": ("status", "show what is done, running, failed and left in a results folder"),
    "worker": ("worker", "work on a sweep of a results folder, as launchers do"),
    "export": ("export", "write a model as a folder that transformers loads without posbench"),
    "search": ("search", "search the factors of LongRoPE for one model"),
    "figures": ("figures", "redraw tables and figures from stored rows, without torch"),
    "report": ("report", "write the results as one HTML file for the browser, without torch"),
    "results": ("results", "export the rows of a results folder, or import those of others"),
    "reproductions": ("reproductions", "set the numbers of papers beside stored rows, with verdicts"),
    "properties": ("properties", "measure the properties of position schemes before training"),
    "benchmark": ("benchmark", "time posbench beside other implementations"),
    "gpu-check": ("gpu_check", "compare every scheme on a GPU with the reference kernel"),
    "list": ("list_choices", "list schemes, extensions, tasks, experiments and other choices"),
    "describe": ("describe", "show the formula, the paper and the settings of one choice"),
    "completion": ("completion", "print a script that completes commands and settings in a shell"),
}
# Commands that save their progress, and continue from it.
RESUMABLE = ("train", "evaluate", "sweep", "worker", "search")
HELP_FLAGS = ("-h", "--help")

OVERVIEW = """\
usage: posbench COMMAND [ARGUMENTS]

Trains small language models that differ only in their position scheme, evaluates them past their training
length, and draws the tables and figures.

commands:
{commands}

Start with
  posbench sweep experiment=demo      seven schemes in minutes on two CPU cores, without a download
  posbench list                       every scheme, extension, task and experiment
  posbench COMMAND --help             what a command does, with examples

Results go to results/ and caches to .cache/posbench, both in the current folder.
"""


def main(*command: str) -> None:
    """Runs the command line, after the words of `command`, and exits with its status."""
    arguments = [*command, *sys.argv[1:]]
    signals.last_line = signals.CONTINUES if arguments[:1] and arguments[0] in RESUMABLE else signals.STOPPED
    signals.exit_on_signals()
    prepare_output()
    if torchrun.world_size() > 1:
        with (
            signals.delayed_signals()
        ):  # before, a rank cannot know whether another one has printed the last line
            import_module("posbench.runtime.distributed").print_once()
    try:
        status = run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except signals.Interrupted as stopped:
        status = stopped.report()
    sys.exit(status)


def prepare_output() -> None:
    """Makes stdout and stderr take every character, in any encoding, and also if they are closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8", errors="backslashreplace"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit status: 0, 2 for a mistake of the user, or one that the command defines."""
    if "_ARGCOMPLETE" in os.environ:  # the shell runs the command for completions, through argcomplete
        load("completion").complete()
    name, *rest = arguments or HELP_FLAGS
    if name in HELP_FLAGS:
        print(overview(), end="")
        return 0
    if name == "--version":
        from importlib.metadata import version

        print(f"posbench {version('posbench')}")
        return 0
    try:
        if name not in COMMANDS:
            raise unknown("command", name, COMMANDS)
        return load(name).main(rest)
    except PosbenchError as error:
        signals.report_error(error)
        return 2


def load(name: str) -> Any:
    """Imports the module of a command."""
    return import_module(f"{__name__}.{COMMANDS[name][0]}")


def overview() -> str:
    """Returns the help of `posbench` itself."""
    width = max(map(len, COMMANDS))
    lines = (f"  {name:{width}}  {line}" for name, (_, line) in COMMANDS.items())
    return OVERVIEW.format(commands="\n".join(lines))
