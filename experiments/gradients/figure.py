"""Gradients and labels over the epochs of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from experiments import figures
from experiments.gradients.networks import MAPS, READOUTS, VECTOR
from experiments.rows import Row, average, present

COLOURS = figures.COLOURS | {"softmax": "#e69f00", "median": "#7b4ea3"}


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """For each set and head, the Gini coefficient over the epochs, and how the labels meet."""
    sheets = [
        (data, head, labels) for data in present(rows, "data") for head in (VECTOR, MAPS) for labels in (0, 1)
    ]
    columns = 2 if len(sheets) == 4 else 4  # one set in a square, several in a row each
    drawing, panels = figures.panels(len(sheets), width=3.2, height=2.5, columns=columns)
    for panel, (data, head, labels) in zip(panels, sheets, strict=True):
        metric = ("divided" if head == VECTOR else "met") if labels else "gini"
        draw(panel, [row for row in rows if row["data"] == data and row.get("head") == head], metric)
        panel.set_title(f"{data}: {head}", fontsize=9.5)
    figures.legend(drawing, {name: (COLOURS[name], "-") for name in READOUTS})
    return figures.save(drawing, out, "gradients")


def draw(panel: Axes, rows: Sequence[Row], metric: str) -> None:
    """One line a readout; sum lies under mean, which does the same."""
    epochs = present(rows, "epoch")
    factor = 1 if metric == "gini" else 100
    for name, marker in zip(READOUTS, "os^Dv", strict=True):
        values = [factor * average(rows, readout=name, metric=metric, epoch=epoch) for epoch in epochs]
        size, width = (8, 3) if name == "sum" else (4, 1.5)
        panel.plot(epochs, values, f"-{marker}", color=COLOURS[name], markersize=size, linewidth=width)
    label = {
        "gini": "Gini of the gradient norms",
        "divided": "graphs divided [%]",
        "met": "nodes that hear both [%]",
    }
    panel.set_xscale("symlog", linthresh=1)
    ticks = [epoch for epoch in epochs if str(epoch).strip("0") in ("", "1")]
    panel.set_xticks(ticks, [str(epoch) for epoch in ticks])
    panel.set_xticks([], minor=True)
    panel.set(xlabel="epochs of training", ylabel=label[metric], ylim=(-0.04 * factor, 1.04 * factor))
