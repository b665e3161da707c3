"""A named list of graphs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from datasets.duplicates import Integers, same_graphs
from datasets.targets import Task

Features = Literal["categorical", "numeric", "both", "degrees"]


class Unread(NamedTuple):
    """A row of a file that is not among the graphs: the number of its line, its text, and the reason."""

    line: int
    text: str
    reason: str


@dataclass(frozen=True)
class GraphSet:
    """Graphs with class labels or numbers to predict, and an account of what loading did to them.

    Every graph is a PyG `Data` with `x` (one-hot node labels, float32 [n, L]), `node_label`
    (int64 [n]), `edge_index` (int64 [2, E], both directions of every edge, sorted, no duplicates,
    no self-loops) and `y` (class index, int64 [1], or targets of regression, float32 [1] or [1, T]);
    `edge_label` (int64 [E]), `node_attr` (float32 [n, A]), `edge_attr` (float32 [E, A]), `graph_attr`
    (float32 [1, A]), `name`, `smiles` (str) and `line` (int, of the file) where the set has them.

    `classes` is 0 for regression; `class_names`, `node_names` and `edge_names` say what classes, node labels
    and edge labels mean. `notes` tells what loading changed and decided, `unread` lists the rows of the file
    that became no graph. With `degrees`, node labels are degrees that stand in for missing labels. `own` data
    come from a file or a function, whose content may change under one name.

    Like a PyG dataset, a set takes an index for one graph, and slices, lists of indices, tensors and masks
    for a part of the set.
    """

    name: str
    graphs: tuple[Data, ...]
    classes: int
    node_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None
    edge_names: tuple[str, ...] | None = None
    unread: tuple[Unread, ...] = ()
    degrees: bool = False
    own: bool = False

    def __len__(self) -> int:
        return len(self.graphs)

    @overload
    def __getitem__(self, position: int | np.integer) -> Data: ...

    @overload
    def __getitem__(self, position: slice | Sequence[int] | Tensor | np.ndarray) -> GraphSet: ...

    def __getitem__(self, position: Any) -> Data | GraphSet:
        """Return a graph, or the set of several; the ends of a slice may be shares, as in `[:0.9]`."""
        if isinstance(position, slice):
            start, stop = (self._place(end) for end in (position.start, position.stop))
            return replace(self, graphs=self.graphs[start : stop : position.step])
        if isinstance(position, range | list | tuple):
            position = torch.tensor(position, dtype=None if len(position) else torch.int64)
        if not isinstance(position, Tensor | np.ndarray) or position.ndim == 0:
            return self.graphs[position]
        found = torch.as_tensor(position)
        if found.ndim != 1 or found.is_floating_point():
            raise IndexError(
                f"position: expected indices or a mask, [N], got {found.dtype} {tuple(found.shape)}"
            )
        if found.dtype == torch.bool:
            if len(found) != len(self):
                raise IndexError(f"position: expected a mask of {len(self)} graphs, got {len(found)}")
            found = found.nonzero().flatten()
        return replace(self, graphs=tuple(self.graphs[place] for place in found.tolist()))

    def _place(self, end: Any) -> Any:
        return round(end * len(self)) if isinstance(end, float) else end

    def __iter__(self) -> Iterator[Data]:
        return iter(self.graphs)

    def __repr__(self) -> str:
        return f"{self.name}({len(self)})"

    def shuffle(self, return_perm: bool = False) -> GraphSet | tuple[GraphSet, Tensor]:
        """Return the set in an order drawn with PyTorch's generator, and the order itself if asked for."""
        order = torch.randperm(len(self))
        return (self[order], order) if return_perm else self[order]

    @property
    def num_features(self) -> int:
        """The number of node features L."""
        return self.graphs[0].num_node_features if self.graphs else 0

    num_node_features = num_features

    @property
    def num_edge_features(self) -> int:
        """The number of edge attributes; 0 where there are none."""
        return self.graphs[0].num_edge_features if self.graphs else 0

    @property
    def num_classes(self) -> int:
        """The number of classes; 0 for regression."""
        return self.classes

    @property
    def task(self) -> Task:
        """What is to be predicted: a class or a number."""
        return "classification" if self.classes else "regression"

    @property
    def targets(self) -> Tensor:
        """The `y` of all graphs: int64 [G], or float32 [G] or [G, T] for regression."""
        return torch.cat([graph.y for graph in self.graphs]) if self.graphs else torch.empty(0)

    @property
    def features(self) -> Features:
        """What nodes carry: labels (in `x`), numbers (in `node_attr`), both, or nothing but their degrees.

        Numbers are as they were given; whoever standardises them does so on training graphs.
        """
        if "node_attr" in (self.graphs[0] if self.graphs else ()):
            return "numeric" if self.degrees else "both"
        return "degrees" if self.degrees else "categorical"

    @property
    def edge_features(self) -> str | None:
        """What a model that reads `edge_index` alone ignores, in words; None where edges carry nothing.

        For example `"edge labels (single, double, aromatic)"` or `"2 edge attributes"`.
        """
        first = self.graphs[0] if self.graphs else ()
        names = f" ({', '.join(self.edge_names)})" if self.edge_names else ""
        found = ["edge labels" + names] if "edge_label" in first else []
        if "edge_attr" in first:
            width = self.num_edge_features
            found.append(f"{width} edge attribute{'s' if width > 1 else ''}")
        return " and ".join(found) or None

    def groups(self) -> Integers:
        """Number the distinct graphs 0, 1, ...: int64 [G], equal where two graphs are the same graph.

        Two graphs are the same if a renumbering of nodes turns one into the other, with all labels and
        attributes of nodes and edges; `y` is not looked at. Folds that keep a group together test no
        network on a graph that it was trained on; see `datasets.splits.stratified_folds`.
        """
        return same_graphs(self.graphs)
