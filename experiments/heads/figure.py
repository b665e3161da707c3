"""Accuracies of all heads, and the law."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes

from experiments import figures
from experiments.heads.law import ATOMS, RANDOM
from experiments.heads.networks import HEADS
from experiments.heads.tables import trained
from experiments.rows import Row, average, pick, present

PURPLE = "#7b4ea3"
LOOKS = {
    "train accuracy": ("training", "|", figures.GREY),
    "accuracy": ("held out", "o", figures.INK),
    "shuffled accuracy": ("held out, nodes shuffled", "x", PURPLE),
}
KINDS = {ATOMS: figures.INK, RANDOM: PURPLE}


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """For each set, accuracies where networks were trained, and variances over the number of nodes."""
    sheets = [
        (data, draw)
        for data in present(rows, "data")
        for draw in (draw_heads, draw_law)
        if draw is draw_law or data in trained(rows)
    ]
    drawing, panels = figures.panels(len(sheets), width=4.2, height=2.9, columns=2)
    for panel, (data, draw) in zip(panels, sheets, strict=True):
        draw(panel, rows, data)
    return figures.save(drawing, out, "heads")


def draw_heads(panel: Axes, rows: Sequence[Row], data: str) -> None:
    """A line a head: in training, held out, and held out with shuffled nodes."""
    for metric, (name, mark, colour) in LOOKS.items():
        values = [100 * average(rows, data=data, readout=head, metric=metric) for head in reversed(HEADS)]
        panel.plot(values, range(len(HEADS)), mark, color=colour, markersize=8, mew=2, label=name)
    largest = 100 * average(rows, data=data, metric="majority")
    panel.axvline(largest, color=figures.GREY, linestyle=":", linewidth=1, label="largest class")
    panel.set(title=data, xlabel="accuracy [%]", xlim=(None, 101), ylim=(-0.6, len(HEADS) - 0.4))
    panel.set_yticks(range(len(HEADS)), list(reversed(HEADS)))
    panel.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.35, 1.1))


def draw_law(panel: Axes, rows: Sequence[Row], data: str) -> None:
    """Variances in units of that of one node: dots measured, lines the formula, dashed without correction."""
    for kind, colour in KINDS.items():
        numbers = present(rows, "nodes", data=data, features=kind)
        at = partial(pick, rows, data=data, features=kind)
        units = [m * at(nodes=m, metric="plain") for m in numbers]
        shown = [(m, unit) for m, unit in zip(numbers, units, strict=True) if unit > 0]
        for metric, style in (("measured", "o"), ("predicted", "-")):
            values = [at(nodes=m, metric=metric) / unit for m, unit in shown]
            panel.plot(
                [m for m, _ in shown], values, style, color=colour, markersize=5, label=f"{kind}, {metric}"
            )
    panel.plot(numbers, [1 / m for m in numbers], "--", color=figures.GREY, linewidth=1, label="1 / m")
    panel.set_xscale("log", base=2)
    panel.set_yscale("log", base=2)
    panel.xaxis.set_major_formatter("{x:.0f}")
    panel.yaxis.set_major_formatter("{x:.3g}")
    panel.set(title=data, xlabel="nodes drawn, m", ylabel="variance of their mean / of one")
    panel.legend(frameon=False, fontsize=8)
