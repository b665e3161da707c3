"""What a readout cannot separate in a list of graphs at a Weisfeiler-Leman depth, counted exactly.

There are three ways to look at a multiset of node states, the same for a neighbourhood and for a whole graph:
`sum` sees the multiset, `mean` its proportions and `max` its set (Xu et al. 2019, arXiv 1810.00826).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch_geometric.data import Data

View = Literal["sum", "mean", "max"]
VIEWS: tuple[View, ...] = get_args(View)
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Colouring:
    """Weisfeiler-Leman colours of all nodes of a list of graphs, with one dictionary for all of them.

    `colour` is int64 [N] with values 0, 1, ..., one row per node of the concatenated graphs; graph g owns the
    rows `ptr[g]:ptr[g + 1]` (int64 [B + 1]). Two nodes have one colour iff `depth` rounds of message passing
    with the given `aggregation` cannot tell them apart.
    """

    colour: Integers
    ptr: Integers
    depth: int
    aggregation: View

    def __getitem__(self, graph: int) -> Integers:
        """Return the colours of one graph, int64 [n]."""
        return self.colour[self.ptr[graph] : self.ptr[graph + 1]]


@dataclass(frozen=True)
class Separation:
    """What a readout separates in a list of graphs at one depth.

    `ceiling` is the best accuracy on these graphs of any classifier that sees only the readout: the graphs in
    the majority class of their readout, divided by all. `pairs` counts the pairs of graphs that have one
    readout though their numbers of nodes differ, `pairs_across_classes` those of them with different classes.
    """

    readout: View
    depth: int
    aggregation: View
    graphs: int
    ceiling: Fraction
    pairs: int
    pairs_across_classes: int


def colours(graphs: Iterable[Data], depth: int, aggregation: View = "sum") -> list[Colouring]:
    """Refine the node labels `depth` times and return the colourings of depth 0, 1, ..., `depth`.

    Colours of depth 0 are the values of `node_label` (int64 [n]). Colours of depth t + 1 number the distinct

        (c_t(v), view {c_t(u) : u -> v in edge_index}),    view = multiset, proportions or set

    for `aggregation` `"sum"`, `"mean"` or `"max"`. Edges count as message passing would count them: a
    duplicate edge twice, and a self-loop makes a node its own neighbour. Edge labels are not looked at.
    Raises `ValueError` for a negative depth or an unknown aggregation.
    """
    if depth < 0:
        raise ValueError(f"depth must be at least 0, got {depth}")
    _check_view("aggregation", aggregation)
    label, source, target, ptr = _concatenate(graphs)
    colour = _number(label.tolist())
    colourings = [Colouring(colour, ptr, 0, aggregation)]
    for step in range(1, depth + 1):
        neighbours = _views(target, colour[source], len(colour), aggregation)
        colour = _number(zip(colour.tolist(), neighbours, strict=True))
        colourings.append(Colouring(colour, ptr, step, aggregation))
    return colourings


def keys(colouring: Colouring, readout: View) -> Integers:
    """Number the distinct readouts: int64 [B], where two graphs share a key iff the readout is the same.

    The readout of injective node states is the multiset of colours (`"sum"`), the multiset with its counts
    divided by their greatest common divisor (`"mean"`) or the set of colours (`"max"`). Graphs without nodes
    share one key, and no graph with nodes has it. Keys of different calls are not comparable.
    Raises `ValueError` for an unknown readout.
    """
    _check_view("readout", readout)
    sizes = np.diff(colouring.ptr)
    graph = np.repeat(np.arange(len(sizes)), sizes)
    return _number(_views(graph, colouring.colour, len(sizes), readout))


def separation(colouring: Colouring, labels: Sequence[int], readout: View) -> Separation:
    """Count what `readout` separates among graphs with class `labels`, one integer per graph.

    Raises `ValueError` for an unknown readout, for no graphs, and for labels that are not one per graph.
    """
    key, size, label = keys(colouring, readout), np.diff(colouring.ptr), np.asarray(labels, dtype=np.int64)
    if label.shape != key.shape or not len(key):
        raise ValueError(f"labels must hold one class for each of {len(key)} > 0 graphs, got {label.shape}")
    pairs = _agreeing(key) - _agreeing(key, size)
    pairs_within_classes = _agreeing(key, label) - _agreeing(key, label, size)
    return Separation(
        readout=readout,
        depth=colouring.depth,
        aggregation=colouring.aggregation,
        graphs=len(key),
        ceiling=Fraction(_majorities(key, label), len(key)),
        pairs=pairs,
        pairs_across_classes=pairs - pairs_within_classes,
    )


def separations(graphs: Iterable[Data], depth: int, aggregation: View = "sum") -> list[Separation]:
    """Return the `Separation` of sum, mean and max at depth 0, 1, ..., `depth`, in this order.

    Each graph carries `node_label` (int64 [n]), `edge_index` and one class `y`.
    """
    graphs = list(graphs)
    labels = [int(graph.y) for graph in graphs]
    return [
        separation(colouring, labels, readout)
        for colouring in colours(graphs, depth, aggregation)
        for readout in VIEWS
    ]


def collisions(colouring: Colouring, readout: View) -> Iterator[tuple[int, int]]:
    """Yield each pair of graphs (i, j), i < j, with one readout and two sizes (see `Separation.pairs`)."""
    sizes = np.diff(colouring.ptr)
    sharing = defaultdict(list)
    for graph, key in enumerate(keys(colouring, readout).tolist()):
        sharing[key].append(graph)
    for members in sharing.values():
        yield from ((i, j) for i, j in combinations(members, 2) if sizes[i] != sizes[j])


def _check_view(argument: str, view: str) -> None:
    if view not in VIEWS:
        raise ValueError(f"{argument} must be one of {', '.join(VIEWS)}, got {view!r}")


def _concatenate(graphs: Iterable[Data]) -> tuple[Integers, Integers, Integers, Integers]:
    """Lay the graphs end to end: node labels [N], edge sources [E], edge targets [E], ptr [B + 1]."""
    labels, edges, ptr = [np.empty(0, np.int64)], [np.empty((2, 0), np.int64)], [0]
    for graph in graphs:
        labels.append(graph.node_label.numpy())
        edges.append(graph.edge_index.numpy() + ptr[-1])
        ptr.append(ptr[-1] + len(labels[-1]))
    source, target = np.concatenate(edges, axis=1)
    return np.concatenate(labels), source, target, np.asarray(ptr)


def _views(group: Integers, colour: Integers, groups: int, view: View) -> list[bytes]:
    """Return, for each of the `groups`, a canonical name of the multiset of its colours as `view` sees it.

    `group` and `colour` are int64 [M], one entry per member; the name lists (colour, count) by rising colour.
    """
    base = int(colour.max(initial=0)) + 1
    member, count = np.unique(group * base + colour, return_counts=True)
    owner, shade = np.divmod(member, base)
    first = np.searchsorted(owner, np.arange(groups + 1))
    if view == "max":
        count = np.ones_like(count)
    elif view == "mean":
        divisor = np.zeros(groups, np.int64)
        np.gcd.at(divisor, owner, count)
        count = count // divisor[owner]
    listing = np.stack([shade, count], axis=1)
    names, width = listing.tobytes(), listing.itemsize * 2
    cuts = (first * width).tolist()
    return [names[begin:end] for begin, end in pairwise(cuts)]


def _number(things: Iterable[Hashable]) -> Integers:
    """Number things 0, 1, ... in the order of their first appearance, equal things alike."""
    numbers: dict[Hashable, int] = {}
    return np.fromiter((numbers.setdefault(thing, len(numbers)) for thing in things), np.int64)


def _agreeing(*columns: Integers) -> int:
    """Count the pairs of rows that agree in every column."""
    _, rows = np.unique(np.stack(columns), axis=1, return_counts=True)
    return int((rows * (rows - 1) // 2).sum())


def _majorities(key: Integers, label: Integers) -> int:
    """Count the rows whose label is the most frequent one of their key."""
    (owner, _), rows = np.unique(np.stack([key, label]), axis=1, return_counts=True)
    best = np.zeros(len(key), np.int64)
    np.maximum.at(best, owner, rows)
    return int(best.sum())
