"""A named list of graphs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch_geometric.data import Data


@dataclass(frozen=True)
class GraphSet:
    """Graphs with class labels, and an account of what loading did to them.

    Every graph is a PyG `Data` with `x` (one-hot node labels, float32 [n, L]), `node_label`
    (int64 [n]), `edge_index` (int64 [2, E], both directions of every edge, sorted, no duplicates,
    no self-loops) and `y` (class index, int64 [1]); `edge_label` (int64 [E]), `node_attr`
    (float32 [n, A]), `edge_attr` (float32 [E, A]) and `name` (str) where the set has them.
    """

    name: str
    graphs: tuple[Data, ...]
    classes: int
    node_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, position: int) -> Data:
        return self.graphs[position]

    def __iter__(self) -> Iterator[Data]:
        return iter(self.graphs)
