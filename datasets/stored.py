"""Lists of PyG `Data` from a file that torch.save wrote, or from a function."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.data.separate import separate

from readouts.commands.data import plain_classes
from readouts.commands.target import CannotRunError, find, said
from readouts.commands.tu.errors import DataError


def from_file(path: Path, trust: bool) -> list[Data]:
    """Return the graphs of a file: a list of `Data`, a `Batch`, or a data set as PyG stores it.

    Only tensors and the classes of PyG are unpickled, unless `trust` allows the file to run any code.
    """
    expected = f"{path}: expected a list of Data or a data set of PyG"
    try:
        with torch.serialization.safe_globals(plain_classes()):
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
