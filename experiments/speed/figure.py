"""Time over size: ours and its peers, in units of what memory allows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from experiments import figures
from experiments.rows import Row
from experiments.speed.baselines import FRESH, READ
from experiments.speed.cases import BACKWARD, EAGER, FORWARD, NORMAL, SORTED, TRIPLE
from experiments.speed.cells import Cell, gather
from experiments.speed.implementations import (
    EMBEDDING_BAG,
    GROUPED,
    INDEX_ADD,
    OURS,
    PYG,
    SCATTER_REDUCE,
    SEGMENT_REDUCE,
    SPARSE_REDUCE,
)

Style = tuple[str, str, str]
BASES = {FORWARD: READ, BACKWARD: FRESH}
STYLES: dict[str, Style] = {
    OURS: (figures.COLOURS["sum"], "-", "o"),
    GROUPED: (figures.COLOURS["sum"], ":", "o"),
    PYG: (figures.COLOURS["mean"], "-", "^"),
    EMBEDDING_BAG: ("#e69f00", "--", "D"),
    SPARSE_REDUCE: (figures.INK, ":", "P"),
    SEGMENT_REDUCE: (figures.GREY, "-.", "X"),
    INDEX_ADD: ("#8c510a", ":", "*"),
    SCATTER_REDUCE: ("#cc79a7", "--", "v"),
}


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """One panel a direction: time of sum, mean and max over the size of x, of evenly sized graphs."""
    drawing, panels = figures.panels(2, width=4.2, height=3.4)
    usual = {"readout": ", ".join(TRIPLE), "dtype": "float32", "kind": NORMAL}
    usual |= {"layout": SORTED, "timing": EAGER}
    even = [cell for cell in gather(rows) if cell.has(**usual) and cell.case["data"].count("x") == 2]
    present = {name for cell in even for name in cell.numbers if cell.number(name)}
    for panel, (direction, base) in zip(panels, BASES.items(), strict=True):
        here = [cell for cell in even if cell.has(direction=direction)]
        draw(panel, here, base, (figures.PALE, "-", ""), width=7)
        for name in STYLES:
            if name in present:
                draw(panel, here, name, STYLES[name])
        panel.set(title=direction, xscale="log", yscale="log", xlabel="size of x [MB]")
    level(panels)
    panels[0].set_ylabel("time [us]")
    entries = {"plain read; two reads, fresh write": (figures.PALE, "-")}
    entries |= {name: style[:2] for name, style in STYLES.items() if name in present}
    figures.legend(drawing, entries)
    return figures.save(drawing, out, "speed")


def level(panels: Sequence[Axes]) -> None:
    """One scale of time for all panels, and numbers that read as such."""
    ends = [end for panel in panels for end in panel.get_ylim()]
    for panel in panels:
        panel.set_ylim(min(ends), max(ends))
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter("{x:,.12g}")
        panel.grid(color=figures.PALE, linewidth=0.5)


def draw(panel: Axes, cells: Sequence[Cell], name: str, style: Style, width: float = 1.5) -> None:
    """The line of one contender, through the cases that it was timed in."""
    points = [(cell.bytes / 1e6, 1e6 * time) for cell in cells if (time := cell.number(name))]
    sizes, spent = [size for size, _ in points], [time for _, time in points]
    colour, dashes, marker = style
    panel.plot(sizes, spent, color=colour, linestyle=dashes, marker=marker, markersize=5, linewidth=width)
