"""The elementary reductions on the CPU, fused: one pass over x, in Numba, on all threads.

How a sum is exact at the speed of memory: a tile of rows is added up in float64, and beside it the
largest and the least nonzero magnitude are tracked. With |x| < 2**e, every x a multiple of 2**q and
n <= 2**k rows, no addition can round if e + k - q <= 53: the tile's sum is certified. If it is not,
and always for float64, a second look at the tile, which is still in the cache, splits every value in
three by pre-rounding (`readouts.kernels.portable.limbs`), and checks that nothing is left. The sums of tiles
are merged in three float64 numbers with the error of every addition, so it does not matter where
tiles, threads and graphs are cut: the three are the exact sum, and are rounded once. Variances take
a second pass over the rows of a graph, with the squares of the deviations instead of the values.

Wider ranges than that are left to `readouts.kernels.portable`, graph by graph.

The greatest and least values come from the bit patterns as integers: read as signed, the largest is
the greatest value if that is not negative, and read as unsigned the largest is the least value if
that is negative; the least unsigned is the other end in both cases. So -0 is below +0. 16-bit floats
are read as float32, which changes nothing.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from llvmlite import binding
from torch import Tensor

from readouts.kernels import compiled
from readouts.kernels.portable import elementary as portable
from readouts.kernels.threads import run_in_parallel
from readouts.kernels.vectors import LANES
from readouts.reductions import ELEMENTARY

GRAIN = 2**18  # elements that are worth a thread
HUGE = 2**22  # bytes from which NumPy asks for huge pages
_IN_ORDER = np.empty(0, np.int64)
# digits, exponent of the least number, certified range; bits: of the mantissa, magnitude, infinity; bias
LAYOUTS = {
    torch.float64: (53, -1074, -1, 52, 2**63 - 1, 0x7FF << 52, 8),
    torch.float32: (24, -149, 22, 23, 2**31 - 1, 0xFF << 23, 904),
    torch.bfloat16: (8, -133, 38, 23, 2**31 - 1, 0xFF << 23, 904),
    torch.float16: (11, -24, 300, 23, 2**31 - 1, 0xFF << 23, 904),  # sums of 2**7 are exact in float64
}


def supports(dtype: torch.dtype) -> bool:
    """Return whether this file computes readouts of this dtype on this machine."""
    return dtype in LAYOUTS and (dtype != torch.float16 or _converts_float16())


def _converts_float16() -> bool:
    return platform.machine() not in ("x86_64", "AMD64") or bool(binding.get_host_cpu_features().get("f16c"))


def reduce(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str]) -> Tensor:
    """Reduce the rows of x [N, F] that share an index to [B, R, F]; see `readouts.ops.reduce`."""
    out = new_tensor((len(ptr) - 1, len(names), x.shape[1]), x.dtype)
    hard, _ = _forward(x, ptr, order, names, out)
    if hard is not None:
        nodes, places, offsets = _part(hard, index)
        out[hard] = portable.reduce(x[nodes], places, offsets, None, names)
    return out


def _forward(
    x: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str], out: Tensor
) -> tuple[Tensor | None, Any]:
    """Fill `out`; return which graphs are beyond this kernel, and [B, 2, F] means and variances.

    The first is None if there are no such graphs, the second is empty without var and std.
    """
    size, features = len(ptr) - 1, x.shape[1]
    entries, rows = _entries(tuple(names)), as_array(x)
    squared = entries[0, -1] >= compiled.VAR
    slots = -(-features // LANES) * LANES
    hard, moments = np.zeros(size, np.uint8), np.zeros((size if squared else 0, 2, max(features, LANES)))
    tasks = tasks_for(x.numel())
    integers = np.int64 if x.dtype == torch.float64 else np.int32
    cut_graphs = np.empty((tasks, 2), np.int64)
    sums, extremes = np.empty((tasks, 3, 5, slots)), np.empty((tasks, 3, 4, slots), integers)
    borders = ptr.numpy(), positions_of(order)
    job = True, LAYOUTS[x.dtype], entries, as_array(out), moments, hard
    scratch = cut_graphs, sums, extremes, np.empty((tasks, 3, slots))

    def run(task: int) -> None:
        compiled.forward(rows, *borders, *job, *share_of(task, tasks, len(rows)), task, *scratch)

    def run_squares(task: int) -> None:
        share = share_of(task, tasks, len(rows))
        compiled.forward_squares(rows, *borders, True, moments, *share, task, cut_graphs, sums)

    run_in_parallel(run, tasks)
    if tasks > 1:
        compiled.merge(borders[0], False, *job, *scratch)
        if squared:
            run_in_parallel(run_squares, tasks)
            compiled.merge(borders[0], True, *job, *scratch)
    some = compiled.clear_empty(borders[0], job[3], hard)
    return torch.from_numpy(hard.view(np.bool_)) if some else None, moments


def reduce_backward(
    grad: Tensor,
    x: Tensor | None,
    out: Tensor | None,
    index: Tensor,
    ptr: Tensor,
    order: Tensor | None,
    names: Sequence[str],
) -> Tensor:
    """Return the gradient [N, F] of `reduce` for x, given that of its output and `out` [B, R, F] itself.

    `x` and `out` may be None where the reductions asked for do not need them.
    """
    entries, result = _entries(tuple(names)), new_tensor((len(index), grad.shape[2]), grad.dtype)
    layout, slopes = LAYOUTS[grad.dtype], as_array(grad)
    if entries[0, -1] <= compiled.MEAN:
        table = new_tensor((len(ptr) - 1, grad.shape[2]), grad.dtype)
        shares = np.empty((len(names) + 1, LANES))
        compiled.flat_gradients(ptr.numpy(), entries, layout, slopes, as_array(table), shares)
        _copy_rows(table, index, result)
        return result
    assert x is not None
    hard, moments = None, np.empty((0, 2, LANES))
    if entries[0, -1] >= compiled.VAR:
        hard, moments = _forward(x, ptr, order, ("var",), new_tensor((len(ptr) - 1, 1, x.shape[1]), x.dtype))
        np.sqrt(moments[:, 1], out=moments[:, 1])
    tasks = tasks_for(x.numel())
    rows, winners = as_array(x), slopes if out is None else as_array(out)
    fixed, target = (rows, ptr.numpy(), positions_of(order), entries), as_array(result)
    cut_graphs = np.full((tasks, 2), -1)
    slots = -(-x.shape[1] // LANES) * LANES
    ties, shares = np.zeros((tasks, 2, len(names), slots)), np.empty((tasks, len(names) + 1, slots))

    def count_ties(task: int) -> None:
        compiled.cut_ties(*fixed, winners, *share_of(task, tasks, len(rows)), task, cut_graphs, ties)

    def run(task: int) -> None:
        share = share_of(task, tasks, len(rows))
        compiled.backward(
            *fixed, layout, winners, moments, slopes, target, *share, task, cut_graphs, ties, shares
        )

    if tasks > 1 and out is not None:
        run_in_parallel(count_ties, tasks)
    run_in_parallel(run, tasks)
    if hard is not None:
        nodes, places, offsets = _part(hard, index)
        winner = None if out is None else out[hard]
        result[nodes] = portable.reduce_backward(grad[hard], x[nodes], winner, places, offsets, None, names)
    return result


def _copy_rows(table: Tensor, index: Tensor, result: Tensor) -> None:
    """Give every node the row of its graph."""
    source, graphs, target = as_array(table), index.contiguous().numpy(), as_array(result)
    tasks = tasks_for(result.numel())

    def run(task: int) -> None:
        if not compiled.copy_rows(source, graphs, target, *share_of(task, tasks, len(index))):
            raise IndexError("batch: expected the graphs that were there when it was read, got others")

    run_in_parallel(run, tasks)


def _part(graphs: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the nodes of some graphs, and index and ptr of these graphs alone."""
    nodes = graphs[index].nonzero().view(-1)
    places = (graphs.cumsum(0) - 1)[index[nodes]]
    count = torch.bincount(places, minlength=int(graphs.sum()))
    return nodes, places, torch.nn.functional.pad(count.cumsum(0), (1, 0))


