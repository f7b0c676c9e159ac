"""Figures of results, each as PNG, as PDF, and as a csv of the plotted numbers."""

import inspect
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

os.environ["MPLBACKEND"] = "agg"  # the value of a notebook names a backend that only the notebook can import

import matplotlib.style
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from posbench import escaping
from posbench.errors import ConfigError, unknown
from posbench.instantiate import locate
from posbench.report.figures.figure_data import FigureData
from posbench.report.figures.pdf_fonts import reduced_fonts
from posbench.report.tables.markup import to_csv

Drawing = tuple[Figure, pd.DataFrame]
SHARED = ("filters", "mix_kernels")  # settings of every figure; all others are arguments of its function
# Without dates and versions, equal figures are equal files.
_NO_DATES: dict[str, dict[str, None]] = {
    "png": {"Software": None, "CreationDate": None},
    "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
}


def draw_figure(
    config: Mapping[str, Any], rows: pd.DataFrame, out_dir: Path | str, order: Sequence[str] = ()
) -> list[Path]:
    """Draws the figure of a configs/figure yaml and returns the paths of its PNG, PDF and csv.

    Args:
        order: schemes in the order of colours and legends.

    Raises:
        MissingRowsError: there are no rows for the figure.
        ConfigError: the settings are invalid, or the folder cannot be written.
    """
    return draw_from_data(config, FigureData.of(rows, order), out_dir)


def draw_from_data(config: Mapping[str, Any], data: FigureData, out_dir: Path | str) -> list[Path]:
    """Draws the figure of a configs/figure yaml from rows that several figures share; see `draw_figure`."""
    settings = dict(config)
    name, target = (_pop(settings, key) for key in ("name", "draw"))
    if escaping.file_name(name) != name:
        raise ConfigError(f"figure name {name!a:.80}: give one of letters, digits and . _ + -, at most 120")
    data = data.narrowed(settings.pop("filters", None), bool(settings.pop("mix_kernels", False)))
    function = _function(target)
    _check(name, settings, function)
    with house_style():
        figure, shown = function(data, **settings)
        return save(figure, shown, Path(out_dir) / name)


@contextmanager
def house_style() -> Iterator[None]:
    """Applies the style of all figures, independent of the user's matplotlibrc."""
    with (
        as_file(files("posbench.report.figures") / "posbench.mplstyle") as style,
        matplotlib.style.context(["default", style]),
    ):
        yield


def _check(name: str, settings: Mapping[str, Any], function: Callable[..., Drawing]) -> None:
    allowed = {key: value for key, value in inspect.signature(function).parameters.items() if key != "data"}
    for key in settings:
        if key not in allowed:
            raise unknown(f"setting of figure {name}", key, [*allowed, *SHARED])
    for key, parameter in allowed.items():
        if parameter.default is parameter.empty and key not in settings:
            raise ConfigError(f"figure {name} has no setting {key!r}: add {key}: to its yaml")


def _pop(settings: dict[str, Any], key: str) -> str:
    if not isinstance(settings.get(key), str):
        raise ConfigError(f"a figure has no {key!r}: give it one, such as {key}: {_EXAMPLES[key]}")
    return settings.pop(key)


_EXAMPLES = {"name": "context_growth", "draw": "posbench.report.figures.context_growth.draw"}


def _function(target: str) -> Callable[..., Drawing]:
    """Imports a drawing function: one of this package, or of a package that the command line allows."""
    function = locate(target, "draw")
    module = getattr(function, "__module__", "")
    if (
        not inspect.isfunction(function)
        or (module.startswith("posbench.") and not module.startswith(f"{__name__}."))
        or next(iter(inspect.signature(function).parameters), "") != "data"
    ):
        raise ConfigError(
            f"draw {target!r} is not a drawing function, whose first argument is `data`: give one of {__name__}, "
            f"such as {_EXAMPLES['draw']}"
        )
    return function


def _place_empty_labels(figure: Figure) -> None:
    """Fixes the positions of empty axis labels, for which matplotlib would measure all tick labels."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if not axis.get_label_text():
                axis.set_label_coords(0, 0)


def save(figure: Figure, shown: pd.DataFrame, stem: Path) -> list[Path]:
    """Writes a figure as stem.png and stem.pdf and its numbers as stem.csv.

    Raises:
        ConfigError: the folder cannot be written.
    """
    FigureCanvasAgg(figure)
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "pdf", "csv")]
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        _place_empty_labels(figure)
        with reduced_fonts(), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Glyph .* missing"
            )  # shown as a box; a label may have any letter
            for path in paths[:2]:
                figure.savefig(path, metadata=_NO_DATES[path.suffix[1:]])
        paths[2].write_bytes(to_csv(shown).encode())
    except OSError as error:
        raise ConfigError(
            f"cannot write {stem.parent} ({error.strerror or error}): choose a folder that can be written"
        ) from None
    return paths
