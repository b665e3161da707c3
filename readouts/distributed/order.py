"""Order statistics over the nodes of all ranks, by bisection.

Numbers are mapped to integers in the same order, with -0 below +0. Every rank sorts its own nodes by graph
and value. Then all ranks bisect: in each round, they count the nodes at or below the middle and the quarters
of the remaining interval, by binary search on every rank and a sum over ranks. One message determines two
bits of the value, independently of the number of nodes, for all quantiles of all graphs and features at once.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from readouts.distributed.nodes import RankNodes, first_derivative
from readouts.distributed.sums import Sums, local_sums, sum_over
from readouts.distributed.ties import add_up, blocks, count_ties, gradients, is_tied, shares
from readouts.numerics.keys import NAN_KEY, keys_of, unsorted
from readouts.numerics.superaccumulator import carry
from readouts.reductions import result_dtype

MOST_NODES = 2**31
NOTHING = torch.iinfo(torch.int64).min  # below every key; inverted, above every key


def select(rows: Tensor, shard: RankNodes, ranks: Tensor) -> Tensor:
    """Return the order statistics [B, K, F] with these ranks [B, K] of the rows [N, F] of all ranks.

    For values, gradients and ranks out of range see `readouts.ops.select`. Messages: one for the least and
    greatest values; one for every two bits in which they differ; one for the ties if some rank wants
    gradients.
    """
    return _Select.apply(rows, shard, ranks)


def trimmed_mean(rows: Tensor, shard: RankNodes, cut: Tensor) -> Tensor:
    """Return the means [B, F] of the rows of all ranks without the `cut` [B] least and greatest values."""
    most = shard.count.amax() if shard.size else 0
    if most >= MOST_NODES:
        raise ValueError(f"batch: expected fewer than 2^31 nodes in a trimmed graph, got {int(most)}")
    return _TrimmedMean.apply(rows, shard, cut)


class _Select(torch.autograd.Function):
    """`select`; the gradient of a value is shared among its tied nodes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, shard: RankNodes, ranks: Tensor) -> Tensor:
        values = _bisect(rows, shard, ranks)
        ties = count_ties(rows, values, shard) if shard.wants_grad else None
        ctx.shard = shard
        ctx.save_for_backward(rows, values, ties)
        return values

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rows, values, ties = ctx.saved_tensors
        slopes = grad.double() / ties.clamp(min=1)

        def total(rows: Tensor, index: Tensor) -> Tensor:
            result = torch.zeros(rows.shape, dtype=torch.float64, device=rows.device)
            for value, slope in zip(values.unbind(1), slopes.unbind(1), strict=True):
                result += shares(rows, index, value, slope)
            return result

        return gradients(rows, ctx.shard.index, total), None, None


