"""Order statistics on CUDA devices, in Triton: sorts in registers, and searches for keys.

A thread has one column, which is one feature of one graph, so that threads do not wait for each other. If a
graph has at most 64 nodes (32 in float64), its thread reads the column once, and sorts it in registers. For
more nodes the statistic is searched: a read over the column counts the numbers below three others, which
finds two bits. The median's two middle values need one search.

The kernel is compiled once for a dtype, for medians and for other statistics, with `order` and without it,
whatever the sizes are. This must not happen while a CUDA graph is captured.

Few columns in a batch with many nodes would occupy few threads, for a long time. Then `portable` sorts: this
is decided by the sizes of tensors, so that nothing waits for the device. It also computes trimmed means.
"""

from __future__ import annotations

from torch import Tensor

from readouts.kernels.portable import order as portable
from readouts.kernels.portable.order import keep, spread
from readouts.kernels.triton.elementary import MANTISSA, bits_of, launch, supports

__all__ = ["keep", "midpoint", "select", "spread", "supports"]

WIDTH = 32  # columns of a program
LONG = 8192  # up to so many nodes, a batch is never too much for few threads
COLUMNS = 2048  # columns for each rank that occupy a device sufficiently


def select(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor) -> Tensor:
    """Return the order statistics [B, K, F] with these ranks [B, K]; see `readouts.ops.select`."""
    if _is_for_portable(x, ranks):
        return portable.select(x, index, ptr, order, ranks)
    out = x.new_empty(ptr.shape[0] - 1, ranks.shape[1], x.shape[1])
    _launch(x, ptr, order, ranks, out, None)
    return out


def midpoint(
    x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the means [B, F] of the order statistics with two ranks [B, 2], and the statistics [B, 2, F]."""
    if _is_for_portable(x, ranks):
        return portable.midpoint(x, index, ptr, order, ranks)
    out = x.new_empty(ptr.shape[0] - 1, 2, x.shape[1])
    means = x.new_empty(ptr.shape[0] - 1, x.shape[1])
    _launch(x, ptr, order, ranks, out, means)
    return means, out


def _is_for_portable(x: Tensor, ranks: Tensor) -> bool:
    """Return whether columns are too few for so many nodes, or too long to be counted in 32 bits."""
    nodes, columns = x.shape[0], ranks.shape[0] * x.shape[1]
    return nodes >= 2**31 or (nodes > LONG and columns < COLUMNS * ranks.shape[1])


def _launch(
    x: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor, out: Tensor, means: Tensor | None
) -> None:
    from readouts.kernels.triton import ranks as kernels

    (nodes, features), size = x.shape, ptr.shape[0] - 1
    ranks = ranks.expand(size, -1).contiguous()
    ptr, results = ptr.contiguous(), bits_of(out)
    launch(
        x.device,
        kernels.select,
        -(-size * features // WIDTH),
        bits_of(x),
        ptr if order is None else order.expand(nodes).contiguous(),
        ptr,
        ranks,
        results,
        results if means is None else bits_of(means),
        nodes,
        size,
        features,
        ranks.shape[1],
        MANTISSA=MANTISSA[x.dtype],
        BITS=8 * x.element_size(),
        WIDTH=WIDTH,
        ORDERED=order is not None,
        MEANS=means is not None,
        num_warps=1,
        enable_fp_fusion=False,
    )
