"""The operators that assign nodes to graphs: group, expand_ptr, ranks."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from readouts.kernels import onnx
from readouts.kernels.native import grouping as native
from readouts.kernels.portable import grouping
from readouts.ops.registry import Operator, is_direct, is_plain, kernel_for

MANY = 2**28  # graphs whose offsets take 2 GB


def group(index: Tensor, size: int) -> tuple[Tensor, Tensor | None]:
    """Return ptr [B + 1] and order [N], int64: graph b has the nodes order[ptr[b] : ptr[b + 1]].

    On CUDA, unless PyTorch's deterministic algorithms are in use, the nodes of a graph are in any order;
    elsewhere they ascend. In eager mode on the CPU, order is None if the nodes are already sorted by graph.

    Raises:
        IndexError: on the CPU, if an index is negative or not below `size`.
        ValueError: the machine has no memory for so many offsets.
    """
    if type(size) is int and not torch.compiler.is_compiling() and size > MANY:
        _check_memory(size)
    if is_direct(index):
        return kernel_for(index.device, index.dtype, "grouping").group(index, size)
    return _GROUP(index, size)


def greatest(index: Tensor) -> int:
    """Return the greatest entry of a non-empty index; makes the CPU wait for a GPU."""
    if is_plain(index) and native.supports(index.dtype):
        return native.greatest(index)
    return index.max().item()  # type: ignore[return-value]  # a symbol while tracing


def check_greatest(greatest: int, nodes: int) -> None:
    """Raise an IndexError if the greatest index, of a batch of unknown size, would waste gigabytes."""
    if type(greatest) is int and not torch.compiler.is_compiling() and greatest >= max(MANY, 16 * nodes):
        raise IndexError(
            f"batch: expected graphs that are numbered from 0 on, got {greatest} for {nodes} nodes; "
            "torch.unique(batch, return_inverse=True) numbers them, or pass their number"
        )


def _check_memory(size: int) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 32 * size > memory:  # offsets, a copy of them, and a result
        raise ValueError(
            f"size: expected a number of graphs that fits into {memory >> 30} GB of memory, "
            f"got {size}; are the graphs of the batch numbered from 0 on?"
        )


def expand_ptr(ptr: Tensor, num_nodes: int) -> Tensor:
    """Return the graph of every node, int64 [N], from the offsets of the graphs, int64 [B + 1].

    Raises:
        ValueError: on the CPU, if ptr decreases or does not run from 0 to `num_nodes`.
    """
    return _EXPAND_PTR(ptr, num_nodes)


def ranks(x: Tensor, index: Tensor) -> Tensor:
    """Number the distinct rows of x [N, F], graph by graph and from the greatest down: int64 [N].

    Rows are compared by their last feature, ties by the one before it, and so on. NaN is the greatest.
    """
    return _RANKS(x, index)


def _group(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    ptr, order = kernel_for(index.device, index.dtype, "grouping").group(index, size)
    return ptr, torch.arange(len(index), device=index.device) if order is None else order


def _expand_ptr(ptr: Tensor, num_nodes: int) -> Tensor:
    return kernel_for(ptr.device, ptr.dtype, "grouping").expand_ptr(ptr, num_nodes)


_GROUP = Operator(
    "group(Tensor index, SymInt size) -> (Tensor, Tensor)",
    _group,
    lambda index, size: (index.new_empty(size + 1), torch.empty_like(index)),
    onnx=onnx.group,
)
_EXPAND_PTR = Operator(
    "expand_ptr(Tensor ptr, SymInt num_nodes) -> Tensor",
    _expand_ptr,
    lambda ptr, num_nodes: ptr.new_empty(num_nodes),
    onnx=onnx.expand_ptr,
)
_RANKS = Operator(
    "ranks(Tensor x, Tensor index) -> Tensor",
    grouping.ranks,
    lambda x, index: torch.empty_like(index),
    onnx=onnx.refusal("sorted nodes"),
)
