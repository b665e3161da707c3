"""Gradients of nodes, computed block by block, and equal shares for tied nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from readouts.distributed.nodes import RankNodes
from readouts.numerics.rounding import narrowed

ELEMENTS = 2**17  # of a block, so that it stays in the cache


def count_ties(rows: Tensor, values: Tensor, shard: RankNodes) -> Tensor:
    """Count the nodes of all ranks tied at the values [B, K, F] of their graphs, in one message."""
    ties = torch.zeros(values.shape, dtype=torch.int64, device=values.device)
    for some, graphs in blocks(rows, shard.index):
        for number, block in zip(ties.unbind(1), values.unbind(1), strict=True):
            add_up(number, is_tied(some, block[graphs]), graphs)
    return shard.ranks.sum(ties)[0]


def add_up(numbers: Tensor, mask: Tensor, index: Tensor) -> None:
    """Add to the counts [B, F] of graphs the nodes where a mask [N, F] is set."""
    numbers.scatter_add_(0, index.unsqueeze(1).expand(mask.shape), mask.long())


def gradients(rows: Tensor, index: Tensor, compute: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the gradients [N, F] that compute(rows, index) returns in float64, rounded once."""
    result = torch.empty_like(rows, memory_format=torch.contiguous_format)
    for target, some, graphs in blocks(result, rows, index):
        target.copy_(narrowed(compute(some, graphs), rows.dtype))
    return result


def shares(rows: Tensor, index: Tensor, values: Tensor, slopes: Tensor) -> Tensor:
    """Return float64 [N, F]: the slope of its graph for a node tied at the value [B, F], else 0."""
    return torch.where(is_tied(rows, values[index]), slopes[index], 0)


def is_tied(rows: Tensor, values: Tensor) -> Tensor:
    """Return where two tensors are equal; NaN equals NaN."""
    same = rows == values
    return same | (rows.isnan() & values.isnan()) if rows.is_floating_point() else same


def blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Split tensors of nodes, the first of them [N, F], into blocks of a few nodes."""
    length = max(1, ELEMENTS // max(tensors[0].shape[1], 1))
    return zip(*(tensor.split(length) for tensor in tensors), strict=True)
