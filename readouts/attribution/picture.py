"""Sketches on paper, by matplotlib: the same sketch gives the same file, byte for byte."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from readouts.attribution.sketch import Bond, Points, Sketch

INK, GREY = "#222222", "#a8a8a8"
COLOURS = LinearSegmentedColormap.from_list("score", ["#0072b2", "#ffffff", "#d55e00"], N=257)
STYLE = {"svg.hashsalt": "readouts", "text.color": INK, "font.size": 9}
PIXELS_PER_INCH = 200

LONGEST_BOND, SHORTEST_BOND, WIDEST = 0.46, 0.28, 9.0  # inches
MARGIN, BAR_WIDTH, BAR_HEIGHT, BAR_SPACE, TITLE_SPACE = 0.3, 0.13, 1.5, 0.95, 0.3  # inches
DISC, LETTER, STROKE_GAP, INNER_GAP, INNER_CUT = 0.7, 0.3, 0.16, 0.19, 0.16  # bonds
DARK = 0.35  # relative luminance below which letters are white


def sheet(sketch: Sketch, limit: float, label: str, title: str | None) -> Figure:
    """One sketch with its colour scale, on paper that grows with it."""
    bond = float(np.clip(WIDEST / max(sketch.extent.max(), 1.0), SHORTEST_BOND, LONGEST_BOND))
    room = sketch.extent * bond + 2 * MARGIN
    above = TITLE_SPACE if title else 0.0
    width, height = room[0] + BAR_SPACE, max(room[1], BAR_HEIGHT + 0.3) + above
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(0, height))
        axes.set_axis_off()
        middle = (height - above) / 2
        paint(axes, sketch, limit, (room[0] / 2, middle), bond)
        colour_bar(figure, limit, label, (room[0], middle - BAR_HEIGHT / 2))
        if title:
            axes.text(MARGIN / 2, height - TITLE_SPACE / 2, title, va="center", fontsize=11)
    return figure


def paint(axes: Axes, sketch: Sketch, limit: float, centre: tuple[float, float], bond: float) -> None:
    """Paint around `centre`, with bonds of length `bond`, on axes whose unit is the inch."""
    places = np.array(centre) + bond * sketch.points
    colours = COLOURS(Normalize(-limit, limit)(np.array(sketch.scores)))
    weight = (1.25 if sketch.skeletal else 0.8) * min(1.0, bond / 0.4)
    discs = np.full(len(places), bond * DISC)
    axes.add_collection(
        EllipseCollection(
            discs,
            discs,
            np.zeros_like(discs),
            units="xy",
            offsets=places,
            offset_transform=axes.transData,
            facecolors=colours,
            edgecolors="none" if sketch.skeletal else INK,
            linewidths=0.0 if sketch.skeletal else 0.8,
            zorder=1 if sketch.skeletal else 3,
        )
    )
    for dashes, lines in strokes(sketch).items():
        axes.add_collection(
            LineCollection(
                [np.array(centre) + bond * line for line in lines],
                colors=INK if sketch.skeletal else GREY,
                linewidths=weight,
                linestyles=dashes,
                capstyle="round" if dashes == "solid" else "butt",
                zorder=2,
            )
        )
    for place, label, colour in zip(places, sketch.labels, colours, strict=True):
        if label:
            ink = "white" if luminance(colour) < DARK else INK
            size = float(np.clip(24 * bond, 6.5, 10.5))
            axes.text(place[0], place[1], label, ha="center", va="center", fontsize=size, color=ink, zorder=4)


def strokes(sketch: Sketch) -> dict[str, list[Points]]:
    """The lines of all bonds, in units of a bond, by how they are drawn."""
    lines: dict[str, list[Points]] = {"solid": [], "dashed": []}
    for bond in sketch.bonds:
        ends = sketch.points[[bond.first, bond.second]]
        along = (ends[1] - ends[0]) / (np.linalg.norm(ends[1] - ends[0]) or 1.0)
        across = np.array([-along[1], along[0]])
        cuts = [LETTER if sketch.labels[node] else 0.0 for node in (bond.first, bond.second)]
        for offset, cut, dashes in plan(bond, ends, across):
            first, second = (max(own, cut) for own in cuts)
            line = ends + np.stack([along * first, -along * second]) + across * offset
            lines[dashes].append(line)
    return {dashes: found for dashes, found in lines.items() if found}


def plan(bond: Bond, ends: Points, across: Points) -> list[tuple[float, float, str]]:
    """Offset, least cut at the ends and dashes of every stroke of a bond."""
    if bond.order == 1.0:
        return [(0.0, 0.0, "solid")]
    if bond.order == 3.0:
        return [(offset, 0.0, "solid") for offset in (-STROKE_GAP, 0.0, STROKE_GAP)]
    second = "dashed" if bond.order == 1.5 else "solid"
    if bond.ring_centre is None:
        return [(-STROKE_GAP / 2, 0.0, "solid"), (STROKE_GAP / 2, 0.0, second)]
    inwards = float(np.sign((bond.ring_centre - ends.mean(axis=0)) @ across))
    return [(0.0, 0.0, "solid"), (inwards * INNER_GAP, INNER_CUT, second)]


def luminance(colour: Points) -> float:
    """The relative luminance of an sRGB colour (WCAG 2)."""
    linear = np.where(colour[:3] <= 0.04045, colour[:3] / 12.92, ((colour[:3] + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def colour_bar(
    figure: Figure, limit: float, label: str, corner: tuple[float, float], length: float = BAR_HEIGHT
) -> None:
    """An upright scale from -limit to limit; its lower left corner and its length in inches."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((corner[0] / width, corner[1] / height, BAR_WIDTH / width, length / height))
    bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), COLOURS), cax=axes)
    bar.set_ticks([-limit, 0, limit], labels=[f"−{limit:.3g}", "0", f"{limit:.3g}"])
    bar.set_label(label, labelpad=-6)
    bar.outline.set_linewidth(0.5)
    axes.tick_params(length=2, width=0.5, labelsize=8)


def save(figure: Figure, path: str | Path) -> None:
    """Write SVG or PNG, without a date."""
    metadata = {"Date": None} if str(path).lower().endswith(".svg") else {"Software": None}
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, dpi=PIXELS_PER_INCH, metadata=metadata)
