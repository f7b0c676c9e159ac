"""Behaviour beyond the training length: logits of distant keys, and the range of logits."""

from __future__ import annotations

import torch

from posbench.properties.probe import EXACT, MULTIPLES, SchemeProbe, last_token_logits

UNDEFINED, HIDDEN, POSITION_BLIND, CONSTANT, CHANGING = (
    "undefined",
    "hidden",
    "position_blind",
    "constant",
    "changing",
)


def length_behavior(probe: SchemeProbe) -> dict[str, object]:
    """Returns the behaviour of the last token's logits at each multiple of the training length.

    The behaviour is that of the more distant half of the keys. undefined: the scheme does not support the length.
    hidden: these keys are masked. position_blind: the logits of all positions are equal. constant: the logits of these
    keys are equal. changing: they are not. `visible_fraction` is the fraction of these keys that some head of some layer
    attends to. `excess` is about all keys, since distances beyond the training length begin in the nearer half: the
    largest distance of a visible logit from the range of logits at the training length (nats).
    """
    train_len = probe.shape.train_len
    reference = last_token_logits(probe, train_len)
    low, high = _range(reference)
    behavior: dict[str, object] = {}
    for multiple in MULTIPLES:
        length = multiple * train_len
        key = f"{multiple}x"
        if not probe.supports_length(length):
            behavior |= {
                f"behavior_{key}": UNDEFINED,
                f"visible_fraction_{key}": 0.0,
                f"excess_{key}": float("nan"),
            }
            continue
        logit_PS = last_token_logits(probe, length)
        visible = ~logit_PS.isneginf()
        excess = torch.where(visible, torch.maximum(logit_PS - high, low - logit_PS), 0).max()
        behavior |= {
            f"behavior_{key}": _kind(logit_PS, visible),
            f"visible_fraction_{key}": float(visible[:, : length // 2].any(0).double().mean()),
            f"excess_{key}": float(excess.clamp(min=0)),  # keeps NaN
        }
    return behavior


def _kind(logit_PS: torch.Tensor, visible: torch.Tensor) -> str:
    half = logit_PS.shape[1] // 2
    if not visible[:, :half].any():
        return HIDDEN
    low, high = _range(logit_PS)
    if visible.all() and (high - low).max() < EXACT:
        return POSITION_BLIND
    low, high = _range(logit_PS[:, :half])
    spread = (high - low)[visible[:, :half].any(1)]
    return CONSTANT if spread.max() < EXACT else CHANGING


def _range(logit_PS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(P, 1) each: smallest and largest logit of the visible keys."""
    visible = ~logit_PS.isneginf()
    low = torch.where(visible, logit_PS, torch.inf).amin(1, keepdim=True)
    return low, logit_PS.amax(1, keepdim=True)
