"""Molecules from a file with a column of SMILES: atoms are nodes, bonds are edges."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from datasets.graphs import Unread
from datasets.tables import Given, Tables
from readouts.commands.tu.errors import DataError

TABLES, LISTS = (".csv", ".tsv"), (".smi", ".smiles")
SUFFIXES = (*TABLES, *LISTS)
SAMPLE = 50  # rows that decide which column holds SMILES where none is called so
LEFT_ASIDE = (
    "node labels are chemical elements; implicit hydrogens, charges and stereochemistry are left aside"
)


@dataclass(frozen=True)
class Row:
    """The fields of one line, or of several where a quoted field goes on; `line` is the last."""

    line: int
    fields: tuple[str, ...]


def read(path: Path, target: str | None) -> Given:
    """Read the molecules of a table (.csv, .tsv) or of a list (.smi, .smiles), and the column `target`.

    A list has blanks between fields, SMILES first, and a header only if that names a column `smiles`; else
    its columns are called 1, 2, ... In tables the column is found by its name, `smiles`, or else because it
    is the only one that RDKit reads. Without `target`, the only other column is taken.

    Node labels are elements (`node_names`, by atomic number), edge labels types of bonds (`edge_names`).
    Each graph has its canonical `smiles` and its `line`. Rows without molecule or target are `unread`.

    Raises `DataError` without RDKit, and where the file or its columns are unfit.
    """
    if importlib.util.find_spec("rdkit") is None:
        raise DataError(f"{path} needs RDKit, which reads SMILES: pip install rdkit")
    from rdkit.rdBase import BlockLogs

    with BlockLogs():
        columns, rows = _table(path) if path.suffix.lower() in TABLES else _list(path)
        smiles = _smiles_column(columns, rows, target, path)
        chosen = _target_column(columns, smiles, target, path)
        kept, molecules, unread = _molecules(rows, len(columns), smiles, chosen)
    return _given(path, columns[chosen], [row.fields[chosen] for row in kept], kept, molecules, unread)


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected text in UTF-8, got other bytes: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if not text.strip():
        raise DataError(f"{path}: expected rows with SMILES, got an empty file")
    return text


def _table(path: Path) -> tuple[list[str], list[Row]]:
    """Read a header and rows, separated by whichever of comma, semicolon and tab the header has most of."""
    text = _text(path)
    delimiter = max(",;\t", key=text.lstrip("\r\n").partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header, *rows = (
            Row(reader.line_num, tuple(field.strip() for field in fields)) for fields in reader if fields
        )
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: expected a table of text, got {error}") from error
    return list(header.fields), rows


def _list(path: Path) -> tuple[list[str], list[Row]]:
    """Read fields between blanks, as many as the first line has."""
    lines = [(number, line.split()) for number, line in enumerate(_text(path).split("\n"), 1) if line.strip()]
    first, width = lines[0][1], len(lines[0][1])
    rows = [Row(number, tuple([*fields, *[""] * width][:width])) for number, fields in lines]
    if "smiles" in first[0].lower():
        return first, rows[1:]
    return [str(number + 1) for number in range(width)], rows


def _smiles_column(columns: Sequence[str], rows: Sequence[Row], target: str | None, path: Path) -> int:
    """Return the place of the column of SMILES."""
    names = [column.lower() for column in columns]
    if path.suffix.lower() in LISTS and "smiles" not in names:
        return 0
    found = [place for place, name in enumerate(names) if name == "smiles"]
    found = found or [place for place, name in enumerate(names) if "smiles" in name]
    others = [place for place, column in enumerate(columns) if column != target]
    found = found or [place for place in others if _is_smiles(rows, place)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{path}: expected one column of SMILES, got {', '.join(columns[place] for place in found)}"
        )
    raise DataError(
        f"{path}: expected a column smiles, or one that RDKit reads, got columns {', '.join(columns)}"
    )


def _is_smiles(rows: Sequence[Row], place: int) -> bool:
    """Whether RDKit reads nine tenths of the first texts of a column."""
    texts = [row.fields[place] for row in rows[:SAMPLE] if place < len(row.fields) and row.fields[place]]
    read = sum(not isinstance(_molecule(text), str) for text in texts)
    return bool(texts) and read >= 0.9 * len(texts)


def _target_column(columns: Sequence[str], smiles: int, target: str | None, path: Path) -> int:
    """Return the place of the column to predict."""
    others = [place for place in range(len(columns)) if place != smiles]
    names = ", ".join(columns[place] for place in others) or "none"
    if target is None:
        if len(others) == 1:
            return others[0]
        raise DataError(f"target: expected a column of {path}, whose columns are {names}, got none")
    found = [place for place in others if columns[place] == target]
    found = found or [place for place in others if columns[place].lower() == target.lower()]
    if len(found) > 1:
        raise DataError(f"target: expected one column {target} in {path}, got {len(found)}")
    if not found:
        close = get_close_matches(target, [columns[place] for place in others], n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise DataError(f"target: expected a column of {path} besides SMILES ({names}), got {target!r}{hint}")
    return found[0]


def _molecules(
    rows: Sequence[Row], width: int, smiles: int, target: int
) -> tuple[list[Row], list[Any], tuple[Unread, ...]]:
    """Return the rows that have a molecule and a target, their molecules, and the rows that have not."""
    kept, molecules, unread = [], [], []
    for row in rows:
        if len(row.fields) != width:
            unread.append(Unread(row.line, " ".join(row.fields), f"{len(row.fields)} fields of {width}"))
            continue
        molecule = _molecule(row.fields[smiles]) if row.fields[target] else "no target"
        if isinstance(molecule, str):
            unread.append(Unread(row.line, row.fields[smiles], molecule))
        else:
            kept.append(row)
            molecules.append(molecule)
    return kept, molecules, tuple(unread)


def _molecule(text: str) -> Any:
    """Return the molecule that RDKit reads, or the reason why it does not."""
    from rdkit import Chem

    if (molecule := Chem.MolFromSmiles(text)) is not None:
        return molecule if molecule.GetNumAtoms() else "no atoms"
    if (raw := Chem.MolFromSmiles(text, sanitize=False)) is None:
        return "not SMILES"
    try:
        Chem.SanitizeMol(raw)
    except Exception as error:  # of RDKit, which has many
        return str(error).strip()
    return "not a molecule"


def _given(
    path: Path,
    target: str,
    values: Sequence[str],
    rows: Sequence[Row],
    molecules: Sequence[Any],
    unread: tuple[Unread, ...],
) -> Given:
    from rdkit import Chem

    atoms = np.array([a.GetAtomicNum() for molecule in molecules for a in molecule.GetAtoms()], np.int64)
    bonds = np.array([bond for molecule in molecules for bond in _bonds(molecule)], np.int64).reshape(-1, 3)
    counts = np.array([molecule.GetNumAtoms() for molecule in molecules], np.int64)
    lengths = [2 * molecule.GetNumBonds() for molecule in molecules]
    elements, node_labels = np.unique(atoms, return_inverse=True)
    types, edge_labels = np.unique(bonds[:, 2], return_inverse=True)
    fragments = sum(len(Chem.GetMolFrags(molecule)) > 1 for molecule in molecules)
    periodic = Chem.GetPeriodicTable()
    return Given(
        name=f"{path.name}:{target}",
        tables=Tables(
            graph_of_node=np.repeat(np.arange(len(counts)), counts),
            edges=bonds[:, :2] + np.repeat(np.cumsum(counts) - counts, lengths)[:, None],
            node_labels=node_labels[:, None],
            edge_labels=edge_labels[:, None],
        ),
        values=values,
        places=[f"line {row.line}" for row in rows],
        extras=[
            {"smiles": Chem.MolToSmiles(molecule), "line": row.line}
            for row, molecule in zip(rows, molecules, strict=True)
        ],
        notes=[LEFT_ASIDE, *([f"molecules of several fragments: {fragments}"] if fragments else [])],
        node_names=tuple(periodic.GetElementSymbol(int(number)) for number in elements),
        edge_names=tuple(Chem.BondType.values[int(kind)].name.lower() for kind in types),
        unread=unread,
    )


def _bonds(molecule: Any) -> Iterator[tuple[int, int, int]]:
    """Yield both directions of every bond, and its type."""
    for bond in molecule.GetBonds():
        first, second, kind = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), int(bond.GetBondType())
        yield first, second, kind
        yield second, first, kind
