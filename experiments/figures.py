"""How figures look and are saved: the same rows give the same file, byte for byte."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from experiments.console import writing

INK, GREY, PALE = "#222222", "#767676", "#d9d9d9"
COLOURS = {"sum": "#0072b2", "mean": "#d55e00", "max": "#009e73"}
PIXELS_PER_INCH, COLOURS_OF_A_FILE = 130, 128
STYLE = {
    "font.size": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.facecolor": "white",
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


def draw(
    out: Path,
    name: str,
    draws: Sequence[Callable[[Axes], object]],
    entries: Mapping[str, tuple[str, str]] | None = None,
    width: float = 2.7,
    height: float = 2.7,
    columns: int = 3,
) -> list[Path]:
    """Draw on a panel each, with a legend below, and save them; sizes are those of `panels`."""
    figure, axes = panels(len(draws), width, height, columns)
    for panel, draw_on in zip(axes, draws, strict=True):
        draw_on(panel)
    if entries:
        legend(figure, entries)
    return save(figure, out, name)


def dots(
    panel: Axes,
    height: int,
    values: Sequence[float],
    colour: str,
    bar: tuple[float, float],
    clip_on: bool = True,
    **style: Any,
) -> None:
    """A dot for each fold at one height, and a bar of this size and width for their mean."""
    of_dots = {"alpha": 0.3, "markersize": 5, "mew": 0, "clip_on": clip_on} | style
    panel.plot(values, [height] * len(values), "o", color=colour, **of_dots)
    size, width = bar
    panel.plot([mean(values)], [height], "|", color=colour, markersize=size, mew=width, clip_on=clip_on)


def legend(figure: Figure, entries: Mapping[str, tuple[str, str]]) -> None:
    """A legend below all panels: label to colour and dashes."""
    handles = [Line2D([], [], color=colour, linestyle=dashes) for colour, dashes in entries.values()]
    columns = 3 if figure.get_figwidth() > 6 else 2
    figure.legend(
        handles, list(entries), loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `name.png` at reading size, without dates, in few colours."""
    path = folder / f"{name}.png"
    drawn = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(drawn, dpi=PIXELS_PER_INCH, metadata={"Software": None})
    with writing(path), Image.open(drawn) as image:
        image.convert("RGB").quantize(COLOURS_OF_A_FILE, dither=Image.Dither.NONE).save(path, optimize=True)
    return [path]
