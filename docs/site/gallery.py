"""Writes the gallery of schemes and extensions: formula, paper and a picture of each, all from the code.

A picture is a map of the attention logits (i, j) of a sequence that repeats one token, so that only positions differ
between its pixels: row i is the query, column j the key. Pairs that are masked are transparent.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.image import imsave

from posbench.commands.catalog import Choice, choice, names
from posbench.commands.describe import address
from posbench.instantiate import instantiate
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.factor_extension import FrequencyScaling
from posbench.position.geometry import Geometry
from posbench.position.scheme import ModelShape
from posbench.properties.probe import SchemeProbe, draw, has_weights, logits
from posbench.schemes.rope import RoPE

SHAPE = ModelShape(n_layers=4, n_heads=4, head_dim=16, d_model=64, train_len=32)
LENGTH = 64
PIXELS = 3  # on a side, of a pair
GAP = 8  # pixels between two maps
FLAT = 1e-6  # a map with smaller differences shows nothing
# Title of a family -> a word of the kind of its schemes; each scheme is in the first family of MATCHED that matches.
FAMILIES = {
    "Positions in the embeddings": "absolute",
    "A bias on the logits by distance": "additive bias",
    "Rotations of queries and keys": "rotary",
    "Other positions in training": "position mapping",
    "Positions that depend on the tokens": "content-dependent",
    "In place of softmax attention": "linear",
    "Different schemes in different layers": "hybrid by layer",
    "No positions": "",
}
MATCHED = (
    "hybrid by layer",
    "linear",
    "absolute",
    "position mapping",
    "content-dependent",
    "additive bias",
    "rotary",
    "",
)
SECTIONS = re.compile(r"^(Args|Attributes|Class attributes|Raises|Metrics).*:$", re.MULTILINE)
HEAD = """# {title}

Written from the code when these pages are built: the formula is the docstring of the class, the picture is computed.

"""
SCHEMES = f"""A picture shows the attention logits of a sequence that repeats one token, so that only positions make a
difference: row i is the query, column j the key, {LENGTH} tokens from the top left, twice the training length of {SHAPE.train_len} where the
scheme is defined there. Bright pairs have the higher logits, relative to each query's largest; pairs without colour get no weight.
The maps of one picture are heads and layers that differ. Weights are untrained: projections are random, and so is every
table or gate that training would fill.

"""
EXTENSIONS = f"""An extension stands around a trained scheme; here it is RoPE. Pictures have two maps, without and with the extension, of
{LENGTH} tokens after training on {SHAPE.train_len}; they are drawn as in the [gallery of schemes](schemes.md). For extensions that scale
frequencies, a plot shows the wavelength of every pair of dimensions instead, before and after.

"""


def write(folder: Path) -> None:
    """Writes schemes.md, extensions.md and their pictures."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    schemes = [choice("scheme", name) for name in names("scheme")]
    parts = [HEAD.format(title="Gallery of schemes"), SCHEMES]
    for title, word in FAMILIES.items():
        parts.append(f"## {title}\n\n")
        for one in (one for one in schemes if family(one) == word):
            note = draw_scheme(one, folder / "pictures" / f"scheme-{one.name}.png")
            parts.append(entry(one, note, "png"))
    (folder / "schemes.md").write_text("".join(parts))
    parts = [HEAD.format(title="Gallery of extensions"), EXTENSIONS]
    for one in (choice("extension", name) for name in names("extension") if name != "none"):
        ending = "svg" if "frequency scaling" in one.kind else "png"
        note = draw_extension(one, folder / "pictures" / f"extension-{one.name}.{ending}")
        parts.append(entry(one, note, ending))
    (folder / "extensions.md").write_text("".join(parts))


def family(one: Choice) -> str:
    """Returns the word of FAMILIES for a scheme."""
    return next(word for word in MATCHED if word in one.kind)


def entry(one: Choice, note: str, ending: str) -> str:
    """Returns the section of a choice."""
    paper = f" · [{one.paper.removeprefix('https://')}]({address(one.paper)})" if one.paper else ""
    level = "###" if one.group == "scheme" else "##"
    text = f"{level} {one.name}\n\n{one.summary}\n\n*{one.kind}*{paper}\n\n"
    if one.definition and one.definition.doc:
        formula = SECTIONS.split(one.definition.doc)[0].strip()
        text += f"```text\n{formula}\n```\n\n"
    picture = f"pictures/{one.group}-{one.name}.{ending}"
    return f"{text}![{one.name}: {note}]({picture})\n\n{note[0].upper()}{note[1:]}.\n\n"


