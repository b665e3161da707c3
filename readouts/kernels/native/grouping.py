"""Grouping in the native core."""

from __future__ import annotations

import torch
from torch import Tensor

from readouts.kernels.native.library import DTYPE_ERROR, INDEX_ERROR, PTR_ERROR, core, is_available
from readouts.kernels.native.memory import contiguous
from readouts.kernels.portable import grouping as portable
from readouts.reductions import INDEX_DTYPES


def supports(dtype: torch.dtype) -> bool:
    """Return whether an index of this dtype can be grouped."""
    return dtype in INDEX_DTYPES and is_available()


def group(index: Tensor, size: int) -> tuple[Tensor, Tensor | None]:
    """Return ptr [B + 1] and order [N], None if nodes are sorted by graph; see `readouts.ops.group`."""
    index = contiguous(index)
    nodes, width = index.shape[0], index.element_size()
    ptr = torch.empty(size + 1, dtype=torch.int64)
    status = core.group(index.data_ptr(), width, nodes, size, ptr.data_ptr())
    if status == 0:
        return ptr, None
    if status == 1:
        order = torch.zeros(nodes, dtype=torch.int64)
        status = core.order(index.data_ptr(), width, nodes, size, ptr.data_ptr(), order.data_ptr())
        if status == 0:
            return ptr, order
    least, largest = (int(bound) for bound in index.aminmax())
    raise portable.index_error(least, largest, size)


def greatest(index: Tensor) -> int:
    """Return the greatest entry of a non-empty index."""
    index = contiguous(index)
    return core.greatest(index.data_ptr(), index.element_size(), index.shape[0])


def expand_ptr(ptr: Tensor, num_nodes: int) -> Tensor:
    """Return the graph of every node, int64 [N]; see `readouts.ops.expand_ptr`."""
    ptr = contiguous(ptr)
    index = torch.empty(num_nodes, dtype=torch.int64)
    if core.expand_ptr(ptr.data_ptr(), ptr.shape[0] - 1, num_nodes, index.data_ptr()) == PTR_ERROR:
        raise portable.ptr_error(ptr, num_nodes)
    return index


def check(status: int) -> None:
    """Raise if the core reports that what was checked has changed since: an index, offsets or a dtype."""
    if status == INDEX_ERROR:
        raise IndexError("batch: expected the graphs that were there when it was read, got others")
    if status == PTR_ERROR:
        raise IndexError("ptr: expected the offsets that were there when it was read, got others")
    if status == DTYPE_ERROR:
        raise TypeError("x: expected the dtype that was there when it was checked, got another")
