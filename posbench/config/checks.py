"""Checks of training settings beyond their types."""

from posbench.config.schema import TrainSettings
from posbench.errors import ConfigError


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
