"""Sum, mean, max and min on the CPU, fused: one pass over x, in Numba, on all threads.

How a sum is exact at the speed of memory: a tile of rows is added up in float64, and beside it the
largest and the least nonzero magnitude are tracked. With |x| < 2**e, every x a multiple of 2**q and
n <= 2**k rows, no addition can round if e + k - q <= 53: the tile's sum is certified. If it is not,
a second look at the tile, which is still in the cache, splits every value by pre-rounding
(`readouts.kernels.exact`) and certifies both halves, which covers ranges of more than 60 bits.
float64 values are added in two numbers with the error of every addition, certified by an error of
the errors that is zero. Sums of tiles are merged in the same way, so it does not matter where
tiles, threads and graphs are cut: hi + lo is the exact sum, and is rounded once.

Graphs with NaN, infinities or still wider ranges are left to `readouts.kernels.plain`, and so are
the reductions and dtypes that are not in `supports`.

The greatest and least values come from the bit patterns as integers: read as signed, the largest is
the greatest value if that is not negative, and read as unsigned the largest is the least value if
that is negative; the least unsigned is the other end in both cases. So -0 is below +0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from readouts.kernels import compiled, plain
from readouts.kernels.threads import run_in_parallel

NAMES = ("sum", "mean", "max", "min")
GRAIN = 2**18  # elements that are worth a thread


def supports(dtype: torch.dtype, reduce: Sequence[str]) -> bool:
    """Tell whether this file computes these reductions, each at most once, of this dtype."""
    known = set(reduce).issubset(NAMES) and len(set(reduce)) == len(reduce)
    return known and dtype in (torch.float32, torch.float64)


def reduce(x: Tensor, index: Tensor, count: Tensor, reduce: Sequence[str], exact: bool) -> Tensor:
    """Reduce the rows of x [N, F] that share an index to [B, R, F]; see `readouts.ops.reduce`."""
    out = x.new_zeros(len(count), len(reduce), x.shape[1])
    hard = np.zeros(len(count), np.bool_)
    ptr, order = _grouped(index, count)
    rows, results = x.detach().contiguous().numpy(), out.numpy()
    signed, unsigned = (np.int32, np.uint32) if x.dtype == torch.float32 else (np.int64, np.uint64)
    infinity = np.array(np.inf, rows.dtype).view(unsigned)[()]
    limits = unsigned(np.iinfo(signed).max), infinity, np.iinfo(unsigned).max, np.iinfo(signed).min
    outputs = results, results.view(unsigned), _columns(reduce), hard, limits
    tasks = _tasks(x.numel())
    cuts = (
        np.full((tasks, 2), -1),  # graphs that the borders of a task cut: the first and the last, -1 for none
        np.empty((tasks, 2, 3, x.shape[1])),
        np.empty((tasks, 2, x.shape[1]), signed),
        np.empty((tasks, 2, 2, x.shape[1]), unsigned),
    )

    def run(task: int) -> None:
        inputs = rows, rows.view(signed), rows.view(unsigned), ptr, order, exact
        compiled.forward(*inputs, *outputs, *_share(task, tasks, len(rows)), task, *cuts)

    run_in_parallel(run, tasks)
    if tasks > 1:
        compiled.merge(ptr, *outputs, *cuts)
    if hard.any():
        _redo(out, torch.from_numpy(hard), x, index, count, reduce, exact)
    return out


def _redo(
    out: Tensor, hard: Tensor, x: Tensor, index: Tensor, count: Tensor, reduce: Sequence[str], exact: bool
) -> None:
    """Compute some graphs of `out` by the plain kernel."""
    rows = hard[index]
    place = hard.cumsum(0) - 1
    out[hard] = plain.reduce(x[rows], place[index[rows]], count[hard], reduce, exact)


def reduce_backward(
    grad: Tensor, x: Tensor | None, out: Tensor | None, index: Tensor, count: Tensor, reduce: Sequence[str]
) -> Tensor:
    """Return the gradient [N, F] of `reduce` for x, given that of its output and `out` [B, R, F] itself.

    `x` and `out` may be None where only sum and mean are asked for.
    """
    result = grad.new_empty(len(index), grad.shape[2])
    ptr, order = _grouped(index, count)
    tasks = _tasks(result.numel())
    columns = _columns(reduce)
    values = result if x is None else x.detach().contiguous()
    grad = grad.contiguous()
    results = grad if out is None else out.contiguous()
    fixed = values.numpy(), ptr, order, results.numpy(), columns
    cut_graphs, ties = np.full((tasks, 2), -1), np.zeros((tasks, 2, 2, result.shape[1]))

    def count_ties(task: int) -> None:
        compiled.cut_ties(*fixed, *_share(task, tasks, len(result)), task, cut_graphs, ties)

    def run(task: int) -> None:
        share = _share(task, tasks, len(result))
        compiled.backward(*fixed, grad.numpy(), result.numpy(), *share, cut_graphs, ties)

    if tasks > 1 and max(columns[2:]) >= 0:
        run_in_parallel(count_ties, tasks)
    run_in_parallel(run, tasks)
    return result


def _grouped(index: Tensor, count: Tensor) -> tuple[Any, Any]:
    """Return ptr [B + 1] and order [N], which is empty if the nodes are in order as they are."""
    ptr = np.zeros(len(count) + 1, np.int64)
    np.cumsum(count.numpy(), out=ptr[1:])
    order, sound = compiled.group(index.contiguous().numpy(), ptr)
    if not sound:
        raise IndexError(
            "batch: expected the graphs that were counted when the segments were made, got others"
        )
    return ptr, order


def _tasks(elements: int) -> int:
    return max(1, min(torch.get_num_threads(), elements // GRAIN))


def _share(task: int, tasks: int, rows: int) -> tuple[int, int]:
    """Return the first row of a task and that after its last."""
    return rows * task // tasks, rows * (task + 1) // tasks


def _columns(reduce: Sequence[str]) -> tuple[int, ...]:
    """Return the block of each of NAMES in the output, -1 for none."""
    return tuple(reduce.index(name) if name in reduce else -1 for name in NAMES)
