"""Graphs that occur more than once in a list, found exactly: hashed Weisfeiler-Leman colours, then search."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch_geometric.data import Data

Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
ROUNDS = 6  # of refinement before graphs are compared in pairs
COMPARED = ("label", "attr")


def same_graphs(graphs: Sequence[Data]) -> Integers:
    """Number the distinct graphs 0, 1, ... by their first appearance: int64 [G].

    Two graphs have one number iff they are isomorphic with `node_label`, `node_attr`, `edge_label` and
    `edge_attr` (each where present, attributes compared bit by bit). Graphs of equal hashes are compared by
    individualisation and refinement (McKay 1981), which takes long only for large strongly regular graphs.
    """
    numbers: dict[Hashable, int] = {}
    coloured = [_Coloured.of(graph, numbers) for graph in graphs]
    alike = defaultdict(list)
    for position, key in enumerate(_keys(coloured)):
        alike[key].append(position)
    first = np.arange(len(graphs))
    for positions in alike.values():
        distinct: list[int] = []
        for position in positions:
            found = (other for other in distinct if _is_same(coloured[position], coloured[other]))
            first[position] = next(found, position)
            if first[position] == position:
                distinct.append(position)
    return np.unique(first, return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True, eq=False)
class _Coloured:
    """A graph with one number for all that a node carries [n], and one for all that an edge carries [E]."""

    node: Integers
    edge: Integers
    ends: Integers  # [E, 2]

    @classmethod
    def of(cls, graph: Data, numbers: dict[Hashable, int]) -> _Coloured:
        node, edge = (
            np.array([numbers.setdefault(row, len(numbers)) for row in _rows(graph, of, count)], np.int64)
            for of, count in (("node", graph.num_nodes), ("edge", graph.num_edges))
        )
        return cls(node, edge, graph.edge_index.numpy().T)

    def ordered(self, order: Integers) -> tuple[bytes, bytes]:
        """Return all that there is to know of the graph, with its nodes in this order."""
        edges = np.column_stack([np.argsort(order)[self.ends], self.edge])
        return self.node[order].tobytes(), edges[np.lexsort(edges.T)].tobytes()


def _rows(graph: Data, of: str, count: int) -> Iterator[Hashable]:
    """Yield the labels and attributes of every node, or of every edge."""
    held = [graph[f"{of}_{what}"].numpy() for what in COMPARED if f"{of}_{what}" in graph]
    for row in range(count):
        yield (of, *(table[row].tobytes() for table in held))


def _union(coloured: Sequence[_Coloured]) -> tuple[_Coloured, Integers]:
    """Join graphs to one, and return with it the graph of every node."""
    counts = np.array([len(graph.node) for graph in coloured], np.int64)
    starts = np.cumsum(counts) - counts
    ends = [graph.ends + start for graph, start in zip(coloured, starts, strict=True)]
    joined = _Coloured(
        np.concatenate([np.empty(0, np.int64), *(graph.node for graph in coloured)]),
        np.concatenate([np.empty(0, np.int64), *(graph.edge for graph in coloured)]),
        np.concatenate([np.empty((0, 2), np.int64), *ends]),
    )
    return joined, np.repeat(np.arange(len(coloured)), counts)


def _keys(coloured: Sequence[_Coloured]) -> list[int]:
    """Return a hash of every graph; isomorphic graphs have the same."""
    joined, owner = _union(coloured)
    keys = np.zeros(len(coloured), np.uint64)
    np.add.at(keys, owner, _mixed(_refined(joined, _mixed(joined.node), ROUNDS)))
    return [int(key) for key in keys]


def _is_same(one: _Coloured, other: _Coloured) -> bool:
    """Whether two graphs are isomorphic: individualise nodes until refinement finds an order, and compare."""
    if one.node.shape != other.node.shape or one.edge.shape != other.edge.shape:
        return False
    joined, size = _union([one, other])[0], len(one.node)
    open_ends = [iter([_mixed(joined.node)])]
    while open_ends:
        colour = next(open_ends[-1], None)
        if colour is None:
            open_ends.pop()
            continue
        colour = _refined(joined, colour, size)
        orders = [np.argsort(colour[:size], kind="stable"), np.argsort(colour[size:], kind="stable")]
        if np.array_equal(colour[:size][orders[0]], colour[size:][orders[1]]):
            if one.ordered(orders[0]) == other.ordered(orders[1]):
                return True
            open_ends.append(_individualised(colour, size))
    return False


def _individualised(colour: Hashes, size: int) -> Iterator[Hashes]:
    """Give one node of the first graph, and each of its partners in the second, a colour of their own."""
    values, counts = np.unique(colour[:size], return_counts=True)
    if counts.max() == 1:
        return
    shared = values[np.where(counts > 1, counts, size + 1).argmin()]
    node, *_ = np.flatnonzero(colour[:size] == shared)
    for partner in np.flatnonzero(colour[size:] == shared) + size:
        branch = colour.copy()
        branch[[node, partner]] = _mixed(~shared[None])[0]
        yield branch


def _refined(graph: _Coloured, colour: Hashes, rounds: int) -> Hashes:
    """Hash the colours of the neighbours of each node into its own until that splits no class."""
    edge, (source, target) = _mixed(~graph.edge), graph.ends.T
    classes = len(np.unique(colour))
    for _ in range(rounds):
        heard = np.zeros_like(colour)
        np.add.at(heard, target, _mixed(colour[source] ^ edge))
        colour = _mixed(colour + _mixed(heard))
        before, classes = classes, len(np.unique(colour))
        if classes <= before:
            break
    return colour


def _mixed(values: npt.NDArray[np.uint64] | Integers) -> Hashes:
    """Hash each number (splitmix64, Steele et al. 2014)."""
    mixed = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
