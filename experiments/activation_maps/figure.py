"""Held-out molecules with their maps, a gallery of right and wrong ones, deletion and insertion curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch
from matplotlib.axes import Axes

from datasets import GraphSet
from experiments import figures
from experiments.activation_maps import worth
from experiments.activation_maps.maps import READOUTS
from experiments.activation_maps.measure import GALLERY, KINDS, NONE, PICKING, SHOWN
from experiments.activation_maps.tables import per_fold
from experiments.activation_maps.task import BOND_ORDERS
from experiments.rows import Row, pick, present
from readouts.attribution import drawing, picture
from readouts.attribution.sketch import Sketch

Size = tuple[float, float]

CELL, LEFT, BAR, LONGEST_BOND = (1.72, 1.75), 1.3, 0.85, 0.3  # inches
ROOM, HEAD, SIDE, CAPTION = (2.05, 1.75), 0.4, 0.75, 0.25  # inches, of the gallery
STYLES = {worth.BEST: "-", worth.RANDOM: "--", worth.WORST: ":"}


def figure(rows: Sequence[Row], sets: Sequence[GraphSet], out: Path) -> list[Path]:
    """All figures: `activation`, `activation_curves`, and for each set a `gallery-SET`."""
    paths = shown_figure(rows, sets, out) + curves_figure(rows, out)
    return paths + [path for graphs in sets for path in gallery(rows, graphs, out)]


def shown_figure(rows: Sequence[Row], sets: Sequence[GraphSet], out: Path) -> list[Path]:
    """Molecules with nitro groups and their maps behind a mean, a row a set, each with its own scale."""
    width, height = LEFT + len(SHOWN) * CELL[0] + BAR, CELL[1] * len(sets)
    paper, axes = figures.sheet(width, height)
    for line, graphs in enumerate(sets):
        middle = height - CELL[1] * (line + 0.5)
        positions = [found for metric in SHOWN if (found := chosen(rows, graphs.name, metric)) != NONE]
        limit = largest(rows, graphs.name, PICKING, positions)
        for column, position in enumerate(positions):
            sketch = skeletal(graphs, position, map_of(rows, graphs.name, PICKING, position))
            place = (LEFT + CELL[0] * (column + 0.5), middle)
            picture.paint(axes, sketch, limit, place, longest(sketch, CELL))
        picture.colour_bar(paper, limit, "score", (width - BAR + 0.1, middle - 0.55), 1.1)
        atoms, score = (mean(per_fold(rows, graphs.name, PICKING, name)) for name in ("atoms", "score"))
        note = f"NO$_2$ is {atoms:.0%}\nof the atoms and\ncarries {score:.0%} of\nthe positive score"
        axes.text(0.1, middle + 0.42, graphs.name, fontsize=11, fontweight="bold", va="center")
        axes.text(0.1, middle - 0.12, note, fontsize=9, va="center", color=figures.GREY)
    return figures.save(paper, out, "activation")


def gallery(rows: Sequence[Row], graphs: GraphSet, out: Path) -> list[Path]:
    """Molecules of both classes that the network with a mean gets right and wrong, each behind both readouts.

    The rows are the two readouts of the first molecule of each kind, then those of the second. Every map has
    its own scale, whose end is told below it.
    """
    lines = [(place, readout) for place in range(len(GALLERY) // len(KINDS)) for readout in READOUTS]
    width, height = SIDE + len(KINDS) * ROOM[0] + BAR, HEAD + len(lines) * ROOM[1]
    paper, axes = figures.sheet(width, height)
    for column, kind in enumerate(KINDS):
        left = SIDE + ROOM[0] * column
        heading = (left + ROOM[0] / 2, height - HEAD / 2)
        axes.text(*heading, kind.replace(",", f", {PICKING}"), ha="center", va="center", fontweight="bold")
        for line, (place, readout) in enumerate(lines):
            corner = (left, height - HEAD - ROOM[1] * (line + 1))
            draw_cell(axes, corner, rows, graphs, readout, chosen(rows, graphs.name, f"{kind} {place}"), kind)
    for line, (place, readout) in enumerate(lines):
        top = height - HEAD - ROOM[1] * line
        axes.text(0.1, top - ROOM[1] / 2, readout, fontsize=11, fontweight="bold", va="center")
        if place and readout == READOUTS[0]:
            axes.plot([0.1, width - BAR], [top, top], color=figures.PALE, linewidth=1)
    label = "\nscore / largest of its map"  # a line further from the ticks
    picture.colour_bar(paper, 1.0, label, (width - BAR + 0.1, height / 2 - 1), 2.0)
    return figures.save(paper, out, f"gallery-{graphs.name}")


def draw_cell(
    axes: Axes, corner: Size, rows: Sequence[Row], graphs: GraphSet, readout: str, position: int, kind: str
) -> None:
    """One molecule of the gallery with its map, and below it what the network takes it for."""
    centre = corner[0] + ROOM[0] / 2
    middle = (centre, corner[1] + (ROOM[1] + CAPTION) / 2)
    if position == NONE:
        axes.text(*middle, "no other in this fold", fontsize=8.5, color=figures.GREY, ha="center")
        return
    sketch = skeletal(graphs, position, map_of(rows, graphs.name, readout, position))
    limit = largest(rows, graphs.name, readout, [position])
    picture.paint(axes, sketch, limit, middle, longest(sketch, (ROOM[0], ROOM[1] - CAPTION)))
    logit = pick(rows, data=graphs.name, readout=readout, molecule=position, metric="logit")
    probability = torch.tensor(logit).sigmoid().item()
    answer = "right" if (logit > 0) == kind.startswith("mutagen") else "wrong"
    caption = f"P(mutagen) {probability:.0%}: {answer}; ±{limit:.3g}"
    axes.text(centre, corner[1] + CAPTION / 2, caption, fontsize=8.5, ha="center", va="center")


def curves_figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """Two panels a set: atoms deleted, and atoms inserted."""
    sheets = [(data, deletion) for data in present(rows, "data") for deletion in (True, False)]
    paper, panels = figures.panels(len(sheets), width=3.9, height=2.9, columns=2)
    for panel, (data, deletion) in zip(panels, sheets, strict=True):
        for readout in READOUTS:
            for order in worth.ORDERS:
                draw(panel, rows, data, readout, order, deletion)
        what = "deleted" if deletion else "inserted"
        panel.set(title=f"{data}: atoms {what}", xlabel=f"atoms {what} [%]", xlim=(0, 100))
        panel.set(ylabel="probability of predicted class [%]", ylim=(0, 102))
    entries = {
        f"{readout}, {order}": (figures.COLOURS[readout], STYLES[order])
        for order in worth.ORDERS
        for readout in READOUTS
    }
    figures.legend(paper, entries)
    return figures.save(paper, out, "activation_curves")


def draw(panel: Axes, rows: Sequence[Row], data: str, readout: str, order: str, deletion: bool) -> None:
    """One curve: what is inserted in one order is what is left when the reverse is deleted."""
    reverse = {worth.BEST: worth.WORST, worth.WORST: worth.BEST, worth.RANDOM: worth.RANDOM}
    source = order if deletion else reverse[order]
    values = [100 * mean(per_fold(rows, data, readout, worth.point(source, part))) for part in worth.REMOVED]
    percents = [100 * part for part in worth.REMOVED]
    panel.plot(
        percents,
        values if deletion else values[::-1],
        linestyle=STYLES[order],
        color=figures.COLOURS[readout],
    )


def chosen(rows: Sequence[Row], data: str, metric: str) -> int:
    """The position that was chosen to be drawn in a place, or `NONE`."""
    return int(pick(rows, data=data, metric=metric))


def map_of(rows: Sequence[Row], data: str, readout: str, position: int) -> list[float]:
    """The score of every atom of a molecule that is drawn."""
    wanted = {"data": data, "readout": readout, "molecule": position}
    return [row["value"] for row in rows if wanted.items() <= row.items() and row["metric"] != "logit"]


def largest(rows: Sequence[Row], data: str, readout: str, positions: Sequence[int]) -> float:
    """The largest magnitude of a score in these maps; 1 where there is none."""
    maps = (map_of(rows, data, readout, position) for position in positions)
    return max((abs(score) for scores in maps for score in scores), default=0.0) or 1.0


def longest(sketch: Sketch, room: Size) -> float:
    """The length of a bond with which a sketch fits into its room, inches."""
    sides = zip(room, sketch.extent, strict=True)
    return min(LONGEST_BOND, *((side - 0.28) / max(float(extent), 1e-9) for side, extent in sides))


def skeletal(graphs: GraphSet, position: int, scores: Sequence[float]) -> Sketch:
    """The sketch of one molecule of a set."""
    graph, elements = graphs[position], graphs.node_names or ()
    return drawing.sketch(
        graph,
        torch.tensor(scores, dtype=torch.float64),
        symbols=[elements[label] for label in graph.node_label],
        bonds=torch.tensor(BOND_ORDERS[graphs.name])[graph.edge_label],
    )
