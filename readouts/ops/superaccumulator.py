"""Exact sums that can be merged; see `readouts.numerics.superaccumulator`."""

from __future__ import annotations

from torch import Tensor

from readouts.numerics.limbs import exact_sums
from readouts.numerics.superaccumulator import ROOM, Format, Layout, carry, format_of, zeros
from readouts.ops.registry import kernel_for


def sums(x: Tensor, index: Tensor, size: int, power: int = 1) -> Tensor:
    """Return the carried limbs [L + 1, B, F] of the sums of the rows of x [N, F] that share an index.

    x has any real dtype; limbs have the format `format_of(x.dtype, power)`; index is int64 [N], in any order.
    """
    format = format_of(x.dtype, power)
    limbs = zeros(format, size, x.shape[1], x.device)
    add(limbs, x, index, format, power)
    carry(limbs)
    return limbs


def add(limbs: Tensor, x: Tensor, index: Tensor, format: Format, power: int = 1) -> None:
    """Add the rows of x [N, F], or their squares, to the sums of their graphs `index` [N], in place.

    The format must be able to represent all numbers: that of the dtype can, and that of integers can
    represent integers stored in float64.
    """
    if not x.is_floating_point():
        if power == 1:
            found, _ = exact_sums(x, index, limbs.shape[1])
            limbs[: len(found)] += found
            return
        x = x.double()
    x = x.detach().contiguous()
    layout = Layout.of(x.dtype, format, power)
    for start in range(0, len(x), ROOM):
        if start:
            carry(limbs)
        rows, graphs = x[start : start + ROOM], index[start : start + ROOM]
        kernel_for(x.device, x.dtype, "superaccumulator").add(limbs, rows, graphs, layout)
