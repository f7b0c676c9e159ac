"""Line styles of series: unique combinations of colour, marker and dashes, with few repeated colours."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from posbench import escaping
from posbench.report.tables.selection import series_label

# Distinguishable with common colour blindness, and in grey by their markers. The lengths of the lists are coprime.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#882255", "#56B4E9", "#000000", "#CC79A7"]
COLOURS += ["#999933", "#332288"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h"]
UNDASHED = len(COLOURS) * len(MARKERS)

Series = tuple[str, str]  # scheme, extension


@dataclass(frozen=True)
class LineStyle:
    label: str
    colour: str
    marker: str
    dashes: str | tuple[float, tuple[float, float]]

    @classmethod
    def from_index(cls, number: int, name: str) -> "LineStyle":
        """Returns the style with a number, unique for every number; dashes begin once all others are in use."""
        dashed = number // UNDASHED
        dashes = (0.0, (2.0 * dashed, 1.5)) if dashed else "-"
        return cls(name, COLOURS[_colour(number)], MARKERS[_marker(number)], dashes)

    @property
    def plot_kwargs(self) -> dict[str, Any]:
        """Arguments of matplotlib's plot."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dashes}


def assign_line_styles(series: Sequence[Series]) -> dict[Series, LineStyle]:
    """Returns the style of each series. Styles of plain schemes depend only on the order of the schemes.

    Args:
        series: (scheme, extension) of all series, plain schemes first.
    """
    schemes = list(dict.fromkeys(scheme for scheme, _ in series))
    extensions = list(dict.fromkeys(extension for _, extension in series if extension != "none"))
    numbers: dict[Series, int] = {}
    for scheme, extension in series:
        number = schemes.index(scheme)
        if extension != "none":
            number = _of_extension(scheme, number, extensions.index(extension), numbers)
        numbers[scheme, extension] = number
    return {
        key: LineStyle.from_index(number, escaping.figure(series_label(*key)))
        for key, number in numbers.items()
    }


def _of_extension(scheme: str, plain: int, extension: int, numbers: Mapping[Series, int]) -> int:
    """Returns an unused style number for an extension, with another colour than its scheme.

    It has the colour that the fewest series of its scheme have, then the fewest of all series; then the marker that
    the fewest series of its scheme have. Ties are resolved in the order of extensions.
    """
    taken, first = set(numbers.values()), plain + 1 + extension
    of_all = Counter(map(_colour, taken))
    own = [number for (whose, _), number in numbers.items() if whose == scheme]
    colours, markers = Counter(map(_colour, own)), Counter(map(_marker, own))

    def rank(number: int) -> tuple[int, int, int, int]:
        colour = _colour(number)
        return colours[colour], of_all[colour], markers[_marker(number)], (number - first) % UNDASHED

    blocks = (set(range(begin, begin + UNDASHED)) - taken for begin in count(0, UNDASHED))
    free = ([number for number in block if _colour(number) != _colour(plain)] for block in blocks)
    return min(next(filter(None, free)), key=rank)


def _colour(number: int) -> int:
    return number % len(COLOURS)


def _marker(number: int) -> int:
    return number % len(MARKERS)
