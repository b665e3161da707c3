"""Three panels a set: MCC over size, norm of the logits and calibration error over the number of copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from matplotlib.axes import Axes

from experiments import figures
from experiments.extrapolation.copies import COPIES
from experiments.extrapolation.judging import BEST_SIZE
from experiments.extrapolation.tables import copied, found
from experiments.extrapolation.task import BETWEEN, HOLD_OUT, LARGE
from experiments.extrapolation.training import READOUTS
from experiments.rows import Row, present

STYLES = {name: (colour, "-") for name, colour in figures.COLOURS.items()} | {
    "median": ("#7b4ea3", "--"),
    "attention": ("#e69f00", "--"),
    "sum+mean+max": ("#56b4e9", "-."),
    "size-aware mean": ("#cc79a7", "-."),
}
ASKED = (HOLD_OUT, BETWEEN, LARGE)


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """A row of panels for each set."""
    sets = present(rows, "data")
    drawing, panels = figures.panels(3 * len(sets), width=3.3, height=2.9, columns=3)
    for position, data in enumerate(sets):
        by_size, norms, errors = panels[3 * position : 3 * position + 3]
        draw_sizes(by_size, rows, data)
        draw_copies(norms, rows, data, "logit norm")
        draw_copies(errors, rows, data, "ECE")
    entries = {name: STYLES[name] for name in READOUTS}
    figures.legend(drawing, entries | {"best size threshold": (figures.GREY, ":")})
    return figures.save(drawing, out, "extrapolation")


def draw_sizes(panel: Axes, rows: Sequence[Row], data: str) -> None:
    """MCC on held-out graphs over their mean size: a line for the mean of the seeds, a dot for each."""
    nodes = [mean(found(rows, data=data, part=part, metric="nodes")) for part in ASKED]
    for readout in (*READOUTS, BEST_SIZE):
        colour, dashes = STYLES.get(readout, (figures.GREY, ":"))
        skill = [found(rows, data=data, readout=readout, part=part, metric="MCC") for part in ASKED]
        panel.plot(nodes, [mean(values) for values in skill], dashes, color=colour, linewidth=1.5)
        for n, values in zip(nodes, skill, strict=True) if readout in READOUTS else ():
            panel.plot([n] * len(values), values, "o", color=colour, alpha=0.35, markersize=4, mew=0)
    panel.set(title=f"{data}: skill", xlabel="mean number of nodes", ylabel="MCC", ylim=(None, 1.04))


def draw_copies(panel: Axes, rows: Sequence[Row], data: str, metric: str) -> None:
    """The mean over seeds for every number of copies."""
    for readout in READOUTS:
        colour, dashes = STYLES[readout]
        values = [copied(rows, data, readout, metric, k) for k in COPIES]
        panel.plot(COPIES, values, dashes, color=colour, marker="o", markersize=3.5, linewidth=1.5)
    panel.set_xscale("log", base=2)
    panel.set_xticks(COPIES, [str(k) for k in COPIES])
    panel.set(title=f"{data}: {metric}", xlabel="disjoint copies k", ylabel=metric)
    if metric == "logit norm":
        panel.set_yscale("log")
