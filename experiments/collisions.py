"""What sum, mean and max cannot tell apart in real data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch_geometric.data import Data

from datasets import GraphSet
from datasets.collisions import VIEWS, Colouring, View, collisions, colours, separation
from experiments import figures
from experiments.console import Table, share, table
from experiments.experiment import Experiment, Finding, span
from experiments.jobs import Job, carry_out
from experiments.options import flag
from experiments.records import Row, RowLog, pick, present, values

DEPTH, MOST_LEFT = 3, 1.0  # rounds; points
METRICS, CONNECTED = ("ceiling", "pairs", "pairs across classes"), "pairs of connected graphs"
AGGREGATIONS: dict[View, str] = {"sum": "injective", "mean": "mean"}
MARKERS = {"sum": "o", "mean": "s", "max": "^"}
DASHES: dict[View, str] = {"sum": "-", "mean": "--"}  # of the aggregations


def measure(sets: Sequence[GraphSet], log: RowLog, depth: int = DEPTH) -> list[Row]:
    """Ceiling and pairs of each readout at depth 0 to `depth`, with injective and with mean aggregation."""
    jobs = []
    for graphs in sets:
        work: dict[str, Any] = {"data": graphs.name, "readout": None, "seed": None, "fold": None}
        jobs.append(Job([(work, ("graphs", "majority"))], partial(count, graphs)))
        for aggregation in AGGREGATIONS:
            rows = []
            for step, view in product(range(depth + 1), VIEWS):
                here = work | {"readout": view, "aggregation": aggregation, "depth": step}
                rows.append((here, (*METRICS, CONNECTED) if view == "mean" else METRICS))
            jobs.append(Job(rows, partial(separate, graphs, aggregation, depth)))
    return carry_out(jobs, log, "colours")


def count(graphs: GraphSet) -> list[dict[str, float]]:
    """The number of graphs and the share of the largest class."""
    largest = int(graphs.targets.bincount().max())
    return [{"graphs": len(graphs), "majority": largest / len(graphs)}]


def separate(graphs: GraphSet, aggregation: View, depth: int) -> list[dict[str, float]]:
    """What each readout separates at each depth, with one kind of neighbour aggregation."""
    labels = [int(graph.y) for graph in graphs]
    connected = [place for place, graph in enumerate(graphs) if is_connected(graph)]
    rows = []
    for colouring in colours(graphs, depth, aggregation):
        for view in VIEWS:
            found = separation(colouring, labels, view)
            numbers = (float(found.ceiling), found.pairs, found.pairs_across_classes)
            row = dict(zip(METRICS, numbers, strict=True))
            if view == "mean":
                part, of = restricted(colouring, connected), [labels[place] for place in connected]
                row[CONNECTED] = separation(part, of, view).pairs if of else 0
            rows.append(row)
    return rows


def restricted(colouring: Colouring, kept: Sequence[int]) -> Colouring:
    """The colours of some of the graphs."""
    parts = [colouring[graph] for graph in kept]
    ptr = np.cumsum([0, *map(len, parts)])
    return replace(colouring, colour=np.concatenate([colouring.colour[:0], *parts]), ptr=ptr)


def is_connected(graph: Data) -> bool:
    """Whether a graph is in one piece, and so no disjoint copies of another."""
    edges = graph.edge_index.numpy()
    nodes = graph.num_nodes
    adjacency = coo_matrix((np.ones(edges.shape[1]), edges), shape=(nodes, nodes))
    return int(connected_components(adjacency, directed=False)[0]) <= 1


def tables(rows: Sequence[Row]) -> list[Table]:
    """One table for each kind of neighbour aggregation."""
    columns = ("set", "graphs", "majority", "depth", *VIEWS, "pairs", "(other class)")
    title = "Accuracy ceilings, and pairs that mean confuses: {} aggregation"
    return [
        table(title.format(name), columns, table_lines(rows, aggregation))
        for aggregation, name in AGGREGATIONS.items()
    ]


def table_lines(rows: Sequence[Row], aggregation: View) -> Iterator[list[str]]:
    """One line for each set and depth; a set's own numbers stand in its first line."""
    for data in present(rows, "data"):
        graphs, majority = (pick(rows, data=data, metric=metric) for metric in ("graphs", "majority"))
        heading = [data, str(graphs), share(majority)]
        for depth in present(rows, "depth", data=data):
            at = partial(pick, rows, data=data, aggregation=aggregation, depth=depth)
            ceilings = [share(at(readout=view, metric="ceiling")) for view in VIEWS]
            pairs, across = (at(readout="mean", metric=metric) for metric in METRICS[1:])
            yield [*heading, str(depth), *ceilings, str(pairs), f"({across})"]
            heading = [""] * len(heading)


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """Ceilings over depth, one panel a set; dashed with mean aggregation."""
    names = present(rows, "data")
    drawing, panels = figures.panels(len(names))
    for panel, data in zip(panels, names, strict=True):
        majority = pick(rows, data=data, metric="majority")
        panel.axhline(100 * majority, color=figures.GREY, linewidth=1, linestyle=":")
        for aggregation, dashes in DASHES.items():
            for view in VIEWS:
                at = {"data": data, "readout": view, "aggregation": aggregation, "metric": "ceiling"}
                depths, ceilings = present(rows, "depth", **at), [100 * value for value in values(rows, **at)]
                style = f"{dashes}{MARKERS[view]}"
                panel.plot(depths, ceilings, style, color=figures.COLOURS[view], markersize=5)
        panel.set(title=data, xlabel="rounds of message passing", xticks=depths, ylim=(None, 102))
    panels[0].set_ylabel("accuracy ceiling [%]")
    entries = {f"{view} readout": (figures.COLOURS[view], "-") for view in VIEWS}
    entries |= {f"{AGGREGATIONS[kind]} aggregation": (figures.INK, dashes) for kind, dashes in DASHES.items()}
    figures.legend(drawing, entries | {"majority class": (figures.GREY, ":")})
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


