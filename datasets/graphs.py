"""A named list of graphs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data


@dataclass(frozen=True)
class GraphSet:
    """Graphs with class labels or numbers to predict, and an account of what loading did to them.

    Every graph is a PyG `Data` with `x` (one-hot node labels, float32 [n, L]), `node_label`
    (int64 [n]), `edge_index` (int64 [2, E], both directions of every edge, sorted, no duplicates,
    no self-loops) and `y` (class index, int64 [1], or targets of regression, float32 [1] or [1, T]);
    `edge_label` (int64 [E]), `node_attr` (float32 [n, A]), `edge_attr` (float32 [E, A]), `graph_attr`
    (float32 [1, A]) and `name` (str) where the set has them. `classes` is 0 for regression.

    Like a PyG dataset, a set takes an index for one graph, and slices, lists of indices, tensors and masks
    for a part of the set.
    """

    name: str
    graphs: tuple[Data, ...]
    classes: int
    node_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

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
