"""The argument parser of each command, from its module's docstring and `add_arguments`."""

import argparse
from typing import NoReturn

from posbench.commands import load
from posbench.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def parser(command: str) -> argparse.ArgumentParser:
    """The parser of a command that takes flags rather than settings."""
    module = load(command)
    made = Parser(
        prog=f"posbench {command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(made)
    return made
