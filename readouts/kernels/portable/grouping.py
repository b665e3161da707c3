"""Grouping in PyTorch: offsets of graphs, nodes sorted by graph, ranks of rows."""

from __future__ import annotations

import torch
from torch import Tensor


def supports(dtype: torch.dtype) -> bool:
    """Return whether an index of this dtype can be grouped."""
    return dtype == torch.int64


def group(index: Tensor, size: int) -> tuple[Tensor, Tensor | None]:
    """Return ptr [B + 1] and order [N], int64; see `readouts.ops.group`.

    On CUDA, `scatter_add_` asserts on the device that no index is negative or above `size`, but not with
    deterministic algorithms, where -1 would be the last graph.
    """
    is_sorted = False
    if index.device.type == "cpu":
        least, largest = (int(bound) for bound in index.aminmax()) if len(index) else (0, -1)
        if least < 0 or largest >= size:
            raise index_error(least, largest, size)
        is_sorted = bool((index[1:] >= index[:-1]).all())
    elif index.device.type == "cuda" and torch.are_deterministic_algorithms_enabled():
        torch._assert_async(((index >= 0) & (index < size)).all(), f"batch: expected graphs below {size}")
    ptr = index.new_zeros(size + 1)
    ptr[1:].scatter_add_(0, index, torch.ones_like(index))
    return ptr.cumsum_(0), None if is_sorted else index.argsort(stable=True)


def index_error(least: int, largest: int, size: int) -> IndexError:
    """Return the error for an index that is negative or not below `size`."""
    wrong = least if least < 0 else largest
    return IndexError(f"batch: expected graphs from 0 to {size - 1} (size {size}), got {wrong}")


def expand_ptr(ptr: Tensor, num_nodes: int) -> Tensor:
    """Return the graph of every node, int64 [N]; see `readouts.ops.expand_ptr`."""
    fits = (ptr[0] == 0) & (ptr[-1] == num_nodes) & (ptr[1:] >= ptr[:-1]).all()
    if ptr.device.type == "cuda":
        torch._assert_async(fits, "ptr: expected offsets from 0 to the number of nodes that do not decrease")
    elif ptr.device.type == "cpu" and not fits:
        raise ptr_error(ptr, num_nodes)
    nodes = torch.arange(num_nodes, device=ptr.device)
    return torch.bucketize(nodes, ptr[1:].contiguous(), right=True)


def ptr_error(ptr: Tensor, num_nodes: int) -> ValueError:
    """Return the error for offsets that decrease or do not run from 0 to the number of nodes."""
    if ptr[0] != 0 or ptr[-1] != num_nodes:
        ends = f"{int(ptr[0])} to {int(ptr[-1])}"
        return ValueError(f"ptr: expected offsets from 0 to the number of nodes {num_nodes}, got {ends}")
    first = int((ptr[1:] < ptr[:-1]).nonzero()[0])
    steps = f"{int(ptr[first])} before {int(ptr[first + 1])} at position {first + 1}"
    return ValueError(f"ptr: expected offsets that do not decrease, got {steps}")


def ranks(x: Tensor, index: Tensor) -> Tensor:
    """Number the distinct rows of x [N, F], graph by graph; see `readouts.ops.ranks`."""
    rank = torch.zeros_like(index)
    for column in (-index, *reversed(x.unbind(1))):
        order = column.argsort(descending=True, stable=True)
        order = order[rank[order].argsort(stable=True)]
        value, group = column[order], rank[order]
        same = (value[1:] == value[:-1]) | (value[1:].isnan() & value[:-1].isnan())
        new = ~same | (group[1:] != group[:-1])
        rank[order[1:]] = new.cumsum(0)
        rank[order[:1]] = 0
        if new.all():
            break
    return rank