def draw_scheme(one: Choice, path: Path) -> str:
    """Draws the maps of a scheme; returns what they are."""
    probe = SchemeProbe.of(one.content["build"], SHAPE)
    length = probe.longest(LENGTH, SHAPE.train_len)
    tokens = probe.repeated_tokens(1, length)
    found, note = maps(probe, tokens), ""
    if shows_nothing(found) and any(True for _ in probe.scheme.parameters()):
        generator = torch.Generator().manual_seed(0)
        for parameter in probe.scheme.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
        found, note = maps(probe, tokens), ", with random parameters, which begin as zeros"
    if shows_nothing(found) and probe.scheme.traits.reads_hidden_states:
        found, note = maps(probe, draw(*tokens.shape, seed=4)), ", of different tokens"
    shown = distinct(found)
    imsave(path, side_by_side([one for _, one in shown]))
    if shows_nothing(found):
        return f"all visible pairs are equal; {length} tokens"
    where = (
        "equal in all heads and layers"
        if len(shown) == 1
        else f"from the left: {', '.join(name for name, _ in shown)}"
    )
    weights = ", weights in layers without logits" if has_weights(probe) else ""
    return f"{where}{note}{weights}; {length} tokens"


def draw_extension(one: Choice, path: Path) -> str:
    """Draws RoPE without and with an extension; returns what is shown."""
    shape = replace(SHAPE, head_dim=64, d_model=256) if path.suffix == ".svg" else SHAPE
    probe = SchemeProbe.of(choice("scheme", "rope").content["build"], shape)
    context = ExtensionContext(shape, LENGTH if path.suffix == ".png" else 8 * shape.train_len)
    extended = instantiate(one.content["build"], Extension, probe.scheme, context)
    if path.suffix == ".svg":
        assert isinstance(probe.scheme, RoPE)
        assert isinstance(extended, FrequencyScaling)
        return draw_frequencies(probe.scheme, extended, path)
    tokens = probe.repeated_tokens(1, LENGTH)
    both = [maps(replace(probe, scheme=scheme), tokens)[0][1] for scheme in (probe.scheme, extended)]
    imsave(path, side_by_side(both))
    return f"RoPE alone, and with {one.name}; {LENGTH} tokens"


def draw_frequencies(inner: RoPE, extended: FrequencyScaling, path: Path) -> str:
    """Draws the wavelengths of RoPE's pairs of dimensions before and after an extension."""
    before = inner.inv_freq_M.double().numpy()
    geo = Geometry.from_range(0, extended.context.length)
    after = extended.inv_freq_transform(geo)(torch.as_tensor(before)).numpy()
    with matplotlib.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none"}):
        figure = Figure(figsize=(4.4, 2.6), layout="constrained")
        axes = figure.subplots()
        with np.errstate(divide="ignore"):
            axes.plot(2 * np.pi / before, color="0.6", label="RoPE")
            axes.plot(2 * np.pi / after, color="C0", label=path.stem.removeprefix("extension-"))
        for length in (SHAPE.train_len, 8 * SHAPE.train_len):
            axes.axhline(length, color="0.8", linewidth=1, linestyle=":", zorder=0)
        axes.set(yscale="log", xlabel="pair of dimensions", ylabel="tokens of a period")
        axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})
    return (
        f"period of each pair of dimensions; dotted: the training length {SHAPE.train_len} and the evaluated "
        f"{8 * SHAPE.train_len} tokens"
    )


def maps(probe: SchemeProbe, tokens_BSW: torch.Tensor) -> list[tuple[str, np.ndarray]]:
    """Returns the (S, S) logits of every head and layer, relative to the largest of each query."""
    found = []
    for inputs in probe.attention_inputs(tokens_BSW, probe.geometry(tokens_BSW.shape[1])):
        for head, map_TS in enumerate(logits(probe.scheme, inputs)[0]):
            found.append((f"layer {inputs.layer + 1} head {head + 1}", relative(map_TS)))
    return found


def relative(map_TS: torch.Tensor) -> np.ndarray:
    """Subtracts the largest logit of each row; NaN where a pair is masked."""
    shifted = map_TS - map_TS.amax(-1, keepdim=True)
    return torch.where(torch.isfinite(shifted), shifted, torch.nan).detach().numpy()


def shows_nothing(found: list[tuple[str, np.ndarray]]) -> bool:
    """Returns whether all visible pairs are equal in every map."""
    return all(np.nanmin(one) > -FLAT for _, one in found)


def distinct(found: list[tuple[str, np.ndarray]], most: int = 4) -> list[tuple[str, np.ndarray]]:
    """Returns the maps that differ from those before them: the first and the last of layer 1, then other layers."""
    kept: list[tuple[str, np.ndarray]] = []
    first, last = SHAPE.n_heads - 1, len(found) - SHAPE.n_heads
    order = [0, first, last, last + first, *range(0, len(found), SHAPE.n_heads)]
    for name, one in (found[index] for index in order):
        if not any(np.allclose(one, other, atol=1e-3, equal_nan=True) for _, other in kept):
            kept.append((name, one))
    return kept[:most]


def side_by_side(found: list[np.ndarray]) -> np.ndarray:
    """Returns (height, width, 4) colours of several maps on one scale."""
    least = min(np.nanpercentile(one, 2) for one in found)
    tiles = []
    for one in found:
        share = np.clip(1 - one / min(least, -FLAT), 0, 1) if least < -FLAT else np.ones_like(one)
        rgba = matplotlib.colormaps["viridis"](share)
        rgba[np.isnan(one)] = 0
        tiles += [rgba.repeat(PIXELS, 0).repeat(PIXELS, 1), np.zeros((PIXELS * len(one), GAP, 4))]
    return np.concatenate(tiles[:-1], axis=1)
