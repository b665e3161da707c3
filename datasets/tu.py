"""TU data sets as graphs: simple, undirected, labelled, and with an account of what that took."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import Data

from datasets.graphs import GraphSet
from datasets.tu_text import Integers, Texts, read
from readouts.commands.tu import checksums, names
from readouts.commands.tu.errors import DataError
from readouts.commands.tu.fetch import raw_folder

MOST_ONE_HOT_BYTES = 1 << 30  # of a set without node labels, whose degrees may reach thousands


def load(name: str, *, mirror: str | Path | None = None, cache: str | Path | None = None) -> GraphSet:
    """Load a TU set from `mirror`, from the cache, or from the TU site.

    `mirror` (or READOUTS_TU_MIRROR) is a folder with `NAME.zip` or `NAME/`, or a URL with `NAME.zip`; `cache`
    (or READOUTS_CACHE, or `readouts/tu` in the user's cache folder) is where fetched sets are kept. Files of
    sets with known SHA-256 digests are verified on every load.

    Edges become undirected, simple and free of loops; labels 0..L-1 stay as they are, others are renumbered
    in sorted order, and so are classes; several columns of labels become one label per distinct row; nodes
    without labels get their degree. Whatever of this happened stands in `GraphSet.notes`. Edge attributes,
    where a set has them, are `edge_attr` (float32 [E, A]). No graph and no node is left out. A set without
    integer graph labels is one of regression: `classes` is 0, and `y` are its graph labels or attributes.

    Raises `DataError`, one sentence for the user, where the set cannot be had or is not a sound TU set.
    """
    try:
        folder = raw_folder(name, mirror, cache)
        verified = checksums.verify(name, folder, source=folder)
        texts = read(name, folder)
    except OSError as error:
        raise DataError(f"cannot read {name}: {error}") from error
    notes = [] if verified else [f"not verified: no digests of {name} are known"]
    classes, graphs = _graphs(texts, notes)
    return GraphSet(name, graphs, classes, names.NODE_LABELS.get(name) if verified else None, tuple(notes))


def _graphs(texts: Texts, notes: list[str]) -> tuple[int, tuple[Data, ...]]:
    """The number of classes, and the graphs; nodes that the files scatter are brought together by graph."""
    order = np.argsort(texts.graph_of_node, kind="stable")
    place = np.argsort(order)
    ends, lines = _simple_edges(place[texts.edges], texts, notes)
    node_counts = np.bincount(texts.graph_of_node, minlength=texts.graphs)
    edge_counts = np.bincount(texts.graph_of_node[order][ends[:, 0]], minlength=texts.graphs)
    starts = np.cumsum(node_counts) - node_counts
    of_graphs = _of_graphs(texts, notes)
    labels = _node_labels(texts, order, ends, notes)

    of_nodes: dict[str, npt.NDArray[Any]] = {"x": _one_hot(labels), "node_label": labels}
    of_edges: dict[str, npt.NDArray[Any]] = {"edge_index": ends - np.repeat(starts, edge_counts)[:, None]}
    if texts.node_attributes is not None:
        of_nodes["node_attr"] = _float32(texts.node_attributes[order], "node attributes", notes)
    if texts.edge_labels is not None:
        of_edges["edge_label"] = _renumbered(texts.edge_labels, "edge", notes)[lines]
    if texts.edge_attributes is not None:
        of_edges["edge_attr"] = _float32(texts.edge_attributes, "edge attributes", notes)[lines]

    _note(notes, "graphs without edges", (edge_counts == 0).sum())
    _note(notes, "graphs without nodes", (node_counts == 0).sum())
    pieces = {**_pieces(of_nodes, node_counts), **_pieces(of_edges, edge_counts)}
    pieces |= _pieces(of_graphs, np.ones(texts.graphs, np.int64))
    graphs = tuple(
        _data({key: tensors[graph] for key, tensors in pieces.items()}) for graph in range(texts.graphs)
    )
    return 0 if texts.classes is None else int(of_graphs["y"].max()) + 1, graphs


def _of_graphs(texts: Texts, notes: list[str]) -> dict[str, npt.NDArray[Any]]:
    """Classes, or numbers to predict: [G] where there is one for each graph, else [G, columns]."""
    attributes = texts.graph_attributes
    if texts.classes is None:
        assert attributes is not None
        targets = _float32(attributes, "regression targets", notes)
        return {"y": targets[:, 0] if targets.shape[1] == 1 else targets}
    classes = _renumbered(texts.classes[:, None], "class", notes)
    if attributes is None:
        return {"y": classes}
    return {"y": classes, "graph_attr": _float32(attributes, "graph attributes", notes)}


def _float32(table: npt.NDArray[np.float64], what: str, notes: list[str]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        narrow = table.astype(np.float32)
    _note(notes, f"{what} that are NaN", np.isnan(table).sum())
    _note(notes, f"{what} that are infinite in float32", np.isinf(narrow).sum())
    return narrow


def _simple_edges(edges: Integers, texts: Texts, notes: list[str]) -> tuple[Integers, Integers]:
    """Both directions of every edge once, sorted, [E, 2]; and the line that speaks for each, [E]."""
    nodes = len(texts.graph_of_node)
    proper = np.flatnonzero(edges[:, 0] != edges[:, 1])
    _note(notes, "self-loops removed", len(edges) - len(proper))

    written = edges[proper] @ np.array([nodes, 1])
    keys, first, which = np.unique(written, return_index=True, return_inverse=True)
    lines = proper[first]
    _note(notes, "repeated edges merged", len(written) - len(keys))
    _note(
        notes,
        "of these with another label than the first, which is kept",
        _differing(texts, proper, lines[which]),
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
        _differing(texts, lines, lines[reverse]) // 2,
    )
    return np.stack([keys // nodes, keys % nodes], axis=1), lines


def _differing(texts: Texts, lines: Integers, others: Integers) -> int:
    """How many of these pairs of lines disagree in an edge label or attribute."""
    differ = np.zeros(len(lines), bool)
    for table in (texts.edge_labels, texts.edge_attributes):
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


def _node_labels(texts: Texts, order: Integers, ends: Integers, notes: list[str]) -> Integers:
    """The labels of the nodes in their new order, or their degrees, as far as these fit into memory."""
    largest = MOST_ONE_HOT_BYTES // (4 * max(1, len(order))) - 1
    if texts.node_labels is not None:
        labels = _renumbered(texts.node_labels[order], "node", notes)
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
