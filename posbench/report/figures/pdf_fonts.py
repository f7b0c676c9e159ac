"""Faster font subsets for PDFs: every font is parsed once per process.

Matplotlib embeds the glyphs of each font that a PDF uses. For each PDF, fontTools parses the 6,000 glyphs and the
layout tables of DejaVu Sans again. Here, fonts are first reduced to the characters that figures use. Subsets of a
reduced font are the same bytes as those of the whole font.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from io import BytesIO
from typing import Any

from matplotlib.backends import _backend_pdf_ps as pdf_ps
from matplotlib.font_manager import get_font

# ASCII, symbols and Latin ligatures; figures with other characters use subsets of the whole font.
_CHARACTERS = {*map(chr, range(0x20, 0x7F)), *"±·×–—‘’“”…†‡≤≥≠−←↑→↓∞●◐○ﬀﬁﬂﬃﬄ"}
_subset = pdf_ps.get_glyphs_subset
_Subset = tuple[bytes, dict[int, int]]


@contextmanager
def reduced_fonts() -> Iterator[None]:
    """Makes matplotlib subset reduced fonts. Has no effect before matplotlib 3.11, which subsets by glyph."""
    by_glyph = "glyphs" in inspect.signature(_subset).parameters
    pdf_ps.get_glyphs_subset = _subset_of_reduced if by_glyph else _subset
    try:
        yield
    finally:
        pdf_ps.get_glyphs_subset = _subset


class _ReducedFont(BytesIO):
    """A font file in memory, with the attribute that matplotlib reads from font paths."""

    face_index = 0


class _SavedFont:
    """Bytes of a font with the interface of a TTFont that matplotlib uses."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def save(self, file: BytesIO, reorderTables: bool = False) -> None:
        file.write(self.data)


@lru_cache
def _reduced(fontfile: Any) -> _Subset:
    """Returns the reduced font, and its glyph indices by those of the whole font."""
    glyphs = {
        glyph
        for character, glyph in get_font(fontfile).get_charmap().items()
        if chr(character) in _CHARACTERS
    }
    return _bytes_of(_subset(fontfile, glyphs))


@contextmanager
def _subset_of_reduced(fontfile: Any, glyphs: Collection[int]) -> Iterator[Any]:
    data, indices = _subset_bytes(fontfile, frozenset(glyphs))
    yield pdf_ps.SubsetResults(_SavedFont(data), indices)


@lru_cache(maxsize=64)
def _subset_bytes(fontfile: Any, glyphs: frozenset[int]) -> _Subset:
    """Returns a subset, and its glyph indices by those of the whole font."""
    reduced, indices = _reduced(fontfile)
    if not glyphs <= indices.keys():
        return _bytes_of(_subset(fontfile, set(glyphs)))
    data, of_reduced = _bytes_of(_subset(_ReducedFont(reduced), {indices[glyph] for glyph in glyphs}))
    return data, {glyph: of_reduced[indices[glyph]] for glyph in glyphs}


def _bytes_of(found: AbstractContextManager[Any]) -> _Subset:
    with found as subset:
        return pdf_ps.font_as_file(subset.font).getvalue(), subset.glyph_index_map
