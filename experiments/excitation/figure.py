"""For each set: accuracies, gates channel by channel, and what copies do to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from matplotlib.axes import Axes

from experiments import figures
from experiments.excitation.measure import BASELINES, COPIES
from experiments.excitation.networks import NONE, ROUNDS, SQUEEZES, VIEWS, WIDTH
from experiments.excitation.tables import per_fold
from experiments.rows import Row, pick, present

COLOURS = figures.COLOURS | {NONE: figures.INK}
LINES = dict(zip(BASELINES, ("--", ":"), strict=True))
MARKERS = {NONE: "x", "mean": "s", "max": "^", "sum": "o"}


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """Three panels a set; the gates are those of the last block in the first fold."""
    drawing, panels = figures.panels(3 * len(present(rows, "data")), width=3.1, height=2.7)
    for place, data in enumerate(present(rows, "data")):
        accuracies, gates, copies = panels[3 * place : 3 * place + 3]
        draw_accuracies(accuracies, rows, data)
        draw_gates(gates, rows, data)
        draw_copies(copies, rows, data)
    entries = {f"squeeze by {name}" if name != NONE else "no gates": (COLOURS[name], "-") for name in VIEWS}
    figures.legend(drawing, entries | {name: (figures.GREY, dashes) for name, dashes in LINES.items()})
    return figures.save(drawing, out, "excitation")


def draw_accuracies(panel: Axes, rows: Sequence[Row], data: str) -> None:
    """A dot a fold and a bar for their mean."""
    for height, squeeze in enumerate(reversed(VIEWS)):
        values = [100 * value for value in per_fold(rows, data, squeeze, "accuracy")]
        colour = COLOURS[squeeze]
        panel.plot(values, [height] * len(values), "o", color=colour, alpha=0.3, markersize=5, mew=0)
        panel.plot([mean(values)], [height], "|", color=colour, markersize=16, mew=2.5)
    for baseline, dashes in LINES.items():
        reached = 100 * mean(per_fold(rows, data, baseline, "accuracy"))
        panel.axvline(reached, color=figures.GREY, linestyle=dashes, linewidth=1, zorder=0)
    panel.set(title=f"{data}: accuracy", xlabel="held-out accuracy [%]")
    panel.set(xlim=(None, 102), ylim=(-0.6, len(VIEWS) - 0.4))
    panel.set_yticks(range(len(VIEWS)), list(reversed(VIEWS)))


def draw_gates(panel: Axes, rows: Sequence[Row], data: str) -> None:
    """The mean gate of every channel, in their order, and one standard deviation over graphs to each side."""
    for squeeze in SQUEEZES:
        at = {"data": data, "squeeze": squeeze, "block": ROUNDS - 2}
        found = sorted(
            [pick(rows, **at, metric=f"channel {channel} {what}") for what in ("mean", "sd")]
            for channel in range(WIDTH)
        )
        low, high = ([m + sign * s for m, s in found] for sign in (-1, 1))
        panel.fill_between(range(WIDTH), low, high, color=COLOURS[squeeze], alpha=0.2, linewidth=0)
        panel.plot(range(WIDTH), [m for m, _ in found], color=COLOURS[squeeze])
    panel.set(title=f"{data}: gates", xlabel="channel, in order of its mean")
    panel.set(ylabel="gate, mean ± sd over graphs", ylim=(0, 1))


def draw_copies(panel: Axes, rows: Sequence[Row], data: str) -> None:
    """How many gates are saturated, over the number of copies."""
    for squeeze in SQUEEZES:
        values = [100 * mean(per_fold(rows, data, squeeze, "saturated", copies=k)) for k in COPIES]
        panel.plot(COPIES, values, f"-{MARKERS[squeeze]}", color=COLOURS[squeeze], markersize=4)
    panel.set_xscale("log", base=2)
    panel.set_xticks(COPIES, [str(k) for k in COPIES])
    panel.set(title=f"{data}: gates of copies", xlabel="copies of a graph", ylabel="gates near 0 or 1 [%]")
    panel.set(ylim=(-2, 102))
