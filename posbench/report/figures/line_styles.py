"""Line styles of series: unique combinations of colour, marker and dashes, with few repeated colours.

The schemes of line_styles.yaml have styles of their own, the same in every experiment.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import count
from typing import Any

import yaml

from posbench import escaping
from posbench.report.tables.selection import series_label

# Distinguishable with common colour blindness, and in grey by their markers. The lengths of the lists are coprime.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#882255", "#56B4E9", "#000000", "#CC79A7"]
COLOURS += ["#999933", "#332288"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h"]
UNDASHED = len(COLOURS) * len(MARKERS)
_FILE = files("posbench.report.figures") / "line_styles.yaml"
SCHEMES: list[str] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))["schemes"]

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
    """Returns the style of each series. Styles of plain schemes depend only on the schemes and their order.

    Args:
        series: (scheme, extension) of all series, plain schemes first.
    """
    schemes = list(dict.fromkeys(scheme for scheme, _ in series))
    extensions = list(dict.fromkeys(extension for _, extension in series if extension != "none"))
    plain = {scheme: SCHEMES.index(scheme) for scheme in schemes if scheme in SCHEMES}
    for scheme in schemes:
        if scheme not in plain:
            plain[scheme] = _of_other_scheme(plain.values())
    numbers: dict[Series, int] = {}
    for scheme, extension in series:
        number = plain[scheme]
        if extension != "none":
            number = _of_extension(scheme, number, extensions.index(extension), numbers)
        numbers[scheme, extension] = number
    return {
        key: LineStyle.from_index(number, escaping.figure(series_label(*key)))
        for key, number in numbers.items()
    }


def _of_other_scheme(taken: Collection[int]) -> int:
    """Returns an unused style number of no scheme in SCHEMES, with the colour that the fewest schemes have."""
    colours = Counter(map(_colour, taken))
    return _first_free(taken, lambda number: (colours[_colour(number)], number))


def _of_extension(scheme: str, plain: int, extension: int, numbers: Mapping[Series, int]) -> int:
    """Returns an unused style number for an extension, with another colour than its scheme.

    It has the colour that the fewest series of its scheme have, then the fewest of all series; then the marker that
    the fewest series of its scheme have. Ties are resolved in the order of extensions.
    """
    taken, first = set(numbers.values()), plain + 1 + extension
    of_all = Counter(map(_colour, taken))
    own = [number for (whose, _), number in numbers.items() if whose == scheme]
    colours, markers = Counter(map(_colour, own)), Counter(map(_marker, own))

    def rank(number: int) -> tuple[int, ...]:
        colour = _colour(number)
        return colours[colour], of_all[colour], markers[_marker(number)], (number - first) % UNDASHED

    return _first_free(taken, rank, without=_colour(plain))


def _first_free(
    taken: Collection[int], rank: Callable[[int], tuple[int, ...]], without: int | None = None
) -> int:
    """Returns the unused number of the lowest rank, undashed if one is left, that is not reserved and not of a colour."""
    used = {*taken, *range(len(SCHEMES))}
    blocks = (range(begin, begin + UNDASHED) for begin in count(0, UNDASHED))
    free = (
        [number for number in block if number not in used and _colour(number) != without] for block in blocks
    )
    return min(next(filter(None, free)), key=rank)


def _colour(number: int) -> int:
    return number % len(COLOURS)


def _marker(number: int) -> int:
    return number % len(MARKERS)
