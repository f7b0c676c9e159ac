"""What a user can get wrong. Each message is one line: what was given, what is allowed, what to do."""

import difflib
from collections.abc import Iterable, Sequence

from posbench.renamed import current_name


class PosbenchError(Exception):
    """A user's mistake or a limit: scripts print its message as one line and exit with status 2."""


class ConfigError(PosbenchError):
    """A setting that is unknown, of the wrong type or out of its range."""


class LengthError(PosbenchError):
    """A length that cannot be reached exactly, or that a scheme, task or corpus does not allow."""


class IncompatibleError(PosbenchError):
    """Parts that cannot work together, such as an extension on a scheme without what it needs."""


class DataError(PosbenchError):
    """Text or files that are missing, empty, changed or not what they claim to be."""


class UndefinedError(PosbenchError):
    """A model that has no answer here by definition, such as a learned table past its length."""


def format_error(error: BaseException) -> str:
    """Somebody else's error in one line: the first that says something, which a compiler's first does not."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.endswith("raised:")]
    return f"{type(error).__name__}: {telling[0][:300]}" if telling else type(error).__name__


def unknown(kind: str, given: str, allowed: Iterable[str]) -> ConfigError:
    """Returns the error for a name that is not in a closed list, with a hint at the name that is meant."""
    names = sorted(allowed)
    return ConfigError(f"unknown {kind} {given!r}: choose one of {', '.join(names)}{hint(given, names)}")


def hint(given: str, allowed: Sequence[str]) -> str:
    """Returns the end of an error line: the current name of an old name, or else the most similar name, if any."""
    if name := current_name(given, allowed):
        return f"; it is called {name!r} now"
    similar = difflib.get_close_matches(given, allowed, n=1)
    return f"; did you mean {similar[0]!r}?" if similar else ""
