"""How series are told apart: no two have the same colour, marker and dashes, and few have the same colour."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from posbench.report.tables.selection import series_label

# Told apart with any common colour blindness, and in grey by their markers; the two lists never fall in step.
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
    def from_index(cls, place: int, name: str) -> "LineStyle":
        """The style of a place, another one for every place; lines are dashed once all else is taken."""
        dashed = place // UNDASHED
        dashes = (0.0, (2.0 * dashed, 1.5)) if dashed else "-"
        return cls(name, COLOURS[_colour(place)], MARKERS[_marker(place)], dashes)

    @property
    def plot_kwargs(self) -> dict[str, Any]:
        """For matplotlib."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dashes}


def assign_line_styles(series: Sequence[Series]) -> dict[Series, LineStyle]:
    """The style of each of all series, plain schemes first: theirs hang on the order of the schemes alone."""
    schemes = list(dict.fromkeys(scheme for scheme, _ in series))
    extensions = list(dict.fromkeys(extension for _, extension in series if extension != "none"))
    places: dict[Series, int] = {}
    for scheme, extension in series:
        place = schemes.index(scheme)
        if extension != "none":
            place = _extended(scheme, place, extensions.index(extension), places)
        places[scheme, extension] = place
    return {key: LineStyle.from_index(place, series_label(*key)) for key, place in places.items()}


def _extended(scheme: str, plain: int, extension: int, places: Mapping[Series, int]) -> int:
    """A free place for an extension, never in the colour of what it extends.

    Its colour is one that the fewest of its scheme's series have, then the fewest of all; its marker one that the
    fewest of its scheme's have. Where that leaves several, extensions have them in their order.
    """
    taken, first = set(places.values()), plain + 1 + extension
    everyone = Counter(map(_colour, taken))
    own = [place for (whose, _), place in places.items() if whose == scheme]
    colours, markers = Counter(map(_colour, own)), Counter(map(_marker, own))

    def rank(place: int) -> tuple[int, int, int, int]:
        colour = _colour(place)
        return colours[colour], everyone[colour], markers[_marker(place)], (place - first) % UNDASHED

    blocks = (set(range(begin, begin + UNDASHED)) - taken for begin in count(0, UNDASHED))
    free = ([place for place in block if _colour(place) != _colour(plain)] for block in blocks)
    return min(next(filter(None, free)), key=rank)


def _colour(place: int) -> int:
    return place % len(COLOURS)


def _marker(place: int) -> int:
    return place % len(MARKERS)
