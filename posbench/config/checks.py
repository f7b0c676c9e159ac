"""Checks of training settings that concern two fields; each alone is checked by posbench.config.validation."""

import re

from posbench.config.data import DataSettings
from posbench.config.schema import TrainSettings
from posbench.config.validation import validate
from posbench.errors import ConfigError

FINGERPRINT = re.compile(r"[0-9a-f]{16}")


def check_fingerprint(settings: DataSettings) -> None:
    """Raises ConfigError for a fingerprint that is not one: it is the name of a folder in the cache."""
    if settings.fingerprint and not FINGERPRINT.fullmatch(settings.fingerprint):
        raise ConfigError(
            f"data.fingerprint {settings.fingerprint!r}: give 16 hexadecimal digits, the name of a corpus in "
            "runtime.cache_dir, or remove it"
        )


def check(settings: TrainSettings) -> None:
    """Raises ConfigError for training settings out of their range."""
    validate(settings, "train.")
    if settings.batch_size % settings.grad_accum_steps:
        raise ConfigError(
            f"train.grad_accum_steps {settings.grad_accum_steps} does not divide train.batch_size {settings.batch_size}: choose a divisor"
        )
