"""The rule for names that become a folder, a file or a label of tables and figures."""

import re

from posbench.errors import ConfigError

RULE = "letters, digits and . _ + -, at most 64, the first a letter or a digit"
FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
# Folders of a results folder that are not experiments.
RESERVED = frozenset(
    {
        "benchmark",
        "cells",
        "gpu-check",
        "jobs",
        "locks",
        "models",
        "multirun",
        "properties",
        "published",
        "search",
        "slurm",
        "sweeps",
        "tensorboard",
        "trackio",
        "wandb",
    }
)
CHECKPOINT = re.compile(r"step-\d+", re.IGNORECASE)

# Metadata of a settings field that holds such a name.
NAME = {"is_name": True}


def check_name(key: str, name: object) -> None:
    """Raises ConfigError unless `name` can be a name.

    Args:
        key: the setting that holds it, or the file, for the message.
    """
    if not isinstance(name, str) or not FORM.fullmatch(name):
        raise ConfigError(f"{key} {name!a:.80}: give a name of {RULE}")
    if name.lower() in RESERVED or CHECKPOINT.fullmatch(name):
        raise ConfigError(
            f"{key} {name!r}: posbench has folders of this name ({', '.join(sorted(RESERVED))}, step-N); choose another"
        )
