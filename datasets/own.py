"""Data that people bring: molecules in a table, graphs of PyG in a file, or a function that makes them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from datasets import listed, molecules, stored
from datasets.graphs import GraphSet, Unread
from datasets.tables import Given, graphs_of
from datasets.targets import read_targets
from readouts.commands.tu.errors import DataError

LEAST = 10  # graphs, without which there is nothing to learn or to test on
STORED = (".pt", ".pth")


def is_own(source: str | Path) -> bool:
    """Whether this names a file or a function rather than a TU set."""
    return bool(Path(source).suffix) or ":" in str(source)


def load(
    source: str | Path, target: str | None = None, task: str | None = None, trust: bool = False
) -> GraphSet:
    """Load graphs from a file or a function; see `datasets.load`."""
    path, kind = Path(source).expanduser(), Path(source).suffix.lower()
    if kind in molecules.SUFFIXES:
        given = molecules.read(path, target)
    elif kind in STORED:
        given = listed.read(stored.from_file(path, trust), path.name, target)
    elif ":" in str(source):
        given = listed.read(stored.from_factory(str(source)), str(source), target)
    else:
        known = ", ".join(f"FILE{suffix}" for suffix in (*molecules.SUFFIXES, *STORED))
        raise DataError(
            f"source: expected a TU name, rings, {known} or package.module:function, got {source}"
        )
    return _graph_set(given, task)


def with_target(graph_set: GraphSet, target: str | None, task: str | None) -> GraphSet:
    """Return a set that predicts a column of its graph attributes, or its `y` as another task."""
    if target is None and task is None:
        return graph_set
    key = "graph_attr" if target is not None and "graph_attr" in graph_set[0] else "y"
    if target is not None and key == "y" and graph_set.classes:
        raise DataError(f"target: expected none for {graph_set.name}, which has classes only, got {target!r}")
    rows = [graph[key].flatten().tolist() for graph in graph_set]
    columns = [str(column) for column in range(len(rows[0]))]
    chosen = columns[0] if target is None and len(columns) == 1 else target
    if chosen not in columns:
        raise DataError(f"target: expected a column of {graph_set.name}, 0 to {columns[-1]}, got {chosen}")
    places = [f"graph {place}" for place in range(len(rows))]
    name = graph_set.name if target is None else f"{graph_set.name}:{target}"
    targets = read_targets([row[int(chosen)] for row in rows], places, name, task)
    values = torch.from_numpy(targets.values)
    y = values.float() if targets.names is None else values
    graphs = tuple(copy(graph).update({"y": y[place : place + 1]}) for place, graph in enumerate(graph_set))
    return replace(
        graph_set,
        name=name,
        graphs=graphs,
        classes=len(targets.names or ()),
        class_names=targets.names,
        notes=(*graph_set.notes, targets.note),
    )


def _graph_set(given: Given, task: str | None) -> GraphSet:
    """Return the set of graphs that somebody gave, with notes on rows, targets and duplicates."""
    lost = [_said(given.unread)] if given.unread else []
    if len(given.values) < LEAST:
        raise DataError(
            f"{given.name}: "
            + "; ".join([f"expected {LEAST} graphs or more, got {len(given.values)}", *lost])
        )
    targets = read_targets(given.values, given.places, given.name, task)
    if targets.names is None:
        tables = replace(given.tables, graph_attributes=targets.values[:, None].astype(np.float64))
    else:
        tables = replace(given.tables, classes=targets.values.astype(np.int64))
    notes = [*lost, targets.note, *given.notes]
    classes, graphs = graphs_of(tables, notes)
    for graph, extras in zip(graphs, given.extras, strict=True):
        graph.update(dict(extras))
    found = GraphSet(
        given.name,
        graphs,
        classes,
        node_names=given.node_names,
        class_names=targets.names,
        edge_names=given.edge_names,
        unread=given.unread,
        degrees=given.tables.node_labels is None,
        own=True,
    )
    return replace(found, notes=(*notes, *_duplicates(found.groups(), targets.values)))


def _said(unread: Sequence[Unread]) -> str:
    line, text, reason = unread[0]
    return f"rows that cannot be read: {len(unread)}, the first in line {line}, {text[:40]!r}: {reason}"


def _duplicates(groups: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> list[str]:
    """Return how many graphs occur again, and how many graphs occur with different targets."""
    distinct = int(groups.max()) + 1
    if distinct == len(groups):
        return []
    pairs = np.unique(np.stack([groups.astype(np.float64), values.astype(np.float64)]), axis=1)[0]
    conflicts = int((np.unique(pairs, return_counts=True)[1] > 1).sum())
    return [
        f"graphs that repeat an earlier one: {len(groups) - distinct}",
        *([f"graphs that occur with different targets: {conflicts}"] if conflicts else []),
    ]
