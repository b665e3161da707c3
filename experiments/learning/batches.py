"""A whole data set on the device, from which batches are cut by index arithmetic.

Nodes that a network cannot tell apart have one state, by definition. A batch therefore holds one row for each
Weisfeiler-Leman colour that occurs in it, not one for each node, and every round works on the colours of its
depth; only the readout sees all nodes. That is exact (Bollen et al. 2023, arXiv 2304.14793), it is quick
where graphs share substructures, and equal nodes have equal bits without further care.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch as PyGBatch
from torch_geometric.data import Data

from datasets import GraphSet
from datasets.collisions import Colouring, View, colours, keys
from experiments.learning.goals import goal_of
from experiments.learning.products import SparseMatrix, ptr_of, repeated
from readouts import Segments, readout

NETWORKS: dict[str, View] = {"gin": "sum", "sage": "mean", "gcn": "sum"}
VIEWS: tuple[View, ...] = ("sum", "mean", "max")


@dataclass(frozen=True)
class Neighbours:
    """What a round of message passing reads: rows of the depth before, for each row of this depth.

    Row r was row `own[r]` before, and its neighbours were `source[ptr[r]:ptr[r + 1]]`, of `rows` in all;
    `degree` and `source_degree` count the neighbours of the nodes behind r and behind the sources.
    """

    own: Tensor
    source: Tensor
    ptr: Tensor
    rows: int
    degree: Tensor
    source_degree: Tensor


class Matrix(Protocol):
    """What maps rows of states to others: `matrix @ x`."""

    def __matmul__(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Round:
    """What a round of message passing multiplies states with, and which share of the `nodes` each row is."""

    matrices: tuple[Matrix, ...]
    share: Tensor
    nodes: int


@dataclass(frozen=True)
class Batch:
    """Graphs for one step, once for each copy of a network, and the targets of one copy.

    `x` are features of the colours of depth 0; `nodes` takes the colours of the last depth to all nodes.
    """

    x: Tensor
    rounds: tuple[Round, ...]
    nodes: Matrix
    graphs: Segments
    y: Tensor


@dataclass(frozen=True)
class Resident:
    """All graphs of a set, end to end, with the colours that one kind of network sees.

    Attributes:
        data, network: names.
        classes: number of classes, 0 where numbers are to be predicted.
        x: features of the nodes, float32 [N, F].
        labels: how many of the features, from the first on, are one-hot; the others are numbers.
        node_ptr: offsets of the graphs, [B + 1].
        source, edge_ptr: neighbours of every node, node by node, [E] and [N + 1].
        colour: the colour of every node at depth 0, 1, ..., each int64 [N].
        representative: one node of every colour of each depth, each int64 [C].
        seen: for sum, mean and max, what a readout makes of each graph at the last depth, numbered, [3, B].
        y: class of every graph, int64 [B], or its number, float32 [B].
    """

    data: str
    network: str
    classes: int
    x: Tensor
    labels: int
    node_ptr: Tensor
    source: Tensor
    edge_ptr: Tensor
    colour: tuple[Tensor, ...]
    representative: tuple[Tensor, ...]
    seen: Tensor
    y: Tensor

    def __len__(self) -> int:
        """Number of graphs."""
        return len(self.y)

    def to(self, device: str) -> Resident:
        """The same on another device."""

        def moved(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(part.to(device) for part in value)
            return value.to(device) if isinstance(value, Tensor) else value

        return replace(self, **{field.name: moved(getattr(self, field.name)) for field in fields(self)})

    def standardised(self, positions: Sequence[int]) -> Resident:
        """The same with numeric features at mean 0 and deviation 1 over the nodes of these graphs."""
        if self.labels == self.x.shape[1]:
            return self
        _, nodes = slices(self.node_ptr, torch.tensor(positions, dtype=torch.int64, device=self.x.device))
        given = self.x[nodes, self.labels :]
        spread = given.std(dim=0, correction=0)
        scaled = (self.x[:, self.labels :] - given.mean(dim=0)) / spread.where(spread > 0, 1)
        return replace(self, x=torch.cat([self.x[:, : self.labels], scaled], dim=1))

    def batch(self, positions: Sequence[int], copies: int = 1) -> Batch:
        """Cut out the graphs at these positions, in this order, once for each copy of a network."""
        position = torch.tensor(positions, dtype=torch.int64, device=self.y.device)
        ptr, nodes = slices(self.node_ptr, position)
        degree = self.edge_ptr.diff()
        colour, inverse, count = self.colour[-1][nodes].unique(return_inverse=True, return_counts=True)
        last = SparseMatrix(torch.arange(len(nodes) + 1, device=ptr.device), inverse, len(colour))
        rounds = []
        for before, representative in zip(self.colour[-2::-1], self.representative[:0:-1], strict=True):
            node = representative[colour]
            edge_ptr, edges = slices(self.edge_ptr, node)
            source = self.source[edges]
            colour, inverse = before[torch.cat([node, source])].unique(return_inverse=True)
            own, others = inverse.split([len(node), len(source)])
            read = Neighbours(own, others, edge_ptr, len(colour), degree[node], degree[source])
            matrices = tuple(matrix.repeated(copies) for matrix in MATRICES[self.network](read))
            rounds.append(Round(matrices, count / len(nodes), len(nodes)))
            count = before[nodes].unique(return_counts=True)[1]
        x = self.x[self.representative[0][colour]].repeat(copies, 1)
        graphs = Segments.from_ptr(repeated(ptr, copies), copies * len(nodes))
        return Batch(x, tuple(rounds[::-1]), last.repeated(copies), graphs, self.y[position])

    def counts(self) -> Tensor:
        """The sum of the node features of every graph, and its number of nodes: float64 [B, F + 1]."""
        graphs = Segments.from_ptr(self.node_ptr, len(self.x))
        return torch.cat([readout(self.x.double(), graphs, "sum"), graphs.count[:, None].double()], dim=1)

    def ceiling(self, view: View, positions: Sequence[int]) -> float:
        """The best score on these graphs of any function behind a readout with this view."""
        chosen = torch.tensor(positions, device=self.y.device)
        seen = self.seen[VIEWS.index(view), chosen].cpu().numpy()
        return goal_of(self.classes, self.y, positions).ceiling(seen, self.y[chosen].cpu())


def reside(graphs: GraphSet, network: str, rounds: int, attributes: bool = False) -> Resident:
    """Lay out a set for a kind of network; with `attributes`, these stand beside the one-hot labels.

    `Resident.standardised` scales attributes.
    """
    node_ptr = ptr_of(torch.tensor([graph.num_nodes for graph in graphs]))
    offsets = node_ptr[:-1].repeat_interleave(torch.tensor([graph.num_edges for graph in graphs]))
    source, target = torch.cat([graph.edge_index for graph in graphs], dim=1) + offsets
    degree = target.bincount(minlength=int(node_ptr[-1]))
    x = torch.cat([graph.x for graph in graphs])
    labels = [torch.cat([graph.node_label for graph in graphs])[:, None].double()]
    if attributes:
        given = torch.cat([graph.node_attr for graph in graphs])
        labels.append(given.double())
        x = torch.cat([x, given], dim=1)
    if network == "gcn":
        labels.append(degree[:, None].double())
    colourings = colour_nodes(graphs, torch.cat(labels, dim=1), node_ptr, rounds, NETWORKS[network])
    colour = tuple(torch.from_numpy(colouring.colour) for colouring in colourings)
    return Resident(
        data=graphs.name,
        network=network,
        classes=graphs.classes,
        x=x,
        labels=graphs[0].x.shape[1],
        node_ptr=node_ptr,
        source=source[target.argsort(stable=True)],
        edge_ptr=ptr_of(degree),
        colour=colour,
        representative=tuple(first_of_each(part) for part in colour),
        seen=torch.from_numpy(np.stack([keys(colourings[-1], view) for view in VIEWS])),
        y=torch.cat([graph.y for graph in graphs]),
    )


def colour_nodes(
    graphs: GraphSet, labels: Tensor, node_ptr: Tensor, rounds: int, aggregation: View
) -> list[Colouring]:
    """Refine the distinct rows of `labels` [N, L], once for each round."""
    number = torch.from_numpy(np.unique(labels.numpy(), axis=0, return_inverse=True)[1].ravel())
    parts = number.tensor_split(node_ptr[1:-1])
    coloured = [
        Data(node_label=part, edge_index=graph.edge_index) for part, graph in zip(parts, graphs, strict=True)
    ]
    return colours(coloured, rounds, aggregation)


def first_of_each(colour: Tensor) -> Tensor:
    """The first node of every colour."""
    return torch.from_numpy(np.unique(colour.numpy(), return_index=True)[1])


def slices(ptr: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets of the chosen segments when they are laid end to end, and the places of their members."""
    offsets = ptr_of((ptr[1:] - ptr[:-1])[chosen])
    shift = (ptr[chosen] - offsets[:-1]).repeat_interleave(offsets.diff())
    return offsets, torch.arange(len(shift), device=ptr.device) + shift


