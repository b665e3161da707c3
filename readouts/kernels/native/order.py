"""Order statistics in the native core: sorting for small graphs, searching by counting for large ones."""

from __future__ import annotations

import torch
from torch import Tensor

from readouts.kernels.native.grouping import check
from readouts.kernels.native.library import DTYPES, core, is_available
from readouts.kernels.native.memory import (
    address,
    contiguous,
    graphs_ready,
    new_tensor,
    ready,
    threads_for,
)
from readouts.kernels.portable import order as portable
from readouts.reductions import result_dtype

EFFORT = 8  # work per number, relative to a sum


def supports(dtype: torch.dtype) -> bool:
    """Return whether this module computes order statistics of this dtype."""
    return dtype in DTYPES and is_available()


def select(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor) -> Tensor:
    """Return the order statistics [B, K, F] with these ranks [B, K]; see `readouts.ops.select`."""
    return _select(x, ptr, order, ranks, None)


def midpoint(
    x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the means [B, F] of the order statistics with two ranks [B, 2], and the statistics [B, 2, F]."""
    dtype = result_dtype("mean", x.dtype)
    if dtype != x.dtype and dtype.itemsize == 2:  # the default dtype has 16 bits
        values = _select(x, ptr, order, ranks, None)
        return portable.mean_of_two(*values.unbind(1)), values
    means = new_tensor(x, len(ranks), x.shape[1], dtype=dtype)
    return means, _select(x, ptr, order, ranks, means)


def _select(x: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor, means: Tensor | None) -> Tensor:
    rows = _Rows(x, ptr, order)
    ranks = ready("ranks", ranks, (rows.size, ranks.shape[1]), torch.int64)
    out = new_tensor(x, *ranks.shape, x.shape[1])
    place, dtype, *graphs = rows.arguments
    averages = DTYPES[x.dtype if x.is_floating_point() else torch.float64 if means is None else means.dtype]
    check(
        core.select(
            place, dtype, averages, *graphs, ranks.data_ptr(), ranks.shape[1], out.data_ptr(), address(means),
            rows.threads,
        )
    )  # fmt: skip
    return out


def keep(
    x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the values that trimming keeps, in any order; see `readouts.kernels.portable.order.keep`."""
    rows = _Rows(x, ptr, order)
    bounds, cut = rows.bounds(bounds, cut)
    kept = new_tensor(x, *x.shape)
    offsets = torch.cat([ptr[:1], (ptr.diff() - 2 * cut).cumsum(0), ptr[-1:]])
    kept[offsets[-2] :] = 0
    check(
        core.keep(
            *rows.arguments, bounds.data_ptr(), cut.data_ptr(), offsets.data_ptr(), kept.data_ptr(),
            rows.threads,
        )
    )  # fmt: skip
    return kept, offsets


def spread(
    grad: Tensor, x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> Tensor:
    """Return the gradient [N, F] of the trimmed mean, given that of its output [B, F]."""
    rows = _Rows(x, ptr, order)
    bounds, cut = rows.bounds(bounds, cut)
    grad = ready("grad", grad, (rows.size, x.shape[1]), x.dtype)
    result = new_tensor(x, *x.shape)
    check(
        core.trim_backward(
            *rows.arguments, bounds.data_ptr(), cut.data_ptr(), grad.data_ptr(), result.data_ptr(),
            rows.threads,
        )
    )  # fmt: skip
    return result


class _Rows:
    """The leading arguments of a call, and the tensors to which they point."""

    def __init__(self, x: Tensor, ptr: Tensor, order: Tensor | None) -> None:
        nodes, features = x.shape
        self._alive = x, (ptr, order) = contiguous(x), graphs_ready(ptr, order, nodes)
        self.threads, self.size = threads_for(EFFORT * nodes * features), ptr.shape[0] - 1
        self.arguments = (
            x.data_ptr(), DTYPES[x.dtype], nodes, features, ptr.data_ptr(), address(order), self.size
        )  # fmt: skip

    def bounds(self, bounds: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
        """Return the least and greatest kept values [B, 2, F] and the numbers of cut nodes [B]."""
        x = self._alive[0]
        shape = self.size, 2, x.shape[1]
        return ready("bounds", bounds, shape, x.dtype), ready("cut", cut, (self.size,), torch.int64)
