"""Grouping on CUDA devices, in Triton: nodes are counted and placed, not sorted.

One launch counts the nodes of every graph, PyTorch adds the counts up to offsets, and a second launch gives
every node the next free place of its graph. Both use integer atomics, so the order of the nodes of a graph
may differ from call to call; exact results do not depend on it. Nodes that are sorted by graph keep their
places: the first launch sets a flag if they are not, which the second reads on the device.

An index that is out of range counts as graph `size`. So no access leaves the tensors, `order` has every node
once, and all indices are right if the offset of graph `size` is the number of nodes.

`counts` holds a zero, the counts of the graphs, that of graph `size`, whether nodes are unsorted, and whether
all indices are right.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from readouts.kernels.portable import grouping as portable
from readouts.kernels.portable.grouping import expand_ptr, ranks
from readouts.kernels.triton.elementary import has_triton
from readouts.reductions import INDEX_DTYPES

__all__ = ["expand_ptr", "group", "ranks", "supports"]
TILE = 256  # nodes of a program


def supports(dtype: torch.dtype) -> bool:
    """Return whether an index of this dtype can be grouped; requires Triton."""
    return dtype in INDEX_DTYPES and has_triton()


def group(index: Tensor, size: int) -> tuple[Tensor, Tensor | None]:
    """Return ptr [B + 1] and order [N], int64; see `readouts.ops.group`.

    With deterministic algorithms nodes are sorted, so that `Segments.order`, which is public, is always the
    same.
    """
    if torch.are_deterministic_algorithms_enabled():
        return portable.group(index.long(), size)
    index, nodes = index.contiguous(), index.shape[0]
    counts, order = index.new_zeros(size + 4, dtype=torch.int64), index.new_empty(nodes, dtype=torch.int64)
    if nodes == 0:
        return counts[: size + 1], order
    from readouts.kernels.triton import placing

    options = {"TILE": TILE, "num_warps": 1, "enable_fp_fusion": False}
    grid = (-(-nodes // TILE),)
    with torch.cuda.device(index.device) if index.is_cuda else contextlib.nullcontext():
        placing.count_nodes[grid](index, counts, nodes, size, **options)
        ptr = counts[: size + 1].cumsum(0)
        placing.place_nodes[grid](index, ptr, counts, order, nodes, size, **options)
        torch._assert_async(counts[size + 3], f"batch: expected graphs from 0 to {size - 1}")
    return ptr, order
