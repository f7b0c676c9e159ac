"""Settings and masks of attention that is limited to a number of tokens."""

from posbench.errors import ConfigError
from posbench.position.geometry import Mask
from posbench.position.masks import SlidingWindow
from posbench.position.scheme import AttentionInputs, ModelShape


def tokens_within_train_len(
    shape: ModelShape, setting: str, given: int | None, default: int, default_text: str
) -> int:
    """Returns a setting in tokens, or its default where None is given.

    Args:
        setting: name of the setting in the error.
        default_text: the default as a part of the training length, for the error, such as "half of it".

    Raises:
        ConfigError: below 1, or above the training length, where nothing would be hidden in training.
    """
    tokens = default if given is None else given
    if not 1 <= tokens <= shape.train_len:
        raise ConfigError(
            f"{setting} {tokens}: give at least 1 token and at most the training length, {shape.train_len}, or null "
            f"for {default_text}"
        )
    return tokens


def sliding_window(tokens: int, inputs: AttentionInputs) -> Mask | None:
    """Returns the mask of the nearest `tokens` keys, the query's own included, or None where it hides no key."""
    # The fastest kernels take no mask.
    return None if inputs.geo.key_span <= tokens else SlidingWindow(tokens)
