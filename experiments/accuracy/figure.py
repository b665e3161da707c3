"""Held-out accuracies: a dot a fold and a bar for their mean, beside baselines and ceilings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from experiments import figures
from experiments.accuracy.baselines import BASELINES
from experiments.accuracy.tables import methods, networks, per_fold
from experiments.rows import Row, pick, present


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """One panel for each set and network."""
    pairs = [(data, network) for data in present(rows, "data") for network in networks(rows, data)]
    lines = max(len(methods(rows, *pair)) for pair in pairs) + len(BASELINES)
    drawing, panels = figures.panels(len(pairs), width=4.0, height=0.26 * lines + 0.8, columns=2)
    for panel, (data, network) in zip(panels, pairs, strict=True):
        named: list[tuple[str, str | None]] = [(method, network) for method in methods(rows, data, network)]
        named += [(method, None) for method in BASELINES]
        for height, (method, of) in enumerate(reversed(named)):
            where = {"data": data, "network": of, "readout": method}
            values = [100 * value for value in per_fold(rows, **where, metric="accuracy")]
            colour = figures.COLOURS.get(method, figures.INK if of else figures.GREY)
            panel.plot(values, [height] * len(values), "o", color=colour, alpha=0.3, markersize=5, mew=0)
            panel.plot([mean(values)], [height], "|", color=colour, markersize=13, mew=2.5)
            if of:
                ceiling = 100 * pick(rows, **where, metric="ceiling")
                panel.plot([ceiling], [height], "<", color=figures.GREY, markersize=4)
        panel.set(title=f"{data}, {network}", xlabel="held-out accuracy [%]", xlim=(None, 102))
        panel.set_yticks(range(len(named)), [method for method, _ in reversed(named)])
    figures.legend(
        drawing,
        {
            "dots: folds, bar: mean": (figures.INK, ""),
            "grey triangle: ceiling": (figures.GREY, ""),
        },
    )
    return figures.save(drawing, out, "accuracy")