class _TrimmedMean(torch.autograd.Function):
    """`trimmed_mean`; nodes tied at the least or greatest kept value share its gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, shard: RankNodes, cut: Tensor) -> Tensor:
        kept = (shard.count - 2 * cut).clamp(min=1)
        low, high = _bisect(rows, shard, torch.stack([cut, shard.count - 1 - cut], dim=1)).unbind(1)
        index, size = shard.index, len(cut)
        inner = torch.where(_is_inside(rows, low[index], high[index]), rows, 0)
        limbs, format = sum_over(shard.ranks, inner, index, size)
        (numbers,) = shard.ranks.sum(_numbers(rows, low, high, shard))
        copies = _copies(low, high, numbers, kept.view(-1, 1), cut.view(-1, 1))
        for bound, number in zip((low, high), copies, strict=True):
            one = local_sums(bound, torch.arange(size, device=index.device), size)
            limbs[:-1] += one.limbs[:-1] * number
            carry(limbs)
        means = Sums(limbs, format).rounded(result_dtype("mean", rows.dtype), kept)
        special = low.double() + high.double()  # used if a bound is infinite or NaN
        ctx.shard = shard
        ctx.save_for_backward(rows, low, high, numbers, kept, cut)
        return torch.where(low.isfinite() & high.isfinite(), means, special.to(means.dtype))

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rows, low, high, numbers, kept, cut = ctx.saved_tensors
        kept, cut = kept.view(-1, 1), cut.view(-1, 1)
        slope = grad.double() / kept
        copies = _copies(low, high, numbers, kept, cut)
        ends = [slope * copy / ties.clamp(min=1) for copy, ties in zip(copies, numbers[:2], strict=True)]

        def total(rows: Tensor, index: Tensor) -> Tensor:
            first, last = low[index], high[index]
            result = torch.where(_is_inside(rows, first, last), slope[index], 0.0)
            result = torch.where(is_tied(rows, last), ends[1][index], result)
            return torch.where(is_tied(rows, first), ends[0][index], result)

        return gradients(rows, ctx.shard.index, total), None, None


def _is_inside(rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return (rows > low) & (rows < high)


def _numbers(rows: Tensor, low: Tensor, high: Tensor, shard: RankNodes) -> Tensor:
    """Count the local nodes tied at either bound, below the lower and above the upper one: [4, B, F]."""
    numbers = torch.zeros(4, *low.shape, dtype=torch.int64, device=low.device)
    for some, graphs in blocks(rows, shard.index):
        first, last = low[graphs], high[graphs]
        masks = is_tied(some, first), is_tied(some, last), some < first, some > last
        for number, mask in zip(numbers, masks, strict=True):
            add_up(number, mask, graphs)
    return numbers


def _copies(low: Tensor, high: Tensor, numbers: Tensor, kept: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
    """Return how often each bound occurs among the kept values, [B, F] twice."""
    ties_low, ties_high, below, beyond = numbers
    one_value = is_tied(low, high)
    return (
        torch.where(one_value, kept, below + ties_low - cut),
        torch.where(one_value, 0, beyond + ties_high - cut),
    )


def _bisect(rows: Tensor, shard: RankNodes, ranks: Tensor) -> Tensor:
    """Return the order statistics with these ranks, without a derivative."""
    ptr, keys = shard.ptr, _sorted_keys(rows, shard)
    nobody = (shard.count_here == 0).view(-1, 1)
    ends = keys[ptr[1:] - 1], ~keys[ptr[:-1]]
    top, bottom = shard.ranks.max(*(end.masked_fill(nobody, NOTHING) for end in ends))
    shape = *ranks.shape, rows.shape[1]
    high = top.unsqueeze(1).expand(shape)
    unordered = (high == NAN_KEY) & rows.is_floating_point()
    low = torch.where(unordered, high, ~bottom.unsqueeze(1))
    wanted = torch.minimum(ranks.clamp(min=0), shard.count.view(-1, 1) - 1).unsqueeze(2) + 1
    begin, end = (offsets.view(-1, 1, 1) for offsets in (ptr[:-1], ptr[1:]))
    first, last = begin.expand(shape), end.expand(shape)  # positions of the keys from low to high
    while (low < high).any():
        middle = _half(low, high)
        pivots = torch.stack([_half(low, middle), middle, _half(middle + 1, high)])
        places = _after(keys, first, last, pivots)
        (numbers,) = shard.ranks.sum(places - begin)
        beyond = numbers < wanted
        low, first = (torch.where(beyond, *pair).amax(0) for pair in ((pivots + 1, low), (places, first)))
        high, last = (torch.where(beyond, *pair).amin(0) for pair in ((high, pivots), (last, places)))
    values = unsorted(high, rows.dtype)  # where unordered, the loop may have overwritten the key of NaN
    values = values.masked_fill(unordered, torch.nan) if rows.is_floating_point() else values
    return values.masked_fill((shard.count == 0).view(-1, 1, 1), 0)


def _half(low: Tensor, high: Tensor) -> Tensor:
    """Return the mean of two integers, rounded down, without overflow."""
    return (low & high) + ((low ^ high) >> 1)


def _sorted_keys(rows: Tensor, shard: RankNodes) -> Tensor:
    """Return the rows [N, F] as integer keys, sorted by graph and value, NaN last, plus one row of zeros."""
    index, order, ptr = shard.index, shard.order, shard.ptr
    rows, index = (rows, index) if order is None else (rows[order], index[order])
    keys = torch.zeros(rows.shape[1], len(rows) + 1, dtype=torch.int64, device=rows.device)
    table = keys[:, :-1]
    table.copy_(keys_of(rows).t())
    if keys.device.type == "cpu":  # one graph at a time: NumPy sorts faster
        columns, offsets = table.numpy(), ptr.tolist()
        for begin, end in itertools.pairwise(offsets):
            columns[:, begin:end].sort(axis=1)
    else:
        by_value = table.argsort(1)
        by_graph = index[by_value].argsort(dim=1, stable=True)
        table.copy_(table.gather(1, by_value.gather(1, by_graph)))
    return keys.t()


def _after(keys: Tensor, first: Tensor, last: Tensor, pivots: Tensor) -> Tensor:
    """Return the position of the first key above each pivot [3, B, K, F], between `first` and `last`."""
    low, high = first.expand(pivots.shape), last.expand(pivots.shape)
    for _ in range(int((last - first).max()).bit_length()):
        middle = (low + high) // 2
        up = (keys.gather(0, middle.flatten(0, -2)).view(pivots.shape) <= pivots) & (low < high)
        low, high = torch.where(up, middle + 1, low), torch.where(up, high, middle)
    return low
