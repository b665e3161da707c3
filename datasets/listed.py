"""Lists of PyG `Data` as tables: what nodes and edges carry, checked and sorted into labels and numbers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from datasets.tables import Given, Integers, Reals, Tables
from datasets.targets import Value
from readouts.commands.tu.errors import DataError

MOST_LABELS = 256  # different rows of integers that are labels; more are numbers
NODE_KEYS = ("x", "z", "node_label", "node_attr")
EDGE_KEYS = ("edge_attr", "edge_label", "edge_weight")
TEXTS = ("name", "smiles")
USED = {"edge_index", "y", "batch", "ptr", "num_nodes", "line", *TEXTS}


def read(graphs: Sequence[Data], name: str, target: str | None) -> Given:
    """Lay graphs out as tables; `target` is an attribute of theirs, or a column of `y` (by default `y`).

    The first of `NODE_KEYS` that holds integers or one-hot rows becomes node labels, one label for each
    different row; the first that holds other numbers is kept as it is. So it is with edges.

    Raises `DataError` where a graph is not sound, unlike the others, or has no such target.
    """
    places = [f"graph {place}" for place in range(len(graphs))]
    counts = np.array(
        [_node_count(graph, f"{name}, graph {at}") for at, graph in enumerate(graphs)], np.int64
    )
    edges = [_edges(graph, int(counts[at]), f"{name}, graph {at}") for at, graph in enumerate(graphs)]
    lengths = np.array([len(pairs) for pairs in edges], np.int64)
    of_nodes = _features(graphs, NODE_KEYS, counts, name)
    of_edges = _features(graphs, EDGE_KEYS, lengths, name)
    used = {*of_nodes.notes, *of_edges.notes, *USED, target}
    unused = sorted({key for graph in graphs for key in graph.to_dict()} - used)
    notes = [*of_nodes.notes.values(), *of_edges.notes.values()]
    values = _values(graphs, target, name)
    return Given(
        name=name if target is None else f"{name}:{target}",
        tables=Tables(
            graph_of_node=np.repeat(np.arange(len(graphs)), counts),
            edges=np.concatenate([np.empty((0, 2), np.int64), *edges])
            + np.repeat(np.cumsum(counts) - counts, lengths)[:, None],
            node_labels=of_nodes.labels,
            node_attributes=of_nodes.numbers,
            edge_labels=of_edges.labels,
            edge_attributes=of_edges.numbers,
        ),
        values=values,
        places=places,
        extras=[{key: graph[key] for key in TEXTS if isinstance(graph.get(key), str)} for graph in graphs],
        notes=[*notes, *([f"not used: {', '.join(unused)}"] if unused else [])],
    )


def _node_count(graph: Data, where: str) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyG guesses from edge_index, and says so
        count = graph.num_nodes
    if count is None:
        raise DataError(
            f"{where}: expected x or num_nodes, got attributes {', '.join(graph.to_dict()) or 'none'}"
        )
    return int(count)


def _edges(graph: Data, nodes: int, where: str) -> Integers:
    """Return the edges of a graph, [E, 2]; a graph without `edge_index` has none."""
    if graph.get("adj_t") is not None:
        raise DataError(f"{where}: expected edge_index, got adj_t")
    pairs = graph.get("edge_index")
    if pairs is None:
        return np.empty((0, 2), np.int64)
    if not isinstance(pairs, Tensor) or pairs.dtype != torch.int64 or pairs.ndim != 2 or len(pairs) != 2:
        raise DataError(f"{where}: expected edge_index int64 [2, E], got {_form(pairs)}")
    if pairs.numel() and not 0 <= int(pairs.min()) <= int(pairs.max()) < nodes:
        raise DataError(
            f"{where}: expected edge_index of nodes 0 to {nodes - 1}, "
            f"got {int(pairs.min())} to {int(pairs.max())}"
        )
    return pairs.cpu().numpy().T


@dataclass(frozen=True)
class _Features:
    """Labels [rows, columns] and numbers [rows, columns] of nodes, or of edges, and a note on each key."""

    labels: Integers | None
    numbers: Reals | None
    notes: dict[str, str]


def _features(graphs: Sequence[Data], keys: Sequence[str], counts: Integers, name: str) -> _Features:
    """Take labels from the first key that has some, and numbers from the first that has others."""
    labels, numbers, notes = None, None, {}
    for key in keys:
        table = _stacked(graphs, key, counts, name)
        if table is None or not table.shape[1]:
            continue
        found = _labels(table)
        if found is not None and labels is None:
            labels = found.numpy()
            notes[key] = f"{key}: taken as labels, {len(found.unique(dim=0))} different"
        elif found is None and numbers is None:
            numbers = table.double().numpy()
            notes[key] = f"{key}: {table.shape[1]} numbers each, as they were given"
    return _Features(labels, numbers, notes)


def _labels(table: Tensor) -> Tensor | None:
    """Return one-hot rows as indices, and integers as they are unless they are many; None for numbers."""
    if not table.is_floating_point():
        return table.long() if len(table.unique(dim=0)) <= MOST_LABELS else None
    one_hot = bool(((table == 0) | (table == 1)).all()) and bool((table.sum(dim=1) == 1).all())
    return table.argmax(dim=1, keepdim=True) if one_hot else None


def _stacked(graphs: Sequence[Data], key: str, counts: Integers, name: str) -> Tensor | None:
    """Put the rows of an attribute of all graphs one below the other, [rows, columns]."""
    tables: list[Tensor] = []
    if all(graph.get(key) is None for graph in graphs):
        return None
    for place, (graph, count) in enumerate(zip(graphs, counts.tolist(), strict=True)):
        table = graph.get(key)
        if not _is_table(table, count):
            raise DataError(f"{name}, graph {place}: expected {key} [{count}, columns], got {_form(table)}")
        tables.append(table.detach().cpu()[:, None] if table.ndim == 1 else table.detach().cpu())
        if (tables[-1].shape[1], table.dtype) != (tables[0].shape[1], tables[0].dtype):
            raise DataError(
                f"{name}, graph {place}: expected {key} like that of graph 0, {_form(graphs[0][key])}, "
                f"got {_form(table)}"
            )
    return torch.cat(tables)


def _is_table(value: object, rows: int) -> bool:
    """Whether this is a tensor of real numbers, [rows] or [rows, columns]."""
    return (
        isinstance(value, Tensor) and value.ndim in (1, 2) and len(value) == rows and not value.is_complex()
    )


def _form(value: object) -> str:
    if not isinstance(value, Tensor):
        return "none" if value is None else type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _values(graphs: Sequence[Data], target: str | None, name: str) -> list[Value]:
    """Return the value to predict of every graph."""
    key = "y" if target is None or target.isdecimal() else target
    column = int(target) if target is not None and target.isdecimal() else None
    values: list[Value] = []
    for place, graph in enumerate(graphs):
        given = graph.get(key)
        if given is None:
            raise DataError(
                f"target: expected an attribute of {name}, graph {place} ({', '.join(graph.to_dict())}), "
                f"got {key!r}"
            )
        row = given.detach().flatten().tolist() if isinstance(given, Tensor) else [given]
        if column is None and len(row) != 1:
            raise DataError(
                f"target: expected one value per graph or a column of y, 0 to {len(row) - 1}, "
                f"got {key} with {len(row)} values in {name}, graph {place}"
            )
        if column is not None and column >= len(row):
            raise DataError(f"target: expected a column of y, 0 to {len(row) - 1}, got {column} in {name}")
        value = row[column or 0]
        if not isinstance(value, str | bool | int | float):
            raise DataError(
                f"{name}, graph {place}: expected {key} to be a number or a text, got {type(value).__name__}"
            )
        values.append(value)
    return values
