"""Pictures of maps: which graphs are drawn, and how; all from rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import figures
from experiments.maps import BEST, RANDOM, READOUTS, REMOVED, WORST, Task, area, point
from experiments.patterns import bonds_of, symbols_of
from experiments.records import Row, pick, present
from readouts.attribution import draw
from readouts.attribution.drawing import colour_bar, colour_scale

SHOWN = tuple(f"shown {place}" for place in range(4))
KINDS = ("scored, right", "scored, wrong", "other, right", "other, wrong")
GALLERY = tuple(f"{kind} {place}" for place in range(2) for kind in KINDS)
NONE, PICKING = -1, "mean"


def per_fold(
    rows: Sequence[Row], data: str, readout: str, metric: str, trained: bool = True, **wanted: str
) -> list[float]:
    """The values of one metric, one a fold."""
    at = {"data": data, "readout": readout, "metric": metric, **wanted}
    of = [row for row in rows if at.items() <= row.items() and ("pattern" in wanted or "pattern" not in row)]
    return [row["value"] for row in of if "settings" not in row or (row["settings"]["epochs"] > 0) == trained]


def areas(rows: Sequence[Row], data: str, readout: str, order: str) -> list[float]:
    """The area under the deletion curve of one order, one a fold."""
    curves = [per_fold(rows, data, readout, point(order, part)) for part in REMOVED]
    return [area(curve) for curve in zip(*curves, strict=True)]


def patterns(rows: Sequence[Row], data: str) -> list[str]:
    """The patterns of a set, the one that the claim is about first."""
    return present(rows, "pattern", data=data)


CELL, LEFT, BAR = (1.72, 1.75), 1.3, 0.85  # inches
ROOM, HEAD, SIDE, CAPTION = (1.95, 1.75), 0.4, 0.75, 0.25  # inches, of the gallery
Corner = tuple[float, float]  # in inches
Box = tuple[float, float, float, float]
STYLES = {BEST: "-", RANDOM: "--", WORST: ":"}


def figure(rows: Sequence[Row], tasks: Sequence[Task], out: Path) -> list[Path]:
    """All figures: `activation`, `activation_curves`, and for each set a `gallery-SET`."""
    paths = shown_figure(rows, tasks, out) + curves_figure(rows, out)
    return paths + [path for task in tasks for path in gallery(rows, task, out)]


def shown_figure(rows: Sequence[Row], tasks: Sequence[Task], out: Path) -> list[Path]:
    """Graphs with the first pattern and their maps after a mean, a row a set, each with its own scale."""
    width, height = LEFT + len(SHOWN) * CELL[0] + BAR, CELL[1] * len(tasks)
    paper, axes = figures.sheet(width, height)
    for line, task in enumerate(tasks):
        data, first = task.graphs.name, next(iter(task.patterns))
        bottom = height - CELL[1] * (line + 1)
        middle = bottom + CELL[1] / 2
        positions = [found for metric in SHOWN if (found := chosen(rows, data, metric)) != NONE]
        limit = largest(rows, data, PICKING, positions)
        for column, position in enumerate(positions):
            draw_graph(paper, rows, task, PICKING, position, limit, (LEFT + CELL[0] * column, bottom, *CELL))
        colour_bar(paper, colour_scale(limit), "score", (width - BAR + 0.1, middle - 0.55), 1.1)
        at = partial(per_fold, rows, data, PICKING, pattern=first)
        atoms, score = (mean(at(metric=name)) for name in ("atoms", "score"))
        note = f"{first[:16]} is {atoms:.0%}\nof the atoms and\ncarries {score:.0%} of\nthe positive score"
        axes.text(0.1, middle + 0.42, data[:14], fontsize=11, fontweight="bold", va="center")
        axes.text(0.1, middle - 0.12, note, fontsize=9, va="center", color=figures.GREY)
    return figures.save(paper, out, "activation")


def draw_graph(
    paper: Figure, rows: Sequence[Row], task: Task, readout: str, position: int, limit: float, box: Box
) -> None:
    """Draw one graph with its map into a box."""
    place = np.array(box) / np.tile(paper.get_size_inches(), 2)
    graph, names = task.graphs[position], symbols_of(task.graphs)
    symbols = None if names is None else [names[label] for label in graph.node_label.tolist()]
    bonds = None if symbols is None else bonds_of(graph, task.graphs)
    scores = torch.tensor(map_of(rows, task.graphs.name, readout, position))
    draw(graph, scores, symbols=symbols, bonds=bonds, limit=limit, ax=paper.add_axes(place))


def gallery(rows: Sequence[Row], task: Task, out: Path) -> list[Path]:
    """Graphs of both classes that the network with a mean gets right and wrong, each after both readouts.

    The rows are the two readouts of the first graph of each kind, then those of the second. Every map has its
    own scale, whose end is told below it.
    """
    lines = [(place, readout) for place in range(len(GALLERY) // len(KINDS)) for readout in READOUTS]
    width, height = SIDE + len(KINDS) * ROOM[0] + BAR, HEAD + len(lines) * ROOM[1]
    paper, axes = figures.sheet(width, height)
    for column, kind in enumerate(KINDS):
        left = SIDE + ROOM[0] * column
        heading = kind.replace("scored", task.label.removesuffix("s")).replace(",", f", {PICKING}")
        axes.text(left + ROOM[0] / 2, height - HEAD / 2, heading, ha="center", va="center", weight="bold")
        for line, (place, readout) in enumerate(lines):
            corner = (left, height - HEAD - ROOM[1] * (line + 1))
            draw_cell(paper, axes, rows, task, readout, f"{kind} {place}", corner)
    for line, (place, readout) in enumerate(lines):
        top = height - HEAD - ROOM[1] * line
        axes.text(0.1, top - ROOM[1] / 2, readout, fontsize=11, fontweight="bold", va="center")
        if place and readout == READOUTS[0]:
            axes.plot([0.1, width - BAR], [top, top], color=figures.PALE, linewidth=1)
    label = "\nscore / largest of its map"  # a line further from the ticks
    colour_bar(paper, colour_scale(1.0), label, (width - BAR + 0.1, height / 2 - 1), 2.0)
    return figures.save(paper, out, f"gallery-{task.graphs.name}")


def draw_cell(
    paper: Figure, axes: Axes, rows: Sequence[Row], task: Task, readout: str, metric: str, corner: Corner
) -> None:
    """Draw one graph of the gallery with its map, and below it the prediction of the network."""
    data, position = task.graphs.name, chosen(rows, task.graphs.name, metric)
    centre = corner[0] + ROOM[0] / 2
    if position == NONE:
        middle = corner[1] + (ROOM[1] + CAPTION) / 2
        axes.text(centre, middle, "no other in this fold", fontsize=8.5, color=figures.GREY, ha="center")
        return
    limit = largest(rows, data, readout, [position])
    box = (corner[0], corner[1] + CAPTION, ROOM[0], ROOM[1] - CAPTION)
    draw_graph(paper, rows, task, readout, position, limit, box)
    logit = pick(rows, data=data, readout=readout, molecule=position, metric="logit")
    answer = "right" if (logit > 0) == metric.startswith("scored") else "wrong"
    probability = torch.tensor(logit).sigmoid().item()
    caption = f"P({task.label.removesuffix('s')}) {probability:.0%}: {answer}; ±{limit:.3g}"
    axes.text(centre, corner[1] + CAPTION / 2, caption, fontsize=8.5, ha="center", va="center")


def curves_figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """Two panels a set: atoms deleted, and atoms inserted."""
    sheets = [(data, what) for data in present(rows, "data") for what in ("deleted", "inserted")]
    paper, panels = figures.panels(len(sheets), width=3.9, height=2.9, columns=2)
    percents = [100 * part for part in REMOVED]
    reverse = {BEST: WORST, WORST: BEST, RANDOM: RANDOM}
    for panel, (data, what) in zip(panels, sheets, strict=True):
        for readout in READOUTS:
            for order, dashes in STYLES.items():
                source = order if what == "deleted" else reverse[order]
                curve = [100 * mean(per_fold(rows, data, readout, point(source, part))) for part in REMOVED]
                found = curve if what == "deleted" else curve[::-1]
                panel.plot(percents, found, linestyle=dashes, color=figures.COLOURS[readout])
        panel.set(title=f"{data}: atoms {what}", xlabel=f"atoms {what} [%]", xlim=(0, 100))
        panel.set(ylabel="probability of predicted class [%]", ylim=(0, 102))
    colours = figures.COLOURS
    figures.legend(
        paper, {f"{r}, {o}": (colours[r], dashes) for o, dashes in STYLES.items() for r in READOUTS}
    )
    return figures.save(paper, out, "activation_curves")


def chosen(rows: Sequence[Row], data: str, metric: str) -> int:
    """The position that was chosen to be drawn in a place, or `NONE`."""
    return int(pick(rows, data=data, metric=metric))


def map_of(rows: Sequence[Row], data: str, readout: str, position: int) -> list[float]:
    """The score of every node of a graph that is drawn."""
    wanted = {"data": data, "readout": readout, "molecule": position}
    return [row["value"] for row in rows if wanted.items() <= row.items() and row["metric"] != "logit"]


def largest(rows: Sequence[Row], data: str, readout: str, positions: Sequence[int]) -> float:
    """The largest magnitude of a score in these maps; 1 where there is none."""
    maps = (map_of(rows, data, readout, position) for position in positions)
    return max((abs(score) for scores in maps for score in scores), default=0.0) or 1.0
