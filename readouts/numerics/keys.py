"""Ordered keys: int64 numbers in the order of any dtype, with -0 below +0 and NaN above everything."""

from __future__ import annotations

import torch
from torch import Tensor

NAN_KEY = torch.iinfo(torch.int64).max
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def flip(name: str) -> int:
    """Return the mask, for `^`, that inverts the order of keys for a minimum."""
    return -1 if name == "min" else 0


def keys_of(x: Tensor, flip: int | Tensor = 0) -> Tensor:
    """Map numbers to int64 keys in the same order, inverted by a flip of -1; NaN is the greatest."""
    keys = sortable(x) ^ flip
    return keys.masked_fill(x.isnan(), NAN_KEY) if x.is_floating_point() else keys


def values_of(keys: Tensor, dtype: torch.dtype, flip: int | Tensor = 0) -> Tensor:
    """Undo `keys_of`."""
    values = unsorted(keys ^ flip, dtype)
    return values.masked_fill(keys == NAN_KEY, torch.nan) if dtype.is_floating_point else values


def sortable(x: Tensor) -> Tensor:
    """Map numbers to int64 such that order is kept, with -0 below +0."""
    if not x.is_floating_point():
        return x.long()
    bits = x.resolve_neg().view(BITS[x.element_size()])
    return torch.where(bits < 0, bits ^ torch.iinfo(bits.dtype).max, bits).long()


def unsorted(keys: Tensor, dtype: torch.dtype) -> Tensor:
    """Undo `sortable`."""
    if not dtype.is_floating_point:
        return keys.to(dtype)
    bits = keys.to(BITS[dtype.itemsize])
    return torch.where(bits < 0, bits ^ torch.iinfo(bits.dtype).max, bits).view(dtype)
