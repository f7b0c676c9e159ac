"""Checks of training settings that concern two fields; each alone is checked by posbench.config.validation."""

from posbench.config.schema import TrainSettings
from posbench.config.validation import validate
from posbench.errors import ConfigError


def check(settings: TrainSettings) -> None:
    """Raises ConfigError for training settings out of their range."""
    validate(settings, "train.")
    if settings.batch_size % settings.grad_accum_steps:
        raise ConfigError(
            f"train.grad_accum_steps {settings.grad_accum_steps} does not divide train.batch_size {settings.batch_size}: choose a divisor"
        )
