"""The elementary reductions in PyTorch, for every device with float64: scatters and exact sums."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from readouts.numerics.keys import flip, keys_of, values_of
from readouts.numerics.limbs import exact_sums, rounded, segment_sum
from readouts.numerics.rounding import narrowed, sqrt
from readouts.reductions import ELEMENTARY, result_dtype

NAMES = frozenset(ELEMENTARY)


def supports(dtype: torch.dtype) -> bool:
    """Return True: every dtype of a readout is supported."""
    return True


def reduce(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str]) -> Tensor:
    """Reduce the rows of x [N, F] that share an index to [B, R, F]; see `readouts.ops.reduce`.

    `order` is ignored.
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

    `order` is ignored.
    """
    total = grad.new_zeros(len(index), grad.shape[2], dtype=torch.float64)
    sums = _Sums(total if x is None else x, index, ptr.diff())
    for name in ELEMENTARY:
        for block in (position for position, other in enumerate(names) if other == name):
            winners = None if out is None else out[:, block]
            total += _sensitivity(name, grad[:, block].double(), winners, sums)
    return narrowed(total, grad.dtype)


class _Sums:
    """The exact sums of x over each graph; computed once, shared by all reductions that need them."""

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
        """x minus the mean of its graph, both in float64 [N, F]."""
        return self.x.double() - self.mean(torch.float64)[self.index]

    @cached_property
    def std(self) -> Tensor:
        """The square root of the float64 variance, in float64 [B, F]."""
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
    """Return the maximum or minimum [B, F]: NaN if a node is NaN, -0 below +0, 0 for an empty graph."""
    keys = keys_of(x, flip(name))
    best = keys.new_full((len(count), x.shape[1]), torch.iinfo(torch.int64).min)
    best.scatter_reduce_(0, index.unsqueeze(1).expand(x.shape), keys, "amax")
    return values_of(best, x.dtype, flip(name)).masked_fill(count.view(-1, 1) == 0, 0)


def _sensitivity(name: str, grad: Tensor, winners: Tensor | None, sums: _Sums) -> Tensor:
    """Return what a reduction, given its gradient [B, F], adds to the gradient [N, F] of x, in float64."""
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
