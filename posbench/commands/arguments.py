"""Argument parsers of the commands that take flags, from the docstring and `add_arguments` of their modules."""

import argparse
from typing import NoReturn

from posbench.commands import load
from posbench.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are a ConfigError, printed as one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def parser(command: str) -> argparse.ArgumentParser:
    """Returns the parser of a command."""
    module = load(command)
    made = Parser(
        prog=f"posbench {command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(made)
    return made
