"""Held-out molecules with their maps, a gallery of right and wrong ones, deletion and insertion curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from matplotlib.axes import Axes
from rdkit import Chem

from datasets import GraphSet
from experiments import figures
from experiments.activation_maps import worth
from experiments.activation_maps.maps import READOUTS
from experiments.activation_maps.measure import GALLERY, KINDS, NONE, PICKING, SHOWN
from experiments.activation_maps.tables import per_fold
from experiments.activation_maps.task import BOND_ORDERS
from experiments.rows import Row, pick, present
from readouts.attribution import molecule
from readouts.attribution.drawing import Array, bond_orders, colour_bar, colour_scale

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
        bottom = height - CELL[1] * (line + 1)
        middle = bottom + CELL[1] / 2
        positions = [found for metric in SHOWN if (found := chosen(rows, graphs.name, metric)) != NONE]
        limit = largest(rows, graphs.name, PICKING, positions)
        for column, position in enumerate(positions):
            coloured = colour(rows, graphs, PICKING, position, limit)
            molecule.draw_molecule(*coloured, axes, (LEFT + CELL[0] * column, bottom), CELL, LONGEST_BOND)
        colour_bar(paper, colour_scale(limit), "score", (width - BAR + 0.1, middle - 0.55), 1.1)
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
    colour_bar(paper, colour_scale(1.0), label, (width - BAR + 0.1, height / 2 - 1), 2.0)
    return figures.save(paper, out, f"gallery-{graphs.name}")


def draw_cell(
    axes: Axes,
    corner: tuple[float, float],
    rows: Sequence[Row],
    graphs: GraphSet,
    readout: str,
    position: int,
    kind: str,
) -> None:
    """Draw one molecule of the gallery with its map, and below it the prediction of the network."""
    centre, room = corner[0] + ROOM[0] / 2, (ROOM[0], ROOM[1] - CAPTION)
    if position == NONE:
        middle = corner[1] + (ROOM[1] + CAPTION) / 2
        axes.text(centre, middle, "no other in this fold", fontsize=8.5, color=figures.GREY, ha="center")
        return
    limit = largest(rows, graphs.name, readout, [position])
    coloured = colour(rows, graphs, readout, position, limit)
    molecule.draw_molecule(*coloured, axes, (corner[0], corner[1] + CAPTION), room, LONGEST_BOND)
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


def colour(
    rows: Sequence[Row], graphs: GraphSet, readout: str, position: int, limit: float
) -> tuple[Chem.Mol, Array]:
    """Return one molecule of a set, and the colours of its atoms."""
    graph, elements = graphs[position], graphs.node_names or ()
    orders = bond_orders(graph, torch.tensor(BOND_ORDERS[graphs.name])[graph.edge_label])
    compound = molecule.build([elements[label] for label in graph.node_label], None, orders)
    scores = np.array(map_of(rows, graphs.name, readout, position))
    return compound, colour_scale(limit).to_rgba(scores)
