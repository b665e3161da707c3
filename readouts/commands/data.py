"""Graphs to run a model on: synthetic, from a TU set, or from a file."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.separate import separate
from torch_geometric.data.storage import GlobalStorage
from torch_geometric.io import read_tu_data
from torch_geometric.utils import degree

from readouts.commands.target import CannotRunError, said
from readouts.commands.tu.checksums import verify
from readouts.commands.tu.errors import DataError
from readouts.commands.tu.fetch import raw_folder

GRAPHS, TU_GRAPHS = 12, 32
MOST_ONE_HOT_BYTES = 1 << 30
ELEMENTS = torch.tensor([6, 6, 6, 7, 8])


def molecules(features: int, edge_features: int, seed: int, full: bool) -> Batch:
    """Make a dozen small molecule-like graphs: a ring of five or six nodes with branches of up to eight more.

    Args:
        features: F of the normal features x [N, F].
        edge_features: D of the normal ``edge_attr`` [E, D].
        seed: seed of structure and features.
        full: add ``edge_attr``, ``edge_weight`` [E], ``pos`` [N, 3] and atomic numbers ``z`` [N].
    """
    generator = torch.Generator().manual_seed(seed)
    graphs = []
    for _ in range(GRAPHS):
        ring, branches = (int(torch.randint(*ends, (), generator=generator)) for ends in ((5, 7), (0, 9)))
        bonds = [(atom, (atom + 1) % ring) for atom in range(ring)]
        for atom in range(ring, ring + branches):
            bonds.append((int(torch.randint(atom, (), generator=generator)), atom))
        one_way = torch.tensor(bonds).t()
        edge_index, count = torch.cat([one_way, one_way.flip(0)], dim=1), ring + branches
        data = Data(x=torch.randn(count, features, generator=generator), edge_index=edge_index)
        if full:
            both = 2 * [torch.randn(len(bonds), edge_features, generator=generator)]
            data.edge_attr = torch.cat(both)
            data.edge_weight = torch.cat(2 * [torch.rand(len(bonds), generator=generator)])
            data.pos = torch.randn(count, 3, generator=generator)
            data.z = ELEMENTS[torch.randint(len(ELEMENTS), (count,), generator=generator)]
        graphs.append(data)
    return Batch.from_data_list(graphs)


def tu_set(name: str) -> Batch:
    """Load the first graphs of a TU set; x is the degree [N, 1] where nodes have no labels.

    The set comes from the TU site, or from READOUTS_TU_MIRROR, a folder or URL with `NAME.zip`, and stays in
    READOUTS_CACHE or in `readouts/tu` in the user's cache folder. Files of sets with known SHA-256 digests
    are verified.

    Raises:
        CannotRunError: the set cannot be loaded.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise CannotRunError(f"--data: expected FILE.pt or the name of a TU set, got {name!r}")
    try:
        folder = raw_folder(name)
        verify(name, folder, source=folder)
        _check_labels(folder, name)
        joined, slices, _ = read_tu_data(str(folder), name)
    except DataError as error:
        raise CannotRunError(f"--data: cannot get {name}: {error}") from error
    except Exception as error:  # of the parser
        raise CannotRunError(f"--data: cannot read {name}: {said(error)}") from error
    batch = _separated(joined, slices)
    graphs = batch.to_data_list()
    for graph in graphs:
        if graph.x is None or not graph.x.numel():
            graph.x = degree(graph.edge_index[0], graph.num_nodes)[:, None]
    return Batch.from_data_list(graphs)


def _check_labels(folder: Path, name: str) -> None:
    """Raise a DataError if labels are so large that their one-hot rows, which PyG makes, fill the memory."""
    for part in ("node_labels", "edge_labels"):
        path = folder / f"{name}_{part}.txt"
        if path.is_file():
            lines = [line.split(",") for line in path.read_text().split("\n") if line]
            columns = [[int(float(field)) for field in column] for column in zip(*lines, strict=True)]
            width = sum(max(column) - min(column) + 1 for column in columns)
            if 4 * width * len(lines) > MOST_ONE_HOT_BYTES:
                raise DataError(f"{path.name} has labels too far apart for one-hot rows of {width} numbers")


def from_file(path: str) -> Data | tuple[Tensor, ...]:
    """Read graphs that `torch.save` wrote: ``Data``, a list of ``Data``, ``Batch``, or a tuple of tensors.

    The pairs of data and slices in which PyG stores data sets are taken apart; of their graphs the first 32
    are read. Nothing but tensors and these classes is unpickled.

    Raises:
        CannotRunError: the file cannot be read, or holds something else.
    """
    try:
        with torch.serialization.safe_globals(plain_classes()):
            held = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"GLOBAL (\S+)", str(error))
        what = f"{unsafe[1]}, which is not unpickled for safety" if unsafe else "something else"
        raise CannotRunError(f"{_expected(path)}, got {what}") from error
    except Exception as error:  # of the file system, or of the zip archive that torch.save writes
        raise CannotRunError(f"--data: cannot read {path}: {said(error)}") from error
    if isinstance(held, Data):
        return held
    parts = tuple(held) if isinstance(held, list | tuple) else ()
    if len(parts) in (2, 3, 4) and isinstance(parts[0], Data | dict) and isinstance(parts[1], dict):
        return _separated(parts[0], parts[1])
    if parts and all(isinstance(part, Data) and not isinstance(part, Batch) for part in parts):
        return Batch.from_data_list(list(parts))
    if parts and all(isinstance(part, Tensor) for part in parts):
        return parts
    raise CannotRunError(f"{_expected(path)}, got {type(held).__name__}")


def _separated(held: Data | dict[str, Any], slices: dict[str, Any]) -> Batch:
    """Take apart the graphs that PyG's `InMemoryDataset` stores end to end."""
    joined = Data.from_dict(held) if isinstance(held, dict) else held
    count = min(TU_GRAPHS, max(len(ends) for ends in slices.values()) - 1)
    graphs = [separate(Data, joined, place, slices, decrement=False) for place in range(count)]
    return Batch.from_data_list(graphs)


def is_file(name: str) -> bool:
    """Return whether this is a file and not the name of a TU set."""
    return bool(Path(name).suffix) or Path(name).exists()


def _expected(path: str) -> str:
    return f"--data: expected Data, a list of Data, Batch or a tuple of tensors in {path}"


def plain_classes() -> list[Any]:
    """Return the classes in pickles of graphs that are not on the safe list of torch yet.

    On exit `safe_globals` removes from that list all that it was given. `_BatchBuilder` replaces the helper
    object of PyG that rebuilds a `Batch`.
    """
    helper = (_BatchBuilder, "torch_geometric.data.batch.DynamicInheritanceGetter")
    classes = [Data, DataEdgeAttr, DataTensorAttr, GlobalStorage, Batch, type(Batch()), _batch_of, helper]
    return [each for each in classes if each not in torch.serialization.get_safe_globals()]


class _BatchBuilder:
    def __new__(cls) -> Any:
        """Return the function that the unpickler is to call."""
        return _batch_of


def _batch_of(kind: type[Batch], base: type[Data]) -> Batch:
    return kind(_base_cls=base)
