"""Order statistics on the CPU, LANES features at a time, in Numba, on all threads.

Numbers become integers in the same order, with -0 below +0. The columns of a graph of up to
SORTED nodes are sorted where they lie in the cache, by a network of minima and maxima of whole vectors,
which has no branches. Larger graphs are not sorted: the bits of an order statistic are found from the first
to the last, two in a pass, by counting how many numbers lie below three candidates; that of the next
rank then takes one pass. A NaN is the least or the largest number of its column.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from readouts.kernels import cpu, selection_loops
from readouts.kernels.cpu import supports
from readouts.kernels.threads import run_in_parallel
from readouts.kernels.vectors import LANES

__all__ = ["keep", "midpoint", "select", "spread", "supports"]
EFFORT = 8  # work of an element, that of a sum being 1


def select(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor) -> Tensor:
    """Return the order statistics [B, K, F] with these ranks [B, K]; see `readouts.ops.select`."""
    return _select(x, ptr, order, ranks, means=x.new_empty(0, x.shape[1]))


def midpoint(
    x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the means [B, F] of two order statistics, and these [B, 2, F]."""
    means = cpu.new_tensor((len(ranks), x.shape[1]), x.dtype)
    return means, _select(x, ptr, order, ranks, means)


def _select(x: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor, means: Tensor) -> Tensor:
    out = cpu.new_tensor((*ranks.shape, x.shape[1]), x.dtype)
    columns = _Columns(x, ptr, order)
    targets = cpu.as_array(out), cpu.as_array(means), columns.scratch()
    fixed = ranks.contiguous().numpy(), columns.layout, *targets
    columns.run(lambda share, task: selection_loops.select(*columns.rows, *fixed, *share, task))
    empty = ptr.diff() == 0
    if empty.any():
        out[empty] = 0
        means[empty[: len(means)]] = 0
    return out


def keep(
    x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the values that trimming keeps, as `readouts.kernels.portable.order.keep` does, in any order."""
    kept = cpu.new_tensor((len(x), x.shape[1]), x.dtype)
    borders = torch.cat([ptr[:1], (ptr.diff() - 2 * cut).cumsum(0), ptr[-1:]])
    kept[borders[-2] :] = 0
    columns = _Columns(x, ptr, order)
    limits = cpu.as_array(bounds), cut.numpy(), borders.numpy()
    fixed = columns.layout, cpu.as_array(kept), columns.scratch()
    columns.run(lambda share, task: selection_loops.keep(*columns.rows, *limits, *fixed, *share, task))
    return kept, borders


def spread(
    grad: Tensor, x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> Tensor:
    """Return the gradient [N, F] of the trimmed mean, given that of its output [B, F]."""
    result = cpu.new_tensor((len(x), x.shape[1]), x.dtype)
    columns = _Columns(x, ptr, order)
    fixed = cpu.as_array(bounds), cut.numpy(), cpu.as_array(grad), columns.layout, cpu.as_array(result)
    columns.run(lambda share, task: selection_loops.spread(*columns.rows, *fixed, *share))
    return result


class _Columns:
    """The columns of a batch, LANES side by side, shared out to tasks."""

    def __init__(self, x: Tensor, ptr: Tensor, order: Tensor | None) -> None:
        self.layout = cpu.LAYOUTS[x.dtype]
        self.rows = cpu.as_array(x), ptr.contiguous().numpy(), cpu.positions_of(order)
        self.length = len(x) * -(-x.shape[1] // LANES)
        self.tasks = min(cpu.tasks_for(EFFORT * x.numel()), self.length)
        self.integers = np.int64 if x.dtype == torch.float64 else np.int32

    def scratch(self) -> Any:
        """Return memory for every task to sort in."""
        return np.empty((self.tasks * selection_loops.SORTED, LANES), self.integers)

    def run(self, work: Callable[[tuple[int, int], int], object]) -> None:
        """Call work(share, task) for every task."""
        shares = [cpu.share_of(task, self.tasks, self.length) for task in range(self.tasks)]
        run_in_parallel(lambda task: work(shares[task], task), self.tasks)
