"""Checks of settings that no schema expresses."""

from posbench.config.schema import TrainSettings
from posbench.errors import ConfigError


def check(settings: TrainSettings) -> None:
    """Raise ConfigError for settings that no training can have."""
    for name in ("length", "steps", "batch", "accumulate", "validate_every"):
        if getattr(settings, name) < 1:
            raise ConfigError(f"train.{name} {getattr(settings, name)}: give at least 1")
    for name in ("records", "asked", "warmup", "decay"):
        if not 0 <= getattr(settings, name) <= 1:
            raise ConfigError(f"train.{name} {getattr(settings, name)}: give a share from 0 to 1")
    if settings.batch % settings.accumulate:
        raise ConfigError(
            f"train.accumulate {settings.accumulate} does not divide train.batch {settings.batch}: choose a divisor"
        )
    if settings.optimizer not in ("muon", "adamw"):
        raise ConfigError(f"train.optimizer {settings.optimizer!r}: give muon or adamw")
