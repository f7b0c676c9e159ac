"""Checks of training settings beyond their types."""

import re

from posbench.config.data import DataSettings
from posbench.config.schema import TrainSettings
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
    for name in ("seq_len", "steps", "batch_size", "grad_accum_steps", "val_interval"):
        if getattr(settings, name) < 1:
            raise ConfigError(f"train.{name} {getattr(settings, name)}: give at least 1")
    for name in ("synthetic_fraction", "query_fraction", "warmup_fraction", "decay_fraction"):
        if not 0 <= getattr(settings, name) <= 1:
            raise ConfigError(f"train.{name} {getattr(settings, name)}: give a fraction from 0 to 1")
    if settings.batch_size % settings.grad_accum_steps:
        raise ConfigError(
            f"train.grad_accum_steps {settings.grad_accum_steps} does not divide train.batch_size {settings.batch_size}: choose a divisor"
        )
    if settings.optimizer not in ("muon", "adamw"):
        raise ConfigError(f"train.optimizer {settings.optimizer!r}: give muon or adamw")
