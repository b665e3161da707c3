"""The elementary reductions in the native core: one pass over x forward, one pass backward."""

from __future__ import annotations

import functools
from collections.abc import Sequence

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
from readouts.kernels.portable import elementary as portable
from readouts.reductions import result_dtype

KINDS = ("sum", "mean", "max", "min", "var", "std")  # as numbered in the core
NAMES = frozenset(KINDS)


def supports(dtype: torch.dtype) -> bool:
    """Return whether this module computes readouts of this dtype."""
    return dtype in DTYPES and is_available()


def reduce(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str]) -> Tensor:
    """Reduce the rows of x [N, F] that share an index to [B, R, F]; see `readouts.ops.reduce`."""
    if not x.is_floating_point():
        return _reduce_integers(x, index, ptr, order, names)
    (nodes, features), size = x.shape, ptr.shape[0] - 1
    kinds, blocks, _ = _entries(tuple(names))
    x, (ptr, order) = contiguous(x), graphs_ready(ptr, order, nodes)
    out = new_tensor(x, size, len(names), features)
    check(
        core.reduce(
            x.data_ptr(), DTYPES[x.dtype], nodes, features, ptr.data_ptr(), address(order), size,
            kinds, blocks, len(names), out.data_ptr(), threads_for(nodes * features),
        )
    )  # fmt: skip
    return out


def reduce_batch(x: Tensor, batch: Tensor, size: int, names: tuple[str, ...]) -> Tensor | None:
    """Reduce floats directly from a batch vector to [B, R * F]; None if an index is out of range."""
    nodes, features = x.shape
    kinds, blocks, _ = _entries(names)
    x, batch = contiguous(x), contiguous(batch)
    out = new_tensor(x, size, len(names) * features)
    status = core.reduce_batch(
        x.data_ptr(), DTYPES[x.dtype], nodes, features, batch.data_ptr(), batch.element_size(), size,
        kinds, blocks, len(names), out.data_ptr(), threads_for(nodes * features),
    )  # fmt: skip
    return out if status == 0 else None


def update(
    target: Tensor, rows: Tensor, ptr: Tensor, order: Tensor | None, name: str, include_self: bool
) -> None:
    """Reduce rows [E, F] into those rows of target [M, F] that have any; see `readouts.ops.scatter`."""
    (size, features), sources = target.shape, rows.shape[0]
    rows, (ptr, order), positions = contiguous(rows), graphs_ready(ptr, order, sources), sources
    if include_self and not (name == "sum" and is_zero(target)):
        listed, offsets = torch.empty(sources + size, dtype=torch.int64), torch.empty_like(ptr)
        check(
            core.list_old(
                ptr.data_ptr(), address(order), size, sources, offsets.data_ptr(), listed.data_ptr()
            )
        )
        ptr, order, positions = offsets, listed, int(offsets[-1])
    check(
        core.update(
            rows.data_ptr(), DTYPES[rows.dtype], sources, features, ptr.data_ptr(), address(order), positions,
            size, KINDS.index(name), target.data_ptr(), threads_for(positions * features),
        )
    )  # fmt: skip


def add_rows(target: Tensor, rows: Tensor, index: Tensor) -> bool:
    """Add rows [E, F] to the rows of target [M, F] that an index [E] names; False where `update` is faster.

    Raises:
        IndexError: an index is negative or not below M.
    """
    (size, features), sources = target.shape, rows.shape[0]
    rows, index = contiguous(rows), contiguous(index)
    status = core.add_rows(
        rows.data_ptr(), DTYPES[rows.dtype], sources, features, index.data_ptr(), index.element_size(), size,
        target.data_ptr(), threads_for(sources * features),
    )  # fmt: skip
    check(status)
    return status == 0


def is_zero(tensor: Tensor) -> bool:
    """Return whether every entry of a contiguous tensor is +0."""
    return bool(core.is_zero(tensor.data_ptr(), tensor.numel() * tensor.element_size()))