def gin_matrices(read: Neighbours) -> tuple[SparseMatrix, ...]:
    """The sum over a node and its neighbours."""
    return (closed(read, None),)


def sage_matrices(read: Neighbours) -> tuple[SparseMatrix, ...]:
    """The node itself, and the mean of its neighbours, 0 where it has none."""
    identity = torch.arange(len(read.own) + 1, device=read.own.device)
    share = (1 / read.degree.float()).repeat_interleave(read.degree)
    return (
        SparseMatrix(identity, read.own, read.rows),
        SparseMatrix(read.ptr, read.source, read.rows, share),
    )


def gcn_matrices(read: Neighbours) -> tuple[SparseMatrix, ...]:
    """The sum over u in a node v and its neighbours, with weight 1 / sqrt((1 + d_u) (1 + d_v))."""
    target = (read.degree + 1.0).repeat_interleave(read.degree)
    return (closed(read, (1 / (read.degree + 1.0), (target * (read.source_degree + 1.0)).rsqrt())),)


def closed(read: Neighbours, weights: tuple[Tensor, Tensor] | None) -> SparseMatrix:
    """The matrix that puts each node in front of its neighbours; weights of nodes and of neighbours."""
    offsets = read.ptr + torch.arange(len(read.ptr), device=read.ptr.device)
    is_own = torch.zeros(len(read.own) + len(read.source), dtype=torch.bool, device=read.ptr.device)
    is_own[offsets[:-1]] = True

    def merged(own: Tensor, others: Tensor) -> Tensor:
        return own.new_empty(len(is_own)).masked_scatter(is_own, own).masked_scatter(~is_own, others)

    weight = None if weights is None else merged(*weights)
    return SparseMatrix(offsets, merged(read.own, read.source), read.rows, weight)


