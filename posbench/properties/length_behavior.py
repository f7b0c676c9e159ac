"""What a scheme says past the training length: nothing, the same again, or something new."""

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
    """At each multiple of the training length: what the last token says of the farther half of its keys.

    undefined: no answer. hidden: they are not seen. position_blind: all positions are alike. constant: the farther half
    is alike. changing: it is not. Beside it the share of them that is seen by some layer, and by how much
    logits leave the range that they have within the training length (nats).
    """
    train_len = probe.shape.train_len
    said_1 = last_token_logits(probe, train_len)
    low, high = _range(said_1)
    found: dict[str, object] = {}
    for multiple in MULTIPLES:
        length = multiple * train_len
        key = f"{multiple}x"
        if not probe.supports_length(length):
            found |= {
                f"behavior_{key}": UNDEFINED,
                f"visible_fraction_{key}": 0.0,
                f"excess_{key}": float("nan"),
            }
            continue
        said = last_token_logits(probe, length)
        seen = said > -torch.inf
        excess = torch.where(seen, torch.maximum(said - high, low - said), 0).max()
        found |= {
            f"behavior_{key}": _kind(said, seen),
            f"visible_fraction_{key}": float(seen[:, : length // 2].any(0).double().mean()),
            f"excess_{key}": max(0.0, float(excess)),
        }
    return found


def _kind(said: torch.Tensor, seen: torch.Tensor) -> str:
    half = said.shape[1] // 2
    if not seen[:, :half].any():
        return HIDDEN
    low, high = _range(said)
    if seen.all() and (high - low).max() < EXACT:
        return POSITION_BLIND
    low, high = _range(said[:, :half])
    spread = (high - low)[seen[:, :half].any(1)]
    return CONSTANT if spread.max() < EXACT else CHANGING


def _range(said: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(P, 1) each: the least and the greatest that is seen."""
    seen = said > -torch.inf
    low = torch.where(seen, said, torch.inf).amin(1, keepdim=True)
    return low, said.amax(1, keepdim=True)
