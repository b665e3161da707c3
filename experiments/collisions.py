"""What sum, mean and max cannot tell apart in real data.

Claim: on bags of atoms the mean confuses graphs that the sum separates, because it cannot count. One round of
injective message passing almost closes the gap on molecules, as states then carry the structure. The max
confuses more than either. The *ceiling* is the best accuracy on the whole set of any classifier that sees
only the readout of Weisfeiler-Leman states of depth t; *pairs* are pairs of graphs that have one mean though
their sizes differ, in brackets those of different classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from rich.table import Table

from datasets import GraphSet
from datasets.collisions import VIEWS, View, collisions, colours, separation
from experiments import figures
from experiments.console import share, table, tracked
from experiments.rows import Row, RowLog, pick

DEPTH = 3
AGGREGATIONS: dict[View, str] = {"sum": "injective", "mean": "mean"}
MARKERS = {"sum": "o", "mean": "s", "max": "^"}


def measure(sets: Sequence[GraphSet], log: RowLog, depth: int = DEPTH) -> list[Row]:
    """Ceiling and pairs of each readout at depth 0 to `depth`, with injective and with mean aggregation."""
    rows = []
    for graphs in sets:
        rows += measure_classes(graphs, log)
        for aggregation in tracked(tuple(AGGREGATIONS), f"colours of {graphs.name}"):
            rows += measure_separation(graphs, log, aggregation, depth)
    return rows


def measure_classes(graphs: GraphSet, log: RowLog) -> list[Row]:
    """The number of graphs and the share of the largest class."""
    counts = Counter(int(graph.y) for graph in graphs)
    work = {"data": graphs.name, "readout": None, "seed": None, "fold": None}
    values = {"graphs": len(graphs), "majority": max(counts.values()) / len(graphs)}
    return log.measure(work, values, lambda: values)


def measure_separation(graphs: GraphSet, log: RowLog, aggregation: View, depth: int) -> list[Row]:
    """What each readout separates at each depth, with one kind of neighbour aggregation."""
    labels = [int(graph.y) for graph in graphs]
    colourings = cache(lambda: colours(graphs, depth, aggregation))

    def count(step: int, view: View) -> dict[str, float]:
        found = separation(colourings()[step], labels, view)
        return {
            "ceiling": float(found.ceiling),
            "pairs": found.pairs,
            "pairs across classes": found.pairs_across_classes,
        }

    rows = []
    for step in range(depth + 1):
        for view in VIEWS:
            work: dict[str, Any] = {"data": graphs.name, "readout": view, "seed": None, "fold": None}
            work |= {"aggregation": aggregation, "depth": step}
            metrics = ("ceiling", "pairs", "pairs across classes")
            rows += log.measure(work, metrics, partial(count, step, view))
    return rows


def tables(rows: Sequence[Row]) -> list[Table]:
    """One table for each kind of neighbour aggregation."""
    columns = ("set", "graphs", "majority", "depth", *VIEWS, "pairs", "(other class)")
    return [
        table(
            f"Accuracy ceilings, and pairs that mean confuses: {name} aggregation",
            columns,
            table_lines([row for row in rows if row.get("aggregation") in (None, aggregation)]),
        )
        for aggregation, name in AGGREGATIONS.items()
    ]


def table_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and depth; a set's own numbers stand in its first line."""
    for data in dict.fromkeys(row["data"] for row in rows):
        heading = [
            data,
            str(pick(rows, data=data, metric="graphs")),
            share(pick(rows, data=data, metric="majority")),
        ]
        for depth in sorted({row["depth"] for row in rows if row["data"] == data and "depth" in row}):
            at = {"data": data, "depth": depth}
            ceilings = [share(pick(rows, **at, readout=view, metric="ceiling")) for view in VIEWS]
            pairs = pick(rows, **at, readout="mean", metric="pairs")
            across = pick(rows, **at, readout="mean", metric="pairs across classes")
            yield [*heading, str(depth), *ceilings, str(pairs), f"({across})"]
            heading = ["", "", ""]


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """Ceilings over depth, one panel a set; dashed with mean aggregation."""
    names = list(dict.fromkeys(row["data"] for row in rows))
    drawing, panels = figures.panels(len(names))
    for panel, data in zip(panels, names, strict=True):
        majority = pick(rows, data=data, metric="majority")
        panel.axhline(100 * majority, color=figures.GREY, linewidth=1, linestyle=":")
        for aggregation, dashes in zip(AGGREGATIONS, ("-", "--"), strict=True):
            for view in VIEWS:
                at = {"data": data, "readout": view, "aggregation": aggregation, "metric": "ceiling"}
                line = [row for row in rows if at.items() <= row.items()]
                depths, ceilings = [row["depth"] for row in line], [100 * row["value"] for row in line]
                panel.plot(
                    depths, ceilings, f"{dashes}{MARKERS[view]}", color=figures.COLOURS[view], markersize=5
                )
        panel.set(title=data, xlabel="rounds of message passing", xticks=depths, ylim=(None, 102))
    panels[0].set_ylabel("accuracy ceiling [%]")
    figures.legend(
        drawing,
        {f"{view} readout": (figures.COLOURS[view], "-") for view in VIEWS}
        | {
            "injective aggregation": (figures.INK, "-"),
            "mean aggregation": (figures.INK, "--"),
        }
        | {"majority class": (figures.GREY, ":")},
    )
    return figures.save(drawing, out, "collisions")


def pair_lines(graphs: GraphSet, depth: int = DEPTH) -> Iterator[str]:
    """Every pair that mean cannot separate at depth 0, with the last depth at which it still cannot."""
    last: dict[tuple[int, int], int] = {}
    for colouring in colours(graphs, depth):
        last |= dict.fromkeys(collisions(colouring, "mean"), colouring.depth)
    for (first, second), step in sorted(last.items(), key=lambda item: (-item[1], item[0])):
        yield f"{graphs.name}, depth {step}: {described(graphs, first)} and {described(graphs, second)}"


def described(graphs: GraphSet, position: int) -> str:
    """A graph by its index, name, size and class."""
    graph = graphs[position]
    name = f" {graph.name}" if "name" in graph else ""
    return f"{position}{name} ({graph.num_nodes} nodes, class {int(graph.y)})"
