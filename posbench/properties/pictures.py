"""Pictures of what a scheme adds to attention: the logit of every query i with every key j, as small images."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import matplotlib.image
import numpy as np
import torch
from numpy.typing import NDArray

from posbench.instantiate import instantiate
from posbench.position.extension import Extension, ExtensionContext
from posbench.properties.decay import HEAD_DIM
from posbench.properties.probe import EXACT, SHAPE, SchemeProbe, logits_or_weights, normalised
from posbench.properties.ratings import format_compact

MULTIPLE = 2  # tokens of a picture, as a multiple of the training length
LAYERS = 4  # so that hybrids of one layer in four show both kinds
_NO_VERSION: dict[str, Any] = {"Software": None}  # so that equal pictures are equal files
WIDE = replace(SHAPE, n_layers=LAYERS, head_dim=HEAD_DIM, d_model=HEAD_DIM * SHAPE.n_heads)


@dataclass(frozen=True)
class Picture:
    """A PNG with a pixel per query (down) and key (across), transparent where the pair is masked, and its description."""

    png: bytes
    about: str

    def as_json(self) -> dict[str, str]:
        return {"png": base64.b64encode(self.png).decode(), "about": self.about}


@torch.no_grad()
def pictures(settings: Mapping[str, Any], extension: Mapping[str, Any] | None = None) -> list[Picture]:
    """Returns a picture of a scheme, or of an extension around it; two of the first and the last layer if they differ.

    All queries and keys are the vector of ones, as for the curves of decay; values are means over the heads in which a
    pair is visible, relative to the logit without a scheme, or in layers without logits to the weight of the token itself.

    Args:
        settings: build settings of the scheme; likewise `extension`.

    Raises:
        ConfigError: the extension needs settings or another scheme.
    """
    wide = SchemeProbe.of(settings, WIDE)
    train_len = WIDE.train_len
    length = wide.longest(train_len, MULTIPLE * train_len)
    if extension is not None:
        around = instantiate(extension, Extension, wide.scheme, ExtensionContext(WIDE, length))
        wide = replace(wide, scheme=around.double().eval())
    x_BSW = torch.ones(1, length, WIDE.d_model, dtype=torch.float64)
    reference = float(normalised(x_BSW[:, :1]).square().sum()) / WIDE.n_heads / HEAD_DIM**0.5
    found: list[tuple[list[int], NDArray[np.float64], bool]] = []
    for layer, inputs in enumerate(wide.attention_inputs(x_BSW, wide.geometry(length), projected=False)):
        value_BHTS, are_logits = logits_or_weights(wide.scheme, inputs)
        logit_HTS = value_BHTS[0] / (reference if are_logits else 1)
        visible_HTS = logit_HTS > -torch.inf
        total_TS = logit_HTS.masked_fill(~visible_HTS, 0).sum(0)
        value_TS = (total_TS / visible_HTS.sum(0)).numpy()  # NaN if masked in every head
        same = next(
            (layers for layers, other, kind in found if kind == are_logits and _equal(value_TS, other)), None
        )
        if same is None:
            found.append(([layer], value_TS, are_logits))
        else:
            same.append(layer)
    shown = dict.fromkeys((0, len(found) - 1))  # layers of one kind differ only in their random weights
    return [_picture(*found[place], len(found) > 1, train_len) for place in shown]


def _equal(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return np.allclose(one, other, rtol=0, atol=EXACT, equal_nan=True)


def _picture(
    layers: list[int], value_TS: NDArray[np.float64], are_logits: bool, several: bool, train_len: int
) -> Picture:
    low, high = np.nanmin(value_TS), np.nanmax(value_TS)
    span = high - low
    share_TS = (value_TS - low) / span if span > EXACT else np.where(np.isnan(value_TS), np.nan, 1.0)
    image_TSC = matplotlib.colormaps["cividis"](np.nan_to_num(share_TS), bytes=True)
    image_TSC[np.isnan(share_TS), 3] = 0
    file = io.BytesIO()
    matplotlib.image.imsave(file, image_TSC, format="png", metadata=_NO_VERSION)
    colours = (
        f"from {format_compact(low)} (dark) to {format_compact(high)} (bright)"
        if span > EXACT
        else f"{format_compact(high)} everywhere"
    )
    causal_P = value_TS[np.tril_indices(len(value_TS))]
    hidden = int(np.isnan(causal_P).sum())
    which = (
        f"Layer{'s' * (len(layers) > 1)} {', '.join(str(layer + 1) for layer in layers)} of {LAYERS}: "
        if several
        else ""
    )
    masked = f"{hidden:,} of {len(causal_P):,} are masked" if hidden else "none is masked"
    pair, unit = (
        ("Logit of query i (down) with key j (across)", "the logit without a scheme")
        if are_logits
        else ("Weight of key j (across) for query i (down)", "the weight of the token itself")
    )
    return Picture(
        file.getvalue(),
        f"{which}{pair} for {len(value_TS)} tokens, trained on {train_len}, "
        f"{colours}, where 1 is {unit}; of the pairs with j ≤ i, {masked}.",
    )
