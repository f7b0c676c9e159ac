"""The argument parser of each command, from its module's docstring and `add_arguments`."""

import argparse

from posbench.commands import load


def parser(command: str) -> argparse.ArgumentParser:
    """The parser of a command that takes flags rather than settings."""
    module = load(command)
    made = argparse.ArgumentParser(
        prog=f"posbench {command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(made)
    return made
