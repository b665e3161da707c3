"""The TU text format: eight files of numbers, read into arrays that agree with one another."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datasets.tables import Integers, Reals, Tables
from readouts.commands.tu.errors import DataError

SEPARATOR = re.compile(r"\s*,\s*|\s+")
MOST_INTEGER = 2**53  # greater numbers may have been rounded when they were written as 1.0


class NotNumbersError(DataError):
    """A line does not hold the numbers that it should."""


def read(name: str, folder: Path) -> Tables:
    """Read `folder/NAME_*.txt`; raises `DataError` naming the file, and the line where there is one."""
    source = folder / f"{name}_"
    classes, graph_attributes = _of_graphs(source)
    graph_of_node = _column(_file(source, "graph_indicator")) - 1
    edges = _edges(_file(source, "A"))
    tables = Tables(
        classes=classes,
        graph_attributes=graph_attributes,
        graph_of_node=graph_of_node,
        edges=edges,
        node_labels=_optional(_file(source, "node_labels"), np.int64, len(graph_of_node), "nodes"),
        edge_labels=_optional(_file(source, "edge_labels"), np.int64, len(edges), "edges"),
        node_attributes=_optional(_file(source, "node_attributes"), np.float64, len(graph_of_node), "nodes"),
        edge_attributes=_optional(_file(source, "edge_attributes"), np.float64, len(edges), "edges"),
    )
    _check_ranges(tables, source)
    return tables


def _file(source: Path, part: str) -> Path:
    return source.with_name(f"{source.name}{part}.txt")


def _of_graphs(source: Path) -> tuple[Integers | None, Reals | None]:
    """Read classes and attributes; graph labels that are numbers, but no integers, are attributes."""
    labels, attributes = _file(source, "graph_labels"), _file(source, "graph_attributes")
    if attributes.is_file() and not labels.is_file():
        return None, _filled(attributes, _table(attributes, np.float64))
    try:
        classes: Integers = _filled(labels, _column(labels))
    except NotNumbersError:
        targets = _numbers(_lines(labels), np.float64)
        if targets is None:
            raise
        return None, targets
    return classes, _optional(attributes, np.float64, len(classes), "graphs")


def _filled(path: Path, table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if len(table) == 0:
        raise DataError(f"{path} is empty, so the set has no graphs")
    return table


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
    """Numbers separated by commas or blanks, [lines, columns]; an empty file is [0, 1]."""
    lines = _lines(path)
    table = _numbers(lines, dtype)
    if table is None:
        raise NotNumbersError(_complaint(path, lines, dtype))
    return table


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f"{path.parent} lacks {path.name}, which every TU set has")
    try:
        text = path.read_text(encoding="utf-8-sig").rstrip()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text: {error}") from error
    return text.split("\n") if text else []


def _numbers(lines: list[str], dtype: type[np.generic]) -> npt.NDArray[Any] | None:
    """Read the lines as numbers; integers may be written 1.0. None where they are not like that."""
    if not lines:
        return np.empty((0, 1), dtype)
    table = _parsed(lines, dtype)
    if table is None:
        lines = [SEPARATOR.sub(",", line.strip()) for line in lines]
        table = _parsed(lines, dtype)
    if table is None and dtype is np.int64:
        reals = _parsed(lines, np.float64)
        if reals is not None and ((reals == np.floor(reals)) & (np.abs(reals) < MOST_INTEGER)).all():
            table = reals.astype(np.int64)
    return table


def _parsed(lines: list[str], dtype: type[np.generic]) -> npt.NDArray[Any] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy < 2.4 truncates 1.5 to 1 with one
            table = np.loadtxt(lines, dtype, delimiter=",", comments=None, ndmin=2)
    except (ValueError, UserWarning, DeprecationWarning):
        return None
    return table if len(table) == len(lines) else None


def _complaint(path: Path, lines: list[str], dtype: type[np.generic]) -> str:
    """Which line is not like the others."""
    columns = len(SEPARATOR.split(lines[0].strip()))
    what = f"{columns} {'integer' if dtype is np.int64 else 'number'}{'s' if columns > 1 else ''}"
    for number, line in enumerate(lines, start=1):
        fields = SEPARATOR.split(line.strip())
        if len(fields) != columns or not all(_is_number(field, dtype) for field in fields):
            return f"{path}, line {number}: expected {what}, got {line[:60]!r}"
    return f"{path} is not a table of numbers"


def _is_number(field: str, dtype: type[np.generic]) -> bool:
    try:
        value = float(field)
    except ValueError:
        return False
    return dtype is not np.int64 or (value.is_integer() and abs(value) < MOST_INTEGER)


def _check_ranges(tables: Tables, source: Path) -> None:
    graphs, nodes = tables.graphs, len(tables.graph_of_node)
    if (line := _first(_outside(tables.graph_of_node, graphs))) is not None:
        raise DataError(
            f"{_file(source, 'graph_indicator')}, line {line + 1}: graph {tables.graph_of_node[line] + 1}, "
            f"but graph_labels names {graphs} graphs"
        )
    path = _file(source, "A")
    if (
        line := _first(_outside(tables.edges[:, 0], nodes) | _outside(tables.edges[:, 1], nodes))
    ) is not None:
        raise DataError(
            f"{path}, line {line + 1}: edge {_pair(tables.edges[line])} in a set of {nodes} nodes"
        )
    ends = tables.graph_of_node[tables.edges]
    if (line := _first(ends[:, 0] != ends[:, 1])) is not None:
        raise DataError(
            f"{path}, line {line + 1}: edge {_pair(tables.edges[line])} joins graphs {_pair(ends[line])}"
        )


def _outside(indices: Integers, size: int) -> npt.NDArray[np.bool_]:
    return (indices < 0) | (indices >= size)


def _first(wrong: npt.NDArray[np.bool_]) -> int | None:
    return int(wrong.argmax()) if wrong.any() else None


def _pair(indices: Integers) -> str:
    return f"{indices[0] + 1}, {indices[1] + 1}"
