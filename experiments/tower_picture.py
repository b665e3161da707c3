"""The picture of a tower: molecules in a row, and beneath them where each readout places them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import figures, molecules
from experiments.rows import Row
from experiments.tower import Member, Tower, chosen, largest

DRAWN = 6
GLOSSES = {"sum": "counts the units", "mean": "sees proportions", "max": "sees which are there"}
SHADES = ("#1b2a6b", "#2a5fa5", "#2e93a8", "#4db38a", "#a3c95b", "#f0d03c")
NOTE = "the same atoms\nand neighbours, in\nequal proportions\n(H not drawn)"
LEFT, RIGHT, HEIGHT = 1.3, 7.95, 4.0
LINE, TALLEST, LONGEST_BOND = 0.19, 1.15, 0.34
MOLECULES, NAMES, ROWS = 3.36, 2.6, (1.8, 1.1, 0.42)


def save(rows: Sequence[Row], towers: Sequence[Tower], out: Path) -> list[Path]:
    """One picture a set, of its clearest tower: `tower.svg`, or `tower-SET.svg` if there are several sets."""
    names = list(dict.fromkeys(tower.data for tower in towers))
    paths = []
    for data in names:
        clearest = max((tower for tower in towers if tower.data == data), key=Tower.clarity)
        inside = [row for row in rows if row["data"] == data and row["tower"] == clearest.name]
        paths += figures.save(picture(inside, clearest), out, "tower" if len(names) == 1 else f"tower-{data}")
    return paths


def picture(rows: Sequence[Row], tower: Tower) -> Figure:
    """One graph of each size in a row, and beneath them where sum, mean and max place them."""
    by_size = {member.factor: position for position, member in reversed(list(enumerate(tower.members)))}
    positions = sorted(by_size.values())[:DRAWN]
    members = [tower.members[position] for position in positions]
    columns = column_places([float(member.factor) for member in members])
    figure, axes = figures.sheet(8, HEIGHT)
    draw_molecules(axes, members, columns, tower.node_names)
    for height, (readout, gloss) in zip(ROWS, GLOSSES.items(), strict=True):
        axes.text(0.15, height + 0.06, readout, fontsize=14, fontweight="bold", va="center")
        axes.text(0.15, height - 0.17, gloss, fontsize=8.5, va="center", color=figures.GREY)
        axes.plot([LEFT, RIGHT], [height, height], color=figures.PALE, linewidth=1.5, zorder=1)
        ratios = [
            mean(row["value"] for row in chosen(rows, readout, "norm ratio") if row["position"] == position)
            for position in positions
        ]
        if largest(rows, readout, "distance") == 0:
            draw_one_point(axes, columns, height)
        else:
            places = np.interp(ratios, [float(member.factor) for member in members], columns)
            draw_points(axes, places.tolist(), ratios, height)
    return figure


def column_places(factors: Sequence[float]) -> list[float]:
    """Where columns stand: to scale where they fit, else side by side."""
    to_scale = factors[-1] <= 8 and min(after - before for before, after in pairwise(factors)) >= 1
    steps = [factor - 1 for factor in factors] if to_scale else list(range(len(factors)))
    pitch = (RIGHT - LEFT) / (steps[-1] + 1)
    return [LEFT + pitch * (step + 0.5) for step in steps]


def draw_molecules(
    axes: Axes, members: Sequence[Member], columns: Sequence[float], node_names: Sequence[str] | None
) -> None:
    """Structures at one scale, with names and classes beneath; the class of the smallest stands out."""
    sketches = [molecules.sketch(member.graph, node_names) for member in members]
    room = min(min(after - before for before, after in pairwise(columns)) - 0.2, TALLEST)
    bond = min(LONGEST_BOND, room / max(sketch.extent for sketch in sketches))
    for member, sketch, column in zip(members, sketches, columns, strict=True):
        sketch.draw(axes, (column, MOLECULES), bond)
        lines = textwrap.wrap(member.name, 13)
        for number, line in enumerate(lines):
            axes.text(column, NAMES - LINE * number, line, ha="center", va="center", fontsize=9.5)
        axes.text(
            column,
            NAMES - LINE * len(lines),
            member.label,
            ha="center",
            va="center",
            fontsize=9,
            color=figures.COLOURS["mean"] if member.label == members[0].label else figures.GREY,
            fontweight="bold" if member.label == members[0].label else "normal",
        )
    axes.text(0.15, MOLECULES, NOTE, fontsize=8.5, va="center", color=figures.GREY, linespacing=1.5)


def draw_points(axes: Axes, places: Sequence[float], ratios: Sequence[float], height: float) -> None:
    """A dot for each molecule, with how many times the smallest it is."""
    for place, ratio, colour in zip(places, ratios, SHADES, strict=False):
        axes.plot(place, height, "o", markersize=13, color=colour, zorder=3)
        axes.text(place, height - 0.24, f"×{ratio:.4g}", ha="center", va="center", fontsize=9.5)


def draw_one_point(axes: Axes, columns: Sequence[float], height: float) -> None:
    """All molecules on one point: rings of all colours around it, and empty places where they are not."""
    for column in columns[1:]:
        axes.plot(column, height, "o", markersize=11, mfc="white", mec=figures.PALE, mew=1.2, zorder=2)
    for step, colour in reversed(list(enumerate(SHADES[: len(columns)]))):
        axes.plot(columns[0], height, "o", markersize=10 + 3.2 * step, color=colour, zorder=9 - step)
    label = f"all {len(columns)} on this one point, bit for bit"
    axes.text(columns[0] + 0.35, height - 0.24, label, va="center", fontsize=9.5)
