"""Graphs from a file that torch.save wrote, or from a function: lists of PyG `Data`, and data sets of PyG."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.data.separate import separate

from datasets.tables import Given, Integers, Reals, Tables
from datasets.targets import Value
from readouts.commands.data import _plain_classes
from readouts.commands.target import CannotRunError, find, said
from readouts.commands.tu.errors import DataError

MOST_LABELS = 256  # different rows of integers that are labels; more are numbers
TEXTS = ("name", "smiles")
USED = {"x", "z", "edge_index", "edge_attr", "edge_weight", "y", "batch", "ptr", "num_nodes", *TEXTS}


def from_file(path: Path, trust: bool) -> list[Data]:
    """Return the graphs of a file: a list of `Data`, a `Batch`, or a data set as PyG stores it.

    Only tensors and the classes of PyG are unpickled, unless `trust` allows the file to run any code.
    """
    expected = f"{path}: expected a list of Data or a data set of PyG"
    try:
        with torch.serialization.safe_globals(_plain_classes()):
            held = torch.load(path, weights_only=not trust, map_location="cpu")
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"GLOBAL (\S+)", str(error))
        what = f"{unsafe[1]}, which is unpickled only with trust" if unsafe else "something else"
        raise DataError(f"{expected}, got {what}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or said(error)}") from error
    except Exception as error:  # of the archive, the pickle, or classes that are trusted
        raise DataError(f"{expected}, got a file that raises {said(error)}") from error
    parts = held if isinstance(held, tuple | list) else ()
    if len(parts) in (2, 3, 4) and isinstance(parts[0], Data | dict) and isinstance(parts[1], dict):
        held = _separated(parts[0], parts[1], str(path))
    return _listed(held, expected, str(path))


def from_factory(source: str) -> list[Data]:
    """Return the graphs of `package.module:name`: a list, or what a function returns or yields."""
    expected = f"{source}: expected an iterable of Data"
    try:
        made = find(source)
        made = made() if callable(made) else made
    except CannotRunError as error:
        raise DataError(f"cannot load {source}: {str(error).removeprefix('target: ')}") from error
    except (Exception, SystemExit) as error:  # of the code of the function
        raise DataError(f"{source}() raises {said(error)}") from error
    return _listed(made, expected, source)


def _listed(held: Any, expected: str, source: str) -> list[Data]:
    """Return the graphs that something is, holds or yields."""
    if isinstance(held, Batch):
        return list(held.to_data_list())
    try:
        iterator = iter(() if isinstance(held, Data | Tensor | str | dict) else held)
    except TypeError as error:
        raise DataError(f"{expected}, got {type(held).__name__}") from error
    try:
        graphs = list(iterator)
    except Exception as error:  # of the code of a generator or a data set
        raise DataError(f"{source} raises {said(error)}") from error
    if isinstance(held, Data | Tensor | str | dict):
        raise DataError(f"{expected}, got one {type(held).__name__}")
    for place, graph in enumerate(graphs):
        if not isinstance(graph, Data):
            raise DataError(f"{expected}, got {type(graph).__name__} at position {place}")
    return graphs


def _separated(joined: Data | dict[str, Any], slices: dict[str, Any], source: str) -> list[Data]:
    """Take apart the graphs that `InMemoryDataset` stores end to end."""
    joined = Data.from_dict(joined) if isinstance(joined, dict) else joined
    try:
        count = max(len(ends) for ends in slices.values()) - 1
        return [separate(Data, joined, place, slices, decrement=False) for place in range(count)]
    except Exception as error:  # of PyG, where slices are something else
        raise DataError(f"cannot take apart the graphs of {source}: {said(error)}") from error


def read(graphs: Sequence[Data], name: str, target: str | None) -> Given:
    """Lay graphs out as tables; `target` is an attribute of theirs, or a column of `y` (by default `y`).

    Node labels are the rows of `x` (or `z`) if these are integers or one-hot, else `x` is kept as numbers,
    as is `edge_attr` (or `edge_weight`), in the same way.

    Raises `DataError` where a graph is not sound, unlike the others, or has no such target.
    """
    places = [f"graph {place}" for place in range(len(graphs))]
    counts = np.array(
        [_node_count(graph, f"{name}, graph {at}") for at, graph in enumerate(graphs)], np.int64
    )
    edges = [_edges(graph, int(counts[at]), f"{name}, graph {at}") for at, graph in enumerate(graphs)]
    lengths = np.array([len(pairs) for pairs in edges], np.int64)
    notes: list[str] = []
    of_nodes = _stacked(graphs, ("x", "z"), counts, name)
    of_edges = _stacked(graphs, ("edge_attr", "edge_weight"), lengths, name)
    node_labels, node_attributes = _labels_or_numbers(of_nodes, "x", notes)
    edge_labels, edge_attributes = _labels_or_numbers(of_edges, "edge_attr", notes)
    unused = sorted({key for graph in graphs for key in graph.to_dict()} - USED - {target})
    if unused:
        notes.append(f"not used: {', '.join(unused)}")
    values = _values(graphs, target, name)
    return Given(
        name=name if target is None else f"{name}:{target}",
        tables=Tables(
            graph_of_node=np.repeat(np.arange(len(graphs)), counts),
            edges=np.concatenate([np.empty((0, 2), np.int64), *edges])
            + np.repeat(np.cumsum(counts) - counts, lengths)[:, None],
            node_labels=node_labels,
            node_attributes=node_attributes,
            edge_labels=edge_labels,
            edge_attributes=edge_attributes,
        ),
        values=values,
        places=places,
        extras=[{key: graph[key] for key in TEXTS if isinstance(graph.get(key), str)} for graph in graphs],
        notes=notes,
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


def _stacked(graphs: Sequence[Data], keys: Sequence[str], counts: Integers, name: str) -> Tensor | None:
    """Put the rows of the first of these attributes that graphs have one below the other, [rows, columns]."""
    key = next((key for key in keys if any(graph.get(key) is not None for graph in graphs)), None)
    if key is None:
        return None
    tables: list[Tensor] = []
    for place, (graph, count) in enumerate(zip(graphs, counts.tolist(), strict=True)):
        table = graph.get(key)
        if (
            not isinstance(table, Tensor)
            or table.ndim not in (1, 2)
            or len(table) != count
            or table.is_complex()
        ):
            raise DataError(f"{name}, graph {place}: expected {key} [{count}, columns], got {_form(table)}")
        tables.append(table.detach().cpu().reshape(count, -1) if count else table.detach().cpu()[:, None])
        if tables[-1].shape[1:] != tables[0].shape[1:] or table.dtype != graphs[0][key].dtype:
            raise DataError(
                f"{name}, graph {place}: expected {key} like that of graph 0, {_form(graphs[0][key])}, "
                f"got {_form(table)}"
            )
    return torch.cat(tables)


def _form(value: object) -> str:
    if not isinstance(value, Tensor):
        return "none" if value is None else type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _labels_or_numbers(
    table: Tensor | None, what: str, notes: list[str]
) -> tuple[Integers | None, Reals | None]:
    """Return labels for integers and one-hot rows, else numbers."""
    if table is None or not table.shape[1]:
        return None, None
    if table.is_floating_point():
        one_hot = bool(((table == 0) | (table == 1)).all()) and bool((table.sum(dim=1) == 1).all())
        labels = table.argmax(dim=1, keepdim=True) if one_hot and len(table) else None
    else:
        few = len(torch.unique(table, dim=0)) <= MOST_LABELS
        labels = table.long() if few else None
    if labels is None:
        notes.append(f"{what}: {table.shape[1]} numbers each, as they were given")
        return None, table.double().numpy()
    notes.append(f"{what}: {len(torch.unique(labels, dim=0))} different rows, taken as labels")
    return labels.numpy(), None


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
