"""Tensors within inputs and outputs of a model: find them, match their rows, and compare them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from readouts.testing.inputs import Graphs, Match

Two = tuple[Tensor, Tensor]
AS_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def tensors(value: Any, name: str = "output") -> Iterator[tuple[str, Tensor]]:
    """Yield name and value of every tensor within tuples, lists, mappings, dataclasses and ``Data``.

    Complex tensors come as real ones with a last dimension of two, Python numbers as scalars.
    """
    if isinstance(value, Tensor):
        yield name, torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
    elif isinstance(value, Data):
        yield from tensors(value.to_dict(), name)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from tensors(part, f"{name}[{key!r}]")
    elif isinstance(value, tuple | list):
        fields = getattr(value, "_fields", None)
        for place, part in enumerate(value):
            yield from tensors(part, f"{name}.{fields[place]}" if fields else f"{name}[{place}]")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for attribute in dataclasses.fields(value):
            yield from tensors(getattr(value, attribute.name), f"{name}.{attribute.name}")
    elif isinstance(value, bool | int | float):
        yield name, torch.tensor(value)


def staying(name: str, first: Tensor, second: Tensor, match: Match) -> str:
    """Return "": the rows must stay where they are."""
    return ""


def moving(name: str, first: Tensor, second: Tensor, match: Match) -> str:
    """Return what rows must move with, by their number: ``"nodes"``, ``"edges"``, ``"graphs"`` or ``""``."""
    for kind, others in zip(("nodes", "edges", "graphs"), match.others, strict=True):
        if _row_count(first) == len(getattr(match, kind)) and _row_count(second) == others:
            return kind
    return ""


def aligned(first: Tensor, second: Tensor, rows: str, match: Match) -> Two:
    """Put the rows of the second tensor in the order of the first."""
    return (first, second[getattr(match, rows)]) if rows else (first, second)


def every_match(first: Tensor, second: Tensor, match: Match, one: Graphs, two: Graphs) -> Iterator[Two]:
    """Yield two intermediate results in every way in which they may correspond.

    By node, edge or graph along the first dimension, by node along the second, as padded graphs, and as they
    are. Rows in an order of the layer's own, as of clusters, are compared as sorted columns.
    """
    known = False
    for rows, others, place in _row_matches(match, one, two):
        if _row_count(first) == rows and _row_count(second) == others:
            known = True
            yield first, second[place]
    nodes = (len(match.nodes), match.others[0])
    if first.dim() > 1 and second.dim() > 1 and (first.shape[1], second.shape[1]) == nodes:
        yield first, second[:, match.nodes]
    yield from _padded(first, second, match, one, two)
    if first.shape == second.shape:
        yield first, second
        flat = first.dim() == 1 and _row_count(first) % len(match.nodes) == 0
        if not known and _row_count(first) > 1 and not flat:
            yield first.sort(dim=0).values, second.sort(dim=0).values


def _row_matches(match: Match, one: Graphs, two: Graphs) -> Iterator[tuple[int, int, Tensor]]:
    """Yield the numbers of rows of two results, and where the rows of the first are in the second.

    For nodes, for graphs, and for edges: all or without self-loops, and either followed by one loop per node.
    """
    yield len(match.nodes), match.others[0], match.nodes
    yield len(match.graphs), match.others[2], match.graphs
    kept, other_kept = _no_loops(one), _no_loops(two)
    rank = other_kept.cumsum(0) - 1
    for edges, place in (
        (match.others[1], match.edges),
        (int(other_kept.sum()), rank[match.edges[kept]]),
    ):
        yield len(place), edges, place
        looped = torch.cat([place, edges + match.nodes])
        yield len(looped), edges + match.others[0], looped


def _no_loops(graphs: Graphs) -> Tensor:
    if not graphs.num_edges:
        return torch.zeros(0, dtype=torch.bool)
    return graphs.links["edge_index"][0] != graphs.links["edge_index"][1]


def _padded(first: Tensor, second: Tensor, match: Match, one: Graphs, two: Graphs) -> Iterator[Two]:
    """Yield the nodes of dense batches [B, largest graph, ...], padded at the end."""
    if first.dim() < 2 or _row_count(first) != one.size or _row_count(second) != two.size:
        return
    if first.dim() != second.dim() or first.shape[2:] != second.shape[2:]:
        return
    rank, other = _ranks(one.member), _ranks(two.member)[match.nodes]
    if first.shape[1] > int(rank.max()) and second.shape[1] > int(other.max()):
        yield first[one.member, rank], second[two.member[match.nodes], other]


def _ranks(member: Tensor) -> Tensor:
    """Return the position of every node within its graph."""
    order = member.argsort(stable=True)
    count = torch.bincount(member)
    rank = torch.empty_like(member)
    rank[order] = torch.arange(len(member)) - (count.cumsum(0) - count)[member[order]]
    return rank


def _row_count(value: Tensor) -> int:
    return value.shape[0] if value.dim() else -1


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Return whether shape, dtype and all bits are equal; any NaN equals any NaN."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if not first.dtype.is_floating_point or first.element_size() not in AS_INTEGERS:
        return first.equal(second)
    bits = AS_INTEGERS[first.element_size()]
    one, two = first.contiguous().view(bits), second.contiguous().view(bits)
    if one.equal(two):
        return True
    return bool(((one == two) | (first.isnan() & second.isnan())).all()) if first.isnan().any() else False


BLOCK = 2**18  # entries at a time, whose intermediate results stay in the cache


def row_sizes(value: Tensor) -> Tensor:
    """Return the largest finite magnitude of every row, float64 [R]; a scalar is one row."""
    sizes = [_row_max(torch.nan_to_num(one.double(), 0.0, 0.0, 0.0).abs()) for (one,) in _blocks(value)]
    return torch.cat(sizes)


def row_differences(first: Tensor, second: Tensor) -> Tensor:
    """Return the largest magnitude of first - second in every row, float64 [R].

    Where an entry is infinite or NaN and the other entry differs, the difference is the largest finite
    magnitude of the row, at least 1.
    """
    return torch.cat([_row_differences(*two) for two in _blocks(first, second)])


def _row_differences(first: Tensor, second: Tensor) -> Tensor:
    first, second = first.detach().double(), second.detach().double()
    largest = _row_max((first - second).abs())
    if largest.isfinite().all():
        return largest
    alike = (first == second) | (first.isnan() & second.isnan())
    finite = first.isfinite() & second.isfinite()
    ordinary = torch.where(alike | ~finite, 0.0, (first - second).abs())
    sizes = torch.maximum(row_sizes(first), row_sizes(second)).clamp(min=1.0)
    wild = _row_max((~alike & ~finite).double()) * sizes
    return torch.maximum(_row_max(ordinary), wild)


def _blocks(*values: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield some rows of tensors of one shape after another; scalars and empty tensors as they are."""
    value = values[0]
    if not value.dim() or not value.numel():
        yield values
        return
    rows = max(1, BLOCK * len(value) // value.numel())
    yield from zip(*(each.split(rows) for each in values), strict=True)


def _row_max(value: Tensor) -> Tensor:
    value = value.flatten(1) if value.dim() > 1 else value.reshape(-1, 1)
    return value.amax(dim=1) if value.numel() else value.new_zeros(value.shape[0])
