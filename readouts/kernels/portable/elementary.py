"""The elementary reductions in plain PyTorch, for every device with float64: scatters and exact sums."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from readouts.kernels.portable.limbs import exact_sums, rounded, segment_sum
from readouts.reductions import ELEMENTARY, result_dtype

NAN_KEY = torch.iinfo(torch.int64).max
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def supports(dtype: torch.dtype) -> bool:
    """Return True: every dtype of a readout is supported."""
    return True


def reduce(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str]) -> Tensor:
    """Reduce the rows of x [N, F] that share an index to [B, R, F]; see `readouts.ops.reduce`.

    `order` is not read.
    """
    sums = _Sums(x, index, ptr.diff())
    blocks = [_block(name, x, sums, result_dtype(name, x.dtype)) for name in names]
    return torch.stack(blocks, dim=1)


def reduce_backward(
    grad: Tensor,
    x: Tensor | None,
    out: Tensor | None,
    index: Tensor,
    ptr: Tensor,
    order: Tensor | None,
    names: Sequence[str],
) -> Tensor:
    """Return the gradient [N, F] of `reduce` for x; see `readouts.ops.reduce_backward`.

    `order` is not read.
    """
    total = grad.new_zeros(len(index), grad.shape[2], dtype=torch.float64)
    sums = _Sums(total if x is None else x, index, ptr.diff())
    for name in ELEMENTARY:
        for block in (position for position, other in enumerate(names) if other == name):
            winners = None if out is None else out[:, block]
            total += _sensitivity(name, grad[:, block].double(), winners, sums)
    return narrowed(total, grad.dtype)


class _Sums:
    """The exact sums of x over each graph, computed once for all reductions that need them."""

    def __init__(self, x: Tensor, index: Tensor, count: Tensor) -> None:
        self.x, self.index, self.count = x, index, count
        self._limbs: tuple[Tensor, int] | None = None
        self._special: Tensor | None = None

    def sum(self, dtype: torch.dtype) -> Tensor:
        """Return the sums [B, F], rounded once to `dtype`."""
        if not dtype.is_floating_point:
            return segment_sum(self.x.to(dtype), self.index, len(self.count))
        return self._rounded(dtype, None)

    def mean(self, dtype: torch.dtype) -> Tensor:
        """Return the means [B, F], rounded once to `dtype`; 0 for a graph without nodes."""
        return self._rounded(dtype, self.count.clamp(min=1))

    def var(self, dtype: torch.dtype) -> Tensor:
        """Return the means of the squared deviations, rounded once to `dtype`."""
        return self._squares.mean(dtype)

    @cached_property
    def deviations(self) -> Tensor:
        """x minus the float64 mean of its graph, in float64 [N, F]."""
        return self.x.double() - self.mean(torch.float64)[self.index]

    @cached_property
    def std(self) -> Tensor:
        """Square root of the float64 variance, in float64 [B, F]."""
        return sqrt(self.var(torch.float64))

    @cached_property
    def _squares(self) -> _Sums:
        return _Sums(self.deviations * self.deviations, self.index, self.count)

    def _rounded(self, dtype: torch.dtype, divisor: Tensor | None) -> Tensor:
        if self._limbs is None:
            finite = self.x.isfinite()
            self._limbs = exact_sums(torch.where(finite, self.x, 0), self.index, len(self.count))
            if self.x.is_floating_point():
                special = torch.where(finite, 0, self.x).double()
                self._special = segment_sum(special, self.index, len(self.count))
        result = rounded(*self._limbs, dtype, divisor)
        if self._special is None:
            return result
        special = torch.where(self._special.isnan(), torch.nan, self._special).to(dtype)
        return torch.where(special == 0, result, special)


def _block(name: str, x: Tensor, sums: _Sums, dtype: torch.dtype) -> Tensor:
    match name:
        case "sum":
            return sums.sum(dtype)
        case "mean":
            return sums.mean(dtype)
        case "max" | "min":
            return _extreme(name, x, sums.index, sums.count)
        case "var":
            return sums.var(dtype)
        case "std":
            return narrowed(sums.std, dtype)
        case _:
            raise ValueError(f"reduce: expected one of {', '.join(ELEMENTARY)}, got {name!r}")


def _extreme(name: str, x: Tensor, index: Tensor, count: Tensor) -> Tensor:
    """Return the maximum or minimum [B, F]: NaN if there is one, -0 below +0, 0 for an empty graph."""
    keys = keys_of(x, flip(name))
    best = keys.new_full((len(count), x.shape[1]), torch.iinfo(torch.int64).min)
    best.scatter_reduce_(0, index.unsqueeze(1).expand(x.shape), keys, "amax")
    return values_of(best, x.dtype, flip(name)).masked_fill(count.view(-1, 1) == 0, 0)


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
    bits = x.view(_BITS[x.element_size()])
    return torch.where(bits < 0, bits ^ torch.iinfo(bits.dtype).max, bits).long()


def unsorted(keys: Tensor, dtype: torch.dtype) -> Tensor:
    """Undo `sortable`."""
    if not dtype.is_floating_point:
        return keys.to(dtype)
    bits = keys.to(_BITS[dtype.itemsize])
    return torch.where(bits < 0, bits ^ torch.iinfo(bits.dtype).max, bits).view(dtype)


def _sensitivity(name: str, grad: Tensor, winners: Tensor | None, sums: _Sums) -> Tensor:
    """Return what one reduction's gradient [B, F] adds to the gradient [N, F] of x, in float64."""
    index, nodes = sums.index, sums.count.clamp(min=1).view(-1, 1)
    match name:
        case "sum":
            return grad[index]
        case "mean":
            return (grad / nodes)[index]
        case "max" | "min":
            assert winners is not None
            winner = winners[index]
            tied = (sums.x == winner) | (sums.x.isnan() & winner.isnan())
            ties = segment_sum(tied.long(), index, len(nodes)).clamp(min=1)
            return torch.where(tied, (grad / ties)[index], 0)
        case "var":
            return (2 * grad)[index] * (sums.deviations / nodes[index])
        case "std":
            slope = grad[index] * (sums.deviations / (nodes * sums.std)[index])
            return torch.where((sums.std == 0)[index], 0, slope)
        case _:
            raise ValueError(f"reduce: expected one of {', '.join(ELEMENTARY)}, got {name!r}")


def sqrt(x: Tensor) -> Tensor:
    """Round the square root correctly; PyTorch's own is off by a unit now and then on the CPU."""
    return torch.from_numpy(np.sqrt(x.numpy())) if x.device.type == "cpu" else x.sqrt()


def narrowed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Round float64 once to `dtype`; a zero is +0, NaN is the default NaN.

    PyTorch converts float64 to the 16-bit dtypes by way of float32, which rounds twice; rounding
    to the float32 with an odd last bit first ("round to odd") makes the second rounding the right one.
    """
    result = x.float() if dtype.itemsize == 2 else x.to(dtype)
    if dtype.itemsize == 2:
        even = result.view(torch.int32) % 2 == 0
        inexact = result.isfinite() & (result.double() != x)
        toward = torch.where(x > result.double(), torch.inf, -torch.inf).float()
        result = torch.where(even & inexact, result.nextafter(toward), result)
    return result.masked_fill(x.isnan(), torch.nan).to(dtype) + 0.0