def ceilings_at(rows: Sequence[Row], data: str, depth: int) -> dict[str, float]:
    """The ceiling of each readout with injective aggregation."""
    at = {"data": data, "depth": depth, "aggregation": "sum", "metric": "ceiling"}
    return {view: pick(rows, **at, readout=view) for view in VIEWS}


def gaps(rows: Sequence[Row], data: str) -> list[float]:
    """By how many points the mean's ceiling is below the sum's: on atoms, and after a round."""
    found = (ceilings_at(rows, data, depth) for depth in (0, 1))
    return [100 * (ceiling["sum"] - ceiling["mean"]) for ceiling in found]


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """The mean's ceiling is below the sum's, after a round by at most a point; that of max is the lowest."""
    deepest = max(row["depth"] for row in rows if "depth" in row)
    for data in present(rows, "data"):
        ceilings = [ceilings_at(rows, data, depth) for depth in (0, 1)]
        ordered = all(found["sum"] >= found["mean"] >= found["max"] for found in ceilings)
        before, after = gaps(rows, data)
        told = [", ".join(f"{view} {share(one)}" for view, one in found.items()) for found in ceilings]
        at, left = partial(pick, rows, data=data, depth=deepest, readout="mean"), []
        for kind in AGGREGATIONS:
            every, connected = (at(aggregation=kind, metric=metric) for metric in ("pairs", CONNECTED))
            left.append(f"{every} ({connected} of connected graphs)")
        numbers = (
            f"ceilings on atoms are {told[0]}; after one injective round {told[1]}. Pairs that the mean "
            f"still confuses after {deepest} rounds: {left[0]} with injective aggregation, {left[1]} with "
            "mean aggregation"
        )
        yield Finding(data, ordered and before > 0 and after <= MOST_LEFT, numbers, "check")


def numbers(rows: Sequence[Row]) -> str:
    """The gaps of all sets."""
    found = zip(*(gaps(rows, data) for data in present(rows, "data")), strict=True)
    before, after = map(span, found)
    return f"the mean's ceiling is {before} points below the sum's on atoms, {after} after a round"


def listed_pairs(sets: Sequence[GraphSet], pairs: bool) -> Iterator[str]:
    """The pairs that mean confuses, where they are asked for."""
    return (line for graphs in sets if pairs for line in pair_lines(graphs))


EXPERIMENT = Experiment(
    name="collisions",
    title="Collisions",
    question="Which graphs can a readout not distinguish, and which accuracy is the upper bound?",
    claim="""Without messages a mean confuses more graphs than a sum; one round of messages almost closes the
    gap""",
    theory="""On bags of atoms the mean confuses graphs that the sum separates, for it cannot count, and the
    max confuses more than either. One round of injective message passing almost closes the gap on molecules,
    as node states then carry the structure.""",
    setup="""Weisfeiler-Leman colours of every graph at depth 0 to 3, with injective and with mean neighbour
    aggregation. The *ceiling* is the best accuracy on the whole set of any classifier that sees only the
    readout of these colours; *pairs* are pairs of graphs of different size with one mean. Pairs of connected
    graphs are counted apart, for graphs in pieces may be copies of others. All of it is counted, nothing is
    trained or drawn at random: a check.""",
    source="""Sum as multiset, mean as distribution, max as set: [Xu et al.
    2019](https://arxiv.org/abs/1810.00826). The graphs that a mean confuses cover a common one: [Bamberger
    2022](https://arxiv.org/abs/2206.11876).""",
    caveats=(
        "A ceiling says what a readout allows, not what a network learns.",
        """The rings are made to be confused: on them no number of rounds helps, and the claim of one round
        does not hold. That is their purpose.""",
        """The ceiling of a set shrinks towards its true accuracy as the set grows: in a small set nearly
        every graph is alone with its readout.""",
    ),
    alt="""For each data set, the accuracy ceiling of sum, mean and max readouts over the rounds of message
    passing.""",
    caption="""Accuracy ceilings over rounds of message passing; dashed with mean neighbour aggregation,
    dotted the majority class.""",
    measure=measure,
    parallel=True,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    aside=listed_pairs,
    options={"pairs": flag("List the pairs that mean confuses.", "pairs")},
    on_device=False,
)
