"""Errors that a user can cause. Each message is one line: what was given, what is allowed, what to do."""

import difflib
from collections.abc import Iterable, Sequence

from posbench.renamed import RENAMED, current_name


class PosbenchError(Exception):
    """A mistake of the user or a limit of the software; commands print its one-line message and exit with status 2."""


class ConfigError(PosbenchError):
    """A setting that is unknown, of a wrong type or out of its range."""


class LengthError(PosbenchError):
    """A length that cannot be met exactly, or that a scheme, task or corpus does not allow."""


class IncompatibleError(PosbenchError):
    """Parts that cannot be combined, such as an extension and a scheme without the capability that it needs."""


class TaskMismatchError(IncompatibleError):
    """A task on a model that was trained on other sequences, or on an ensemble that cannot answer it."""


class DataError(PosbenchError):
    """Text or files that are missing, empty, changed or malformed."""


class UndefinedError(PosbenchError):
    """An input for which a model is not defined, such as a position past the end of a learned table."""


def format_error(error: BaseException) -> str:
    """Returns the class of an error and the first line of its message that is not a compiler's "... raised:"."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.endswith("raised:")]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def unknown(kind: str, given: str, allowed: Iterable[str]) -> ConfigError:
    """Returns the error for a name that is not in a closed list, with a hint at the name that is meant."""
    names = sorted(allowed)
    if not names:
        return ConfigError(f"unknown {kind} {given!r}: there are none, remove it")
    return ConfigError(f"unknown {kind} {given!r}: choose one of {', '.join(names)}{hint(given, names)}")


def hint(given: str, allowed: Sequence[str]) -> str:
    """Returns the end of an error line: the current name of an old name, or else the most similar name, if any."""
    if name := current_name(given, allowed):
        return f"; it is called {name!r} now"
    parent, dot, last = given.rpartition(".")
    if not dot and (same := [one for one in allowed if one.endswith(f".{last}")]):
        return f"; did you mean {same[0]!r}?"
    beside = {one.rpartition(".")[2].lower(): one for one in allowed if one.rpartition(".")[0] == parent}
    similar = [
        beside.get(name) or current_name(f"{parent}{dot}{name}", allowed)
        for name in difflib.get_close_matches(last.lower(), [*beside, *RENAMED])
    ]
    if not beside:  # perhaps the group is misspelled
        similar = [*difflib.get_close_matches(given, allowed, n=1, cutoff=0.75)]
    similar += [one for one in allowed if dot and one.rpartition(".")[2] == last]  # in another group
    return next((f"; did you mean {name!r}?" for name in similar if name), "")
