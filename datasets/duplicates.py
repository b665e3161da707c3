"""Graphs that occur more than once in a list, found exactly: Weisfeiler-Leman colours, then isomorphism."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch_geometric.data import Data

from datasets.collisions import Integers, colours, keys

ROUNDS = 8  # an edge is a node here, so this looks four bonds far
COMPARED = ("label", "attr")


def same_graphs(graphs: Sequence[Data]) -> Integers:
    """Number the distinct graphs 0, 1, ... by their first appearance: int64 [G].

    Two graphs have one number iff they are isomorphic with `node_label`, `node_attr`, `edge_label` and
    `edge_attr` (each where present, attributes compared bit by bit).
    """
    expanded = _edges_as_nodes(graphs)
    colouring = colours(expanded, ROUNDS)[-1]
    alike = defaultdict(list)
    for position, key in enumerate(keys(colouring, "sum").tolist()):
        alike[key].append(position)
    first = np.arange(len(graphs))
    for positions in alike.values():
        distinct: list[_Coloured] = []
        for position in positions if len(positions) > 1 else ():
            graph = _Coloured.of(position, expanded[position], colouring[position])
            same = next((other.position for other in distinct if graph.is_same(other)), position)
            first[position] = same
            if same == position:
                distinct.append(graph)
    return np.unique(first, return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True, eq=False)
class _Coloured:
    """A graph with its nodes in the order of their colours [n]: edges [E, 2], sorted."""

    position: int
    colour: Integers
    edges: Integers

    @classmethod
    def of(cls, position: int, graph: Data, colour: Integers) -> _Coloured:
        order = np.argsort(colour, kind="stable")
        edges = np.argsort(order)[graph.edge_index.numpy().T]
        return cls(position, colour[order], edges[np.lexsort(edges.T[::-1])])

    def is_same(self, other: _Coloured) -> bool:
        """Whether the graphs are isomorphic; both have the same multiset of colours."""
        if np.array_equal(self.edges, other.edges):
            return True
        from networkx import is_isomorphic

        return bool(is_isomorphic(self._network(), other._network(), node_match=dict.__eq__))

    def _network(self) -> object:
        from networkx import DiGraph

        network = DiGraph()
        network.add_nodes_from((node, {"colour": of}) for node, of in enumerate(self.colour.tolist()))
        network.add_edges_from(self.edges.tolist())
        return network


def _edges_as_nodes(graphs: Sequence[Data]) -> list[Data]:
    """Put a node on every directed edge; `node_label` numbers the labels and attributes of both kinds."""
    numbers: dict[Hashable, int] = {}
    expanded = []
    for graph in graphs:
        count = graph.num_nodes
        (source, target), middle = graph.edge_index, count + torch.arange(graph.num_edges)
        rows = [*_rows(graph, "node", count), *_rows(graph, "edge", graph.num_edges)]
        label = torch.tensor([numbers.setdefault(row, len(numbers)) for row in rows], dtype=torch.int64)
        edge_index = torch.cat([torch.stack([source, middle]), torch.stack([middle, target])], dim=1)
        expanded.append(Data(node_label=label, edge_index=edge_index, num_nodes=len(rows)))
    return expanded


def _rows(graph: Data, of: str, count: int) -> Iterator[Hashable]:
    """Yield the labels and attributes of every node, or of every edge."""
    held = [graph[f"{of}_{what}"].numpy() for what in COMPARED if f"{of}_{what}" in graph]
    for row in range(count):
        yield (of, *(table[row].tobytes() for table in held))
