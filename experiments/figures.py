"""How figures look and are saved: the same rows give the same file, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.console import writing

INK, GREY, PALE = "#222222", "#767676", "#d9d9d9"
COLOURS = {"sum": "#0072b2", "mean": "#d55e00", "max": "#009e73"}
PIXELS_PER_INCH = 200
STYLE = {
    "font.size": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.facecolor": "white",
    "svg.hashsalt": "readouts",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def panels(
    count: int, width: float = 2.7, height: float = 2.7, columns: int = 3
) -> tuple[Figure, list[Axes]]:
    """Panels in rows of `columns`, sizes in inches, with space for a legend below."""
    columns = min(count, columns)
    rows = -(-count // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(5.0, width * columns), height * rows + 0.7), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[count:]:
        axes.remove()
    return figure, list(grid.flat[:count])


def sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """A white sheet with inches as coordinates, from the lower left corner."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return figure, axes


def legend(figure: Figure, entries: Mapping[str, tuple[str, str]]) -> None:
    """A legend below all panels: label to colour and dashes."""
    handles = [Line2D([], [], color=colour, linestyle=dashes) for colour, dashes in entries.values()]
    columns = 3 if figure.get_figwidth() > 6 else 2
    figure.legend(
        handles, list(entries), loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `name.svg` and `name.png`, without dates."""
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    for path, metadata in zip(paths, ({"Date": None}, {"Software": None}), strict=True):
        with writing(path), matplotlib.rc_context(STYLE):
            figure.savefig(path, dpi=PIXELS_PER_INCH, metadata=metadata)
    return paths
