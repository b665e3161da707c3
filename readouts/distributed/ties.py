"""What nodes get: gradients block by block, and equal shares for those that have the value of their graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from readouts.distributed.nodes import RankNodes
from readouts.numerics.rounding import narrowed

ELEMENTS = 2**17  # that are worked on at once, in the cache


def count_ties(rows: Tensor, values: Tensor, shard: RankNodes) -> Tensor:
    """Count the nodes of all ranks that have the values [B, K, F] of their graphs, in one message."""
    ties = torch.zeros(values.shape, dtype=torch.int64, device=values.device)
    for some, graphs in blocks(rows, shard.index):
        for number, block in zip(ties.unbind(1), values.unbind(1), strict=True):
            add_up(number, is_tied(some, block[graphs]), graphs)
    return shard.ranks.sum(ties)[0]


def add_up(numbers: Tensor, mask: Tensor, index: Tensor) -> None:
    """Count the nodes [N, F] where a mask is set into the numbers [B, F] of their graphs."""
    numbers.scatter_add_(0, index.unsqueeze(1).expand(mask.shape), mask.long())


def gradients(rows: Tensor, index: Tensor, compute: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the gradients [N, F] of nodes, which compute(rows, index) gives in float64, rounded once."""
    result = torch.empty_like(rows, memory_format=torch.contiguous_format)
    for target, some, graphs in blocks(result, rows, index):
        target.copy_(narrowed(compute(some, graphs), rows.dtype))
    return result


def shares(rows: Tensor, index: Tensor, values: Tensor, slopes: Tensor) -> Tensor:
    """Give the nodes that have the values [B, F] of their graphs these slopes, in float64 [N, F]."""
    return torch.where(is_tied(rows, values[index]), slopes[index], 0)


def is_tied(rows: Tensor, values: Tensor) -> Tensor:
    """Return where two tensors have the same value, NaN being one."""
    same = rows == values
    return same | (rows.isnan() & values.isnan()) if rows.is_floating_point() else same


def blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Return tensors of nodes, the first [N, F], a few nodes after the other."""
    length = max(1, ELEMENTS // max(tensors[0].shape[1], 1))
    return zip(*(tensor.split(length) for tensor in tensors), strict=True)
