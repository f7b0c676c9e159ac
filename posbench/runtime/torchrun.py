"""The processes that torchrun has started, from the environment variables of this one; without torch."""

import os

from posbench.errors import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def world_size() -> int:
    """Returns the number of processes of torchrun, and 1 for a process that torchrun has not started.

    Launch scripts and images of clusters set some of its variables. Such a process is not one of several.
    """
    if not all(os.environ.get(name) for name in VARIABLES):
        return 1
    numbers = os.environ["RANK"], os.environ["WORLD_SIZE"]
    return int(numbers[1]) if all(number.isdecimal() for number in numbers) else 1


def rank() -> int:
    """Returns the index of this process among those of torchrun, and 0 without torchrun."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


def check_environment() -> None:
    """Raises ConfigError if the variables of torchrun describe several processes, but not which one this is."""
    given = os.environ.get("WORLD_SIZE", "")
    if world_size() == 1 and given not in ("", "0", "1"):
        missing = [name for name in VARIABLES if not os.environ.get(name)]
        what = f"{', '.join(missing)} not set" if missing else f"RANK is {os.environ['RANK']!r}"
        raise ConfigError(
            f"WORLD_SIZE is {given!r} and {what}: start the command with torchrun for several GPUs, or unset WORLD_SIZE"
        )