def new_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor.

    NumPy asks the system for huge pages, PyTorch does not: the first touch of its pages takes several
    times as long as reading x.
    """
    size = math.prod(shape)
    if size * dtype.itemsize < HUGE:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(np.empty(size * dtype.itemsize, np.uint8)).view(dtype).view(shape)


def as_array(x: Tensor) -> Any:
    """Return the memory of a tensor as `readouts.kernels.vectors` reads it."""
    x = x.detach() if x.is_contiguous() else x.detach().contiguous()
    if x.dtype == torch.float16:
        return x.view(torch.int16).numpy().view(np.uint16)
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()


def positions_of(order: Tensor | None) -> Any:
    """Return the order of the nodes as an array, an empty one where they lie graph by graph."""
    return _IN_ORDER if order is None else order.numpy()


@lru_cache
def _entries(names: tuple[str, ...]) -> Any:
    """Return the reductions' places in ELEMENTARY, in ascending order, and their blocks: [2, R]."""
    places = sorted((ELEMENTARY.index(name), block) for block, name in enumerate(names))
    return np.array([[kind for kind, _ in places], [block for _, block in places]])


def tasks_for(elements: int) -> int:
    """Return into how many tasks the work on so many elements is to be divided."""
    return max(1, min(torch.get_num_threads(), elements // GRAIN))


def share_of(task: int, tasks: int, rows: int) -> tuple[int, int]:
    """Return the first row of a task and that after its last."""
    return rows * task // tasks, rows * (task + 1) // tasks
