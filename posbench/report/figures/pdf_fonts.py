"""Faster font subsets for PDFs: each font is parsed once per process, not once per figure.

Matplotlib embeds the used glyphs of each font in each PDF. Most of that time goes into parsing all 6,000 glyphs and the
layout tables of DejaVu Sans with fontTools. Here a font is first reduced to the characters that figures use; subsets
of the reduced font are the same bytes.
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

# ASCII, signs and the ligatures that Latin text is set with; a figure with others takes its subsets from the whole font.
_CHARACTERS = {*map(chr, range(0x20, 0x7F)), *"±·×–—‘’“”…†‡≤≥≠−←↑→↓∞●◐○ﬀﬁﬂﬃﬄ"}
_subset = pdf_ps.get_glyphs_subset
_Subset = tuple[bytes, dict[int, int]]


@contextmanager
def reduced_fonts() -> Iterator[None]:
    """Let matplotlib take its subsets from reduced fonts.

    Before matplotlib 3.11 subsets are requested as text and not by glyph; these are left as they are.
    """
    by_glyph = "glyphs" in inspect.signature(_subset).parameters
    pdf_ps.get_glyphs_subset = _subset_of_reduced if by_glyph else _subset
    try:
        yield
    finally:
        pdf_ps.get_glyphs_subset = _subset


class _ReducedFont(BytesIO):
    face_index = 0  # which matplotlib reads from the path of a font


class _SavedFont:
    """A font that was written before, where matplotlib expects one to write."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def save(self, file: BytesIO, reorderTables: bool = False) -> None:
        file.write(self.data)


@lru_cache
def _reduced(fontfile: Any) -> _Subset:
    """The bytes of the reduced font, and its glyph indices by the indices of the whole font."""
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
    """The bytes of the subset, and its glyph indices by those of the whole font."""
    reduced, indices = _reduced(fontfile)
    if not glyphs <= indices.keys():
        return _bytes_of(_subset(fontfile, set(glyphs)))
    data, of_reduced = _bytes_of(_subset(_ReducedFont(reduced), {indices[glyph] for glyph in glyphs}))
    return data, {glyph: of_reduced[indices[glyph]] for glyph in glyphs}


def _bytes_of(found: AbstractContextManager[Any]) -> _Subset:
    with found as subset:
        return pdf_ps.font_as_file(subset.font).getvalue(), subset.glyph_index_map
