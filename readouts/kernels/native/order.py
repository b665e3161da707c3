"""Order statistics in the native core: sorting for small graphs, searching by counting for large ones."""

from __future__ import annotations

import torch
from torch import Tensor

from readouts.kernels.native.elementary import address
from readouts.kernels.native.grouping import check
from readouts.kernels.native.library import DTYPES, core, is_available
from readouts.kernels.native.memory import new_tensor, ready, threads_for

EFFORT = 8  # work per number, relative to a sum


def supports(dtype: torch.dtype) -> bool:
    """Return whether this module computes order statistics of this dtype."""
    return dtype.is_floating_point and dtype in DTYPES and is_available()


def select(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor) -> Tensor:
    """Return the order statistics [B, K, F] with these ranks [B, K]; see `readouts.ops.select`."""
    return _select(x, ptr, order, ranks, None)


def midpoint(
    x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the means [B, F] of the order statistics with two ranks [B, 2], and the statistics [B, 2, F]."""
    means = new_tensor(x, len(ranks), x.shape[1])
    return means, _select(x, ptr, order, ranks, means)


def _select(x: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor, means: Tensor | None) -> Tensor:
    rows, ranks = _Rows(x, ptr, order), ranks.contiguous()
    out = new_tensor(x, *ranks.shape, x.shape[1])
    check(
        core.select(
            *rows.arguments, ranks.data_ptr(), ranks.shape[1], out.data_ptr(), address(means), rows.threads
        )
    )
    return out


def keep(
    x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the values that trimming keeps, in any order; see `readouts.kernels.portable.order.keep`."""
    rows, bounds, cut = _Rows(x, ptr, order), ready(bounds), cut.contiguous()
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
    rows, bounds, cut, grad = _Rows(x, ptr, order), ready(bounds), cut.contiguous(), ready(grad)
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
        self._alive = x, ptr = ready(x), ptr.contiguous()
        nodes, features = x.shape
        self.threads = threads_for(EFFORT * nodes * features)
        self.arguments = (
            x.data_ptr(), DTYPES[x.dtype], nodes, features, ptr.data_ptr(), address(order), ptr.shape[0] - 1
        )  # fmt: skip