class ExactSum:
    """The exact sum over a node and its neighbours: equal nodes have equal bits without colours."""

    def __init__(self, edge_index: Tensor, nodes: int) -> None:
        """Take edges from neighbours to nodes."""
        self.source, target = edge_index
        self.targets = Segments.from_batch(target, nodes)

    def __matmul__(self, x: Tensor) -> Tensor:
        """Map states of nodes [N, F] to sums [N, F]."""
        return x + readout(x[self.source], self.targets, "sum")


class Unchanged:
    """The identity matrix."""

    def __matmul__(self, x: Tensor) -> Tensor:
        """Return the states as they are."""
        return x


def node_by_node(batch: PyGBatch, rounds: int, copies: int = 1) -> Batch:
    """Return PyG's batch as a GIN takes it: a row for each node in place of one for each colour."""
    nodes = len(batch.batch)
    shift = nodes * torch.arange(copies, device=batch.x.device)[:, None]
    edge_index = (batch.edge_index[:, None] + shift).flatten(1)
    share = batch.x.new_full((nodes,), 1 / max(1, nodes))
    read = Round((ExactSum(edge_index, copies * nodes),), share, nodes)
    graphs = Segments.from_ptr(repeated(batch.ptr, copies), copies * nodes)
    return Batch(batch.x.repeat(copies, 1), (read,) * rounds, Unchanged(), graphs, batch.get("y"))


MATRICES = {"gin": gin_matrices, "sage": sage_matrices, "gcn": gcn_matrices}
