"""The TU text format: eight files of numbers, read into arrays that agree with one another."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datasets.errors import DataError

Integers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


class NotNumbersError(DataError):
    """A line does not hold the numbers that it should."""


@dataclass(frozen=True)
class Texts:
    """What the files say, numbered from zero: n nodes, m lines of edges, G graphs.

    `graph_of_node` [n] and `edges` [m, 2] are indices in range, and no edge leaves its graph; the labels have
    one column or more.
    """

    classes: Integers  # [G]
    graph_of_node: Integers  # [n]
    edges: Integers  # [m, 2]
    node_labels: Integers | None  # [n, columns]
    edge_labels: Integers | None  # [m, columns]
    node_attributes: Reals | None  # [n, columns]
    edge_attributes: Reals | None  # [m, columns]


def read(name: str, folder: Path) -> Texts:
    """Read `folder/NAME_*.txt`; raises `DataError` naming the file, and the line where there is one."""
    source = folder / f"{name}_"
    classes = _classes(source)
    graph_of_node = _column(_file(source, "graph_indicator")) - 1
    edges = _edges(_file(source, "A"))
    texts = Texts(
        classes=classes,
        graph_of_node=graph_of_node,
        edges=edges,
        node_labels=_optional(_file(source, "node_labels"), np.int64, len(graph_of_node), "nodes"),
        edge_labels=_optional(_file(source, "edge_labels"), np.int64, len(edges), "edges"),
        node_attributes=_optional(_file(source, "node_attributes"), np.float64, len(graph_of_node), "nodes"),
        edge_attributes=_optional(_file(source, "edge_attributes"), np.float64, len(edges), "edges"),
    )
    _check_ranges(texts, source)
    return texts


def _file(source: Path, part: str) -> Path:
    return source.with_name(f"{source.name}{part}.txt")


def _classes(source: Path) -> Integers:
    path = _file(source, "graph_labels")
    if not path.is_file() and _file(source, "graph_attributes").is_file():
        raise DataError(
            f"{source.name[:-1]} has regression targets in place of classes, and only classes are read"
        )
    try:
        classes = _column(path)
    except NotNumbersError as error:
        if _is_table_of_reals(path):
            raise DataError(f"{path} holds regression targets, and only integer classes are read") from error
        raise
    if len(classes) == 0:
        raise DataError(f"{path} is empty, so the set has no graphs")
    return classes


def _is_table_of_reals(path: Path) -> bool:
    try:
        _table(path, np.float64)
    except NotNumbersError:
        return False
    return True


def _column(path: Path) -> Integers:
    table: Integers = _table(path, np.int64)
    if table.shape[1] != 1:
        raise DataError(f"{path} has {table.shape[1]} columns, expected 1")
    return table[:, 0]


def _edges(path: Path) -> Integers:
    table: Integers = _table(path, np.int64)
    if len(table) == 0:
        return np.empty((0, 2), np.int64)
    if table.shape[1] != 2:
        raise DataError(f"{path} has {table.shape[1]} columns, expected 2")
    return table - 1


def _optional(path: Path, dtype: type[np.generic], length: int, of: str) -> npt.NDArray[Any] | None:
    if not path.is_file():
        return None
    table = _table(path, dtype)
    if len(table) != length:
        raise DataError(f"{path} has {len(table)} lines for {length} {of}")
    return table


def _table(path: Path, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """Comma-separated numbers, [lines, columns]; an empty file is [0, 1]."""
    if not path.is_file():
        raise DataError(f"{path.parent} lacks {path.name}, which every TU set has")
    try:
        lines = path.read_text().rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text: {error}") from error
    if lines == [""]:
        return np.empty((0, 1), dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # numpy < 2.4 truncates 1.5 to 1 with one
            table = np.loadtxt(lines, dtype, delimiter=",", comments=None, ndmin=2)
    except (ValueError, DeprecationWarning) as error:
        raise NotNumbersError(_complaint(path, lines, dtype)) from error
    if len(table) != len(lines):
        raise NotNumbersError(_complaint(path, lines, dtype))
    return table


def _complaint(path: Path, lines: list[str], dtype: type[np.generic]) -> str:
    """Which line is not like the others."""
    columns = lines[0].count(",") + 1
    what = f"{columns} {'integer' if dtype is np.int64 else 'number'}{'s' if columns > 1 else ''}"
    for number, line in enumerate(lines, start=1):
        try:
            values = [dtype(field) for field in line.split(",")]
        except (ValueError, OverflowError):
            values = []
        if len(values) != columns:
            return f"{path}, line {number}: expected {what}, got {line[:60]!r}"
    return f"{path} is not a table of numbers"


def _check_ranges(texts: Texts, source: Path) -> None:
    graphs, nodes = len(texts.classes), len(texts.graph_of_node)
    if (line := _first(_outside(texts.graph_of_node, graphs))) is not None:
        raise DataError(
            f"{_file(source, 'graph_indicator')}, line {line + 1}: graph {texts.graph_of_node[line] + 1}, "
            f"but graph_labels names {graphs} graphs"
        )
    path = _file(source, "A")
    if (line := _first(_outside(texts.edges[:, 0], nodes) | _outside(texts.edges[:, 1], nodes))) is not None:
        raise DataError(f"{path}, line {line + 1}: edge {_pair(texts.edges[line])} in a set of {nodes} nodes")
    ends = texts.graph_of_node[texts.edges]
    if (line := _first(ends[:, 0] != ends[:, 1])) is not None:
        raise DataError(
            f"{path}, line {line + 1}: edge {_pair(texts.edges[line])} joins graphs {_pair(ends[line])}"
        )


def _outside(indices: Integers, size: int) -> npt.NDArray[np.bool_]:
    return (indices < 0) | (indices >= size)


def _first(wrong: npt.NDArray[np.bool_]) -> int | None:
    return int(wrong.argmax()) if wrong.any() else None


def _pair(indices: Integers) -> str:
    return f"{indices[0] + 1}, {indices[1] + 1}"
