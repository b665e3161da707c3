"""Tables of nodes, edges and graphs become graphs: simple, undirected and labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import Data

from datasets.graphs import Unread
from readouts.commands.tu.errors import DataError

Integers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
MOST_ONE_HOT_BYTES = 1 << 30  # of a set without node labels, whose degrees may reach thousands


@dataclass(frozen=True)
class Tables:
    """A set of graphs as tables, numbered from zero: n nodes, m lines of edges, G graphs.

    `graph_of_node` [n] and `edges` [m, 2] are indices in range, and no edge leaves its graph; labels and
    attributes have one column or more. Without classes, graph attributes are what is to be predicted.
    """

    graph_of_node: Integers  # [n]
    edges: Integers  # [m, 2]
    classes: Integers | None = None  # [G]
    graph_attributes: Reals | None = None  # [G, columns]
    node_labels: Integers | None = None  # [n, columns]
    edge_labels: Integers | None = None  # [m, columns]
    node_attributes: Reals | None = None  # [n, columns]
    edge_attributes: Reals | None = None  # [m, columns]

    @property
    def graphs(self) -> int:
        """The number of graphs G."""
        of_graphs = self.graph_attributes if self.classes is None else self.classes
        assert of_graphs is not None
        return len(of_graphs)


@dataclass(frozen=True)
class Given:
    """Graphs as their owner gives them, with one value to predict for each, not read yet.

    `places` says where each graph stands, for errors; `extras` are further attributes of its `Data`.
    """

    name: str
    tables: Tables
    values: Sequence[str | bool | int | float]
    places: Sequence[str]
    extras: Sequence[Mapping[str, str | int]]
    notes: Sequence[str]
    node_names: tuple[str, ...] | None = None
    edge_names: tuple[str, ...] | None = None
    unread: tuple[Unread, ...] = ()


def graphs_of(tables: Tables, notes: list[str]) -> tuple[int, tuple[Data, ...]]:
    """Return the number of classes, 0 for regression, and the graphs; `notes` takes what was changed.

    Nodes that are scattered are brought together by graph, in their order.
    """
    order = np.argsort(tables.graph_of_node, kind="stable")
    place = np.argsort(order)
    ends, lines = _simple_edges(place[tables.edges], tables, notes)
    node_counts = np.bincount(tables.graph_of_node, minlength=tables.graphs)
    edge_counts = np.bincount(tables.graph_of_node[order][ends[:, 0]], minlength=tables.graphs)
    starts = np.cumsum(node_counts) - node_counts
    of_graphs = _of_graphs(tables, notes)
    labels = _node_labels(tables, order, ends, notes)

    of_nodes: dict[str, npt.NDArray[Any]] = {"x": _one_hot(labels), "node_label": labels}
    of_edges: dict[str, npt.NDArray[Any]] = {"edge_index": ends - np.repeat(starts, edge_counts)[:, None]}
    if tables.node_attributes is not None:
        of_nodes["node_attr"] = _float32(tables.node_attributes[order], "node attributes", notes)
    if tables.edge_labels is not None:
        of_edges["edge_label"] = _renumbered(tables.edge_labels, "edge", notes)[lines]
    if tables.edge_attributes is not None:
        of_edges["edge_attr"] = _float32(tables.edge_attributes, "edge attributes", notes)[lines]

    _note(notes, "graphs without edges", (edge_counts == 0).sum())
    _note(notes, "graphs without nodes", (node_counts == 0).sum())
    pieces = {**_pieces(of_nodes, node_counts), **_pieces(of_edges, edge_counts)}
    pieces |= _pieces(of_graphs, np.ones(tables.graphs, np.int64))
    graphs = tuple(
        _data({key: tensors[graph] for key, tensors in pieces.items()}) for graph in range(tables.graphs)
    )
    return 0 if tables.classes is None else int(of_graphs["y"].max()) + 1, graphs


def _of_graphs(tables: Tables, notes: list[str]) -> dict[str, npt.NDArray[Any]]:
    """Classes, or numbers to predict: [G] where there is one for each graph, else [G, columns]."""
    attributes = tables.graph_attributes
    if tables.classes is None:
        assert attributes is not None
        targets = _float32(attributes, "regression targets", notes)
        return {"y": targets[:, 0] if targets.shape[1] == 1 else targets}
    classes = _renumbered(tables.classes[:, None], "class", notes)
    if attributes is None:
        return {"y": classes}
    return {"y": classes, "graph_attr": _float32(attributes, "graph attributes", notes)}


def _float32(table: npt.NDArray[np.float64], what: str, notes: list[str]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        narrow = table.astype(np.float32)
    _note(notes, f"{what} that are NaN", np.isnan(table).sum())
    _note(notes, f"{what} that are infinite in float32", np.isinf(narrow).sum())
    return narrow


def _simple_edges(edges: Integers, tables: Tables, notes: list[str]) -> tuple[Integers, Integers]:
    """Both directions of every edge once, sorted, [E, 2]; and the line that speaks for each, [E]."""
    nodes = len(tables.graph_of_node)
    proper = np.flatnonzero(edges[:, 0] != edges[:, 1])
    _note(notes, "self-loops removed", len(edges) - len(proper))

    written = edges[proper] @ np.array([nodes, 1])
    keys, first, which = np.unique(written, return_index=True, return_inverse=True)
    lines = proper[first]
    _note(notes, "repeated edges merged", len(written) - len(keys))
    _note(
        notes,
        "of these with another label than the first, which is kept",
        _differing(tables, proper, lines[which]),
    )

    opposite = keys % nodes * nodes + keys // nodes
    lonely = ~np.isin(opposite, keys)
    _note(notes, "one-directional edges completed with their reverse", lonely.sum())

    keys, lines = np.append(keys, opposite[lonely]), np.append(lines, lines[lonely])
    sorting = np.argsort(keys)
    keys, lines = keys[sorting], lines[sorting]
    reverse = np.searchsorted(keys, keys % nodes * nodes + keys // nodes)
    _note(
        notes,
        "edges with different labels in their two directions",
        _differing(tables, lines, lines[reverse]) // 2,
    )
    return np.stack([keys // nodes, keys % nodes], axis=1), lines


def _differing(tables: Tables, lines: Integers, others: Integers) -> int:
    """How many of these pairs of lines disagree in an edge label or attribute."""
    differ = np.zeros(len(lines), bool)
    for table in (tables.edge_labels, tables.edge_attributes):
        if table is not None:
            differ |= (table[lines] != table[others]).any(axis=1)
    return int(differ.sum())


def _renumbered(table: Integers, what: str, notes: list[str]) -> Integers:
    """One label 0..L-1 per row, in the sorted order of the distinct rows."""
    distinct, labels = np.unique(table, axis=0, return_inverse=True)
    last = len(distinct) - 1
    if table.shape[1] > 1:
        notes.append(f"{what} labels of {table.shape[1]} columns became one per distinct row, 0..{last}")
    elif last >= 0 and (distinct[0, 0], distinct[-1, 0]) != (0, last):
        notes.append(
            f"{what} labels {distinct[0, 0]}..{distinct[-1, 0]} renumbered in sorted order, 0..{last}"
        )
    return labels.reshape(-1)


def _node_labels(tables: Tables, order: Integers, ends: Integers, notes: list[str]) -> Integers:
    """The labels of the nodes in their new order, or their degrees, as far as these fit into memory."""
    largest = MOST_ONE_HOT_BYTES // (4 * max(1, len(order))) - 1
    if tables.node_labels is not None:
        labels = _renumbered(tables.node_labels[order], "node", notes)
        if (distinct := labels.max(initial=-1) + 1) > largest + 1:
            raise DataError(
                f"{distinct} different labels of {len(order)} nodes would make one-hot rows of "
                f"{4 * distinct * len(order) >> 20} MB, more than {MOST_ONE_HOT_BYTES >> 20} MB"
            )
        return labels
    notes.append("no node labels: degrees stand in for them")
    degrees = np.bincount(ends[:, 0], minlength=len(order))
    _note(notes, f"nodes of a degree above {largest}, labelled {largest}", (degrees > largest).sum())
    return np.minimum(degrees, largest)


def _one_hot(labels: Integers) -> npt.NDArray[np.float32]:
    x = np.zeros((len(labels), labels.max(initial=-1) + 1), np.float32)
    x[np.arange(len(labels)), labels] = 1
    return x


def _pieces(tables: Mapping[str, npt.NDArray[Any]], counts: Integers) -> dict[str, tuple[Tensor, ...]]:
    """Every table cut into one tensor per graph."""
    return {key: torch.from_numpy(table).split(counts.tolist()) for key, table in tables.items()}


def _data(pieces: Mapping[str, Tensor]) -> Data:
    """One graph that owns its memory, so that a copy of it does not drag the whole set along."""
    own = {key: piece.clone() for key, piece in pieces.items()}
    own["edge_index"] = own["edge_index"].t().contiguous()
    return Data(**own)


def _note(notes: list[str], what: str, count: int) -> None:
    if count:
        notes.append(f"{what}: {count}")
