"""Fonts in PDFs: subsets of reduced fonts have the same bytes as subsets of whole fonts."""

import inspect

import pytest
from matplotlib import get_data_path
from matplotlib.backends import _backend_pdf_ps as pdf_ps
from matplotlib.font_manager import get_font

from posbench.report.figures.pdf_fonts import reduced_fonts

original = pdf_ps.get_glyphs_subset
pytestmark = pytest.mark.skipif(
    "glyphs" not in inspect.signature(original).parameters, reason="matplotlib subsets fonts by characters"
)


def subset(name: str, characters: str) -> tuple[bytes, dict[int, int]]:
    from matplotlib.font_manager import FontPath

    path = FontPath(f"{get_data_path()}/fonts/ttf/{name}.ttf", 0)
    charmap = get_font(path).get_charmap()
    glyphs = {charmap[ord(character)] for character in characters}
    with pdf_ps.get_glyphs_subset(path, glyphs) as found:
        kept = {glyph: found.glyph_index_map[glyph] for glyph in glyphs}
        return pdf_ps.font_as_file(found.font).getvalue(), kept


@pytest.mark.parametrize("name", ["DejaVuSans", "DejaVuSans-Bold"])
@pytest.mark.parametrize(
    "characters", ["Bits per byte, 16×", "ﬁﬂ", "●◐○–≥±↑", "outside: Ω", "all 0123456789%"]
)
def test_subsets_are_the_same_bytes(name, characters):
    whole = subset(name, characters)
    for _ in range(2):
        with reduced_fonts():
            assert subset(name, characters) == whole
    assert pdf_ps.get_glyphs_subset is original
