"""The tensors within what a model takes and returns, and how far two of them differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

AS_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def tensors(value: Any, name: str = "output") -> Iterator[tuple[str, Tensor]]:
    """Every tensor within tuples, lists, mappings, dataclasses and ``Data``, with its name.

    Complex numbers are pairs of real ones.
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


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether shape, dtype and all bits are equal; any NaN equals any NaN."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if not first.dtype.is_floating_point or first.element_size() not in AS_INTEGERS:
        return first.equal(second)
    bits = AS_INTEGERS[first.element_size()]
    equal = first.contiguous().view(bits) == second.contiguous().view(bits)
    return bool((equal | (first.isnan() & second.isnan())).all())


def row_sizes(value: Tensor) -> Tensor:
    """Largest finite magnitude of every row, float64 [R]; a scalar is one row."""
    return _rows(torch.nan_to_num(value.double(), nan=0.0, posinf=0.0, neginf=0.0).abs())


def row_differences(first: Tensor, second: Tensor) -> Tensor:
    """Largest magnitude of first - second in every row, float64 [R].

    Where one is infinite or NaN and the other is not the same, the difference counts as the size
    of the row, or 1 if that is less.
    """
    first, second = first.detach().double(), second.detach().double()
    alike = (first == second) | (first.isnan() & second.isnan())
    finite = first.isfinite() & second.isfinite()
    ordinary = torch.where(alike | ~finite, 0.0, (first - second).abs())
    sizes = torch.maximum(row_sizes(first), row_sizes(second)).clamp(min=1.0)
    wild = _rows((~alike & ~finite).double()) * sizes
    return torch.maximum(_rows(ordinary), wild)


def _rows(value: Tensor) -> Tensor:
    value = value.flatten(1) if value.dim() > 1 else value.reshape(-1, 1)
    return value.amax(dim=1) if value.numel() else value.new_zeros(value.shape[0])