def _reduce_integers(
    x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str]
) -> Tensor:
    (nodes, features), size = x.shape, ptr.shape[0] - 1
    dtype = functools.reduce(torch.promote_types, (result_dtype(name, x.dtype) for name in names))
    if dtype in (torch.float16, torch.bfloat16):  # the default dtype has 16 bits
        return portable.reduce(x, index, ptr, order, names)
    x, (ptr, order) = contiguous(x), graphs_ready(ptr, order, nodes)
    out = new_tensor(x, size, len(names), features, dtype=dtype)
    for block, name in enumerate(names):
        place = out.data_ptr() + block * features * dtype.itemsize
        check(
            core.reduce_integers(
                x.data_ptr(), DTYPES[x.dtype], DTYPES[dtype], nodes, features, ptr.data_ptr(), address(order),
                size, KINDS.index(name), place, len(names) * features, threads_for(nodes * features),
            )
        )  # fmt: skip
    return out


def reduce_backward(
    grad: Tensor,
    x: Tensor | None,
    out: Tensor | None,
    index: Tensor,
    ptr: Tensor,
    order: Tensor | None,
    names: Sequence[str],
) -> Tensor:
    """Return the gradient [N, F] of `reduce` for x; see `readouts.ops.reduce_backward`."""
    kinds, blocks, _ = _entries(tuple(names))
    nodes, features, dtype = index.shape[0], grad.shape[2], grad.dtype
    index, (ptr, order) = ready("batch", index, (nodes,), torch.int64), graphs_ready(ptr, order, nodes)
    size = ptr.shape[0] - 1
    shape = size, len(names), features
    grad = ready("grad", grad, shape, dtype)
    x = None if x is None else ready("x", x, (nodes, features), dtype)
    out = None if out is None else ready("out", out, shape, dtype)
    result = new_tensor(grad, nodes, features)
    check(
        core.reduce_backward(
            grad.data_ptr(), address(x), address(out), DTYPES[grad.dtype], nodes, features, ptr.data_ptr(),
            address(order), index.data_ptr(), size, kinds, blocks, len(names), result.data_ptr(),
            threads_for(nodes * features),
        )
    )  # fmt: skip
    return result


def reduce_backward_batch(
    grad: Tensor, x: Tensor | None, out: Tensor | None, batch: Tensor, size: int, names: tuple[str, ...]
) -> Tensor:
    """Return the gradient [N, F] of `reduce_batch` for x, given that of its output [B, R * F]."""
    kinds, blocks, _ = _entries(names)
    nodes, features, dtype = batch.shape[0], grad.shape[1] // len(names), grad.dtype
    shape, wide = (size, len(names) * features), torch.int32 if batch.dtype == torch.int32 else torch.int64
    grad, batch = ready("grad", grad, shape, dtype), ready("batch", batch, (nodes,), wide)
    x = None if x is None else ready("x", x, (nodes, features), dtype)
    out = None if out is None else ready("out", out, shape, dtype)
    result = new_tensor(grad, nodes, features)
    check(
        core.reduce_backward_batch(
            grad.data_ptr(), address(x), address(out), DTYPES[grad.dtype], nodes, features, batch.data_ptr(),
            batch.element_size(), size, kinds, blocks, len(names), result.data_ptr(),
            threads_for(nodes * features),
        )
    )  # fmt: skip
    return result


@functools.cache
def _entries(names: tuple[str, ...]) -> tuple[int, int, Tensor]:
    """Return the addresses of the reductions' numbers, ascending, and of their blocks.

    The third value is the table behind both addresses, kept alive by the cache.
    """
    places = sorted((KINDS.index(name), block) for block, name in enumerate(names))
    table = torch.tensor(list(zip(*places, strict=True)), dtype=torch.int64)
    return table[0].data_ptr(), table[1].data_ptr(), table
