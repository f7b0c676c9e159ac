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


@lru_cache
def _reduced(fontfile: Any) -> tuple[bytes, dict[int, int]]:
    """The bytes of the reduced font, and its glyph indices by the indices of the whole font."""
    glyphs = {glyph for character, glyph in get_font(fontfile).get_charmap().items() if chr(character) in _CHARACTERS}
    with _subset(fontfile, glyphs) as found:
        return pdf_ps.font_as_file(found.font).getvalue(), found.glyph_index_map


@contextmanager
def _subset_of_reduced(fontfile: Any, glyphs: Collection[int]) -> Iterator[Any]:
    data, indices = _reduced(fontfile)
    if not set(glyphs) <= indices.keys():
        with _subset(fontfile, glyphs) as found:
            yield found
        return
    with _subset(_ReducedFont(data), {indices[glyph] for glyph in glyphs}) as found:
        kept = {glyph: found.glyph_index_map[indices[glyph]] for glyph in glyphs}
        yield found._replace(glyph_index_map=kept)
