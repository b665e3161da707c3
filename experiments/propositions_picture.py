"""The picture of the propositions: every deviation as a dot, those that are exactly 0 in their own column."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from pathlib import Path

from matplotlib.axes import Axes

from experiments import figures
from experiments.propositions import DTYPES, PROPOSITIONS, TOLERANCES, numbers
from experiments.rows import Row

COLOURS = {"float32": figures.COLOURS["mean"], "float64": figures.COLOURS["sum"]}
ZERO = -19.0


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """One panel a set."""
    names = list(dict.fromkeys(row["data"] for row in rows))
    drawing, panels = figures.panels(len(names), width=7.2, height=3.2, columns=1)
    for panel, data in zip(panels, names, strict=True):
        draw(panel, rows, data)
    entries = {dtype: (colour, "-") for dtype, colour in COLOURS.items()}
    figures.legend(drawing, entries | {"tolerance": (figures.GREY, ":")})
    return figures.save(drawing, out, "propositions")


def draw(panel: Axes, rows: Sequence[Row], data: str) -> None:
    """Propositions down, deviations across, and the tolerances as lines."""
    panel.axvspan(ZERO - 0.8, ZERO + 0.8, color=figures.PALE, alpha=0.5, linewidth=0)
    for dtype, offset in zip(DTYPES, (-0.18, 0.18), strict=True):
        colour = COLOURS[dtype]
        panel.axvline(exponent(TOLERANCES[dtype]), color=colour, linestyle=":", linewidth=1)
        for number, proposition in enumerate(PROPOSITIONS, start=1):
            found = numbers(rows, data, number, dtype)
            places = [exponent(found[name]) for name in proposition.equal]
            heights = [number + offset] * len(places)
            panel.plot(places, heights, "o", color=colour, markersize=5, mew=0, zorder=3)
    panel.set_yticks(
        range(1, len(PROPOSITIONS) + 1), [f"{p.words}  {n}" for n, p in enumerate(PROPOSITIONS, start=1)]
    )
    panel.set_ylim(len(PROPOSITIONS) + 0.6, 0.4)
    panel.set_xticks([ZERO, *range(-16, 0, 4)], ["0", *(f"$10^{{{e}}}$" for e in range(-16, 0, 4))])
    panel.set(title=data, xlim=(ZERO - 0.8, -3), xlabel="relative deviation")
    panel.grid(axis="y", color=figures.PALE, linewidth=0.5)
    panel.tick_params(axis="y", length=0, labelsize=8.5)


def exponent(value: float) -> float:
    """The place of a deviation on the axis."""
    return min(max(log10(value), -17.5), -3.2) if value else ZERO
