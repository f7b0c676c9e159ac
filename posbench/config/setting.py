"""Fields of settings with the values that they allow, declared where the field is."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posbench.identity import HASH_IF_SET
from posbench.names import NAME

# The largest number of threads or processes: several for each core, so that a config fits small and large machines.
MAX_PROCESSES = max(64, 4 * (os.cpu_count() or 1))
DTYPES = ("float32", "bfloat16")
MAX_SEED = 2**31 - 1
# Bounds of counts, far above any experiment; what fits on this machine is estimated in posbench.plan.feasibility.
MAX_COUNT = 10**9


@dataclass(frozen=True)
class Rule:
    """The allowed values of a field; for a list, of each entry.

    Attributes:
        least, most: smallest and largest number.
        above, below: numbers that are outside the range themselves.
        choices: all allowed values.
        pattern: a regular expression that a text matches as a whole, and its description.
        keys_of: settings class of which a dictionary has some fields.
        lists_of: settings class of which a dictionary has some fields, each with a list of values.
        keys: names that a dictionary may have.
        target: whether a dictionary must name the class to create, in `_target_`.
        used_with: other fields of the class, each with the values with which this one has an effect.
        commands: the commands in which it has an effect; empty is all.
        distinct: whether a list must not have a value twice.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: Sequence[Any] = ()
    pattern: tuple[str, str] | None = None
    keys_of: Callable[[], type] | None = None
    lists_of: Callable[[], type] | None = None
    keys: Sequence[str] = ()
    target: bool = False
    used_with: Mapping[str, Rule] = field(default_factory=dict)
    commands: Sequence[str] = ()
    distinct: bool = True

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        return " or ".join(map(str, self.choices)) or self.numbers

    @property
    def numbers(self) -> str:
        """The allowed numbers in words."""
        if self.least is not None and self.most is not None and self.most - self.least <= 1:
            return f"a number from {self.least:g} to {self.most:g}"
        words = {"at least": self.least, "above": self.above, "below": self.below, "at most": self.most}
        return "a number " + " and ".join(
            f"{word} {value:.15g}" for word, value in words.items() if value is not None
        )


def setting(
    default: Any = dataclasses.MISSING, *, hash_if_set: bool = False, is_name: bool = False, **rule: Any
) -> Any:
    """Returns a dataclass field with a Rule.

    Args:
        default: a value, or a function without arguments that returns a list or dictionary.
        hash_if_set: as posbench.identity.HASH_IF_SET.
        is_name: whether it holds a name, or names, that posbench.names.check_name must allow.
        rule: arguments of Rule.
    """
    metadata = {"rule": Rule(**rule)} | (HASH_IF_SET if hash_if_set else {}) | (NAME if is_name else {})
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def nonempty(description: str) -> tuple[str, str]:
    """Returns a pattern for a text that is not empty."""
    return r"[\s\S]*\S[\s\S]*", description


FOLDER = nonempty("a folder")
