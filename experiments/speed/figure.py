"""Bandwidth over size, in the manner of a roofline: the roof is what memory gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from experiments import figures
from experiments.rows import Row
from experiments.speed.contenders import EXACT, FAST, FRESH, PYG, READ
from experiments.speed.limits import BACKWARD, FORWARD, Result, gather
from experiments.speed.shapes import TRIPLE

Style = tuple[str, str, str]
ROOFS = {FORWARD: READ, BACKWARD: FRESH}
STYLES: dict[str, Style] = {
    EXACT: (figures.COLOURS["sum"], "-", "o"),
    FAST: (figures.COLOURS["mean"], "-", "s"),
    PYG: (figures.COLOURS["max"], "-", "^"),
    "MultiAggregation": ("#cc79a7", "--", "v"),
    "compiled PyG": ("#56b4e9", "--", "<"),
    "embedding_bag": ("#e69f00", "--", "D"),
    "sparse reduce": (figures.INK, ":", "P"),
    "segment_reduce": (figures.GREY, "-.", "X"),
    "index_add_": ("#8c510a", ":", "*"),
}


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """One panel a direction: GB/s of sum, mean and max over the size of x, of evenly sized graphs."""
    drawing, panels = figures.panels(2, width=4.2, height=3.4)
    usual = {"readout": ", ".join(TRIPLE), "dtype": "float32", "layout": "sorted", "timing": "eager"}
    results = [result for result in gather(rows) if result.has(**usual, through="readout")]
    even = [result for result in results if result.case["data"].count("x") == 2]
    present = {name for result in even for name in result.numbers if result.number(name)}
    for panel, (direction, roof) in zip(panels, ROOFS.items(), strict=True):
        found = [result for result in even if result.has(direction=direction)]
        found.sort(key=lambda result: result.megabytes)
        draw(panel, found, roof, (figures.PALE, "-", ""), width=7)
        for name in present & set(STYLES):
            draw(panel, found, name, STYLES[name])
        panel.set(title=direction, xscale="log", yscale="log", xlabel="size of x [MB]")
    level(panels)
    panels[0].set_ylabel("bandwidth [GB/s]")
    entries = {"roof: reads, fresh write": (figures.PALE, "-")}
    entries |= {name: style[:2] for name, style in STYLES.items() if name in present}
    figures.legend(drawing, entries)
    return figures.save(drawing, out, "speed")


def level(panels: Sequence[Axes]) -> None:
    """One scale of bandwidth for all panels, and numbers that read as such."""
    ends = [end for panel in panels for end in panel.get_ylim()]
    for panel in panels:
        panel.set_ylim(min(ends), max(ends))
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter("{x:g}")
        panel.grid(color=figures.PALE, linewidth=0.5)


def draw(panel: Axes, results: Sequence[Result], name: str, style: Style, width: float = 1.5) -> None:
    """The line of one contender, through the cases that it was timed in."""
    points = [(result.megabytes, speed) for result in results if (speed := result.number(name, "GB/s"))]
    sizes, speeds = [size for size, _ in points], [speed for _, speed in points]
    colour, dashes, marker = style
    panel.plot(sizes, speeds, color=colour, linestyle=dashes, marker=marker, markersize=5, linewidth=width)
