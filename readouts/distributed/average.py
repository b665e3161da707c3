"""Averages with weights over the nodes of all ranks, with formulas and gradients of `readouts.weighted`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from readouts import ops, weighted
from readouts.distributed.elementary import extremes_of, read
from readouts.distributed.shard import Shard, first_derivative
from readouts.weighted import alike, computed, fill_empty, flat, rounded


def weighted_mean(x: Tensor, weight: Tensor, shard: Shard, empty: float) -> Tensor:
    """Return what `readouts.distributed.weighted_mean` does."""
    out = _WeightedMean.apply(*alike(x, weight), shard, False)
    return rounded(fill_empty(out, shard.everywhere, empty), x)


def softmax_mean(x: Tensor, scores: Tensor, shard: Shard, empty: float) -> Tensor:
    """Return what `readouts.distributed.softmax_mean` does."""
    out = _WeightedMean.apply(*alike(x, scores), shard, True)
    return rounded(fill_empty(out, shard.everywhere, empty), x)


def logsumexp(x: Tensor, shard: Shard, empty: float) -> Tensor:
    """Return what `readouts.distributed.logsumexp` does."""
    wide = computed(x)
    top = _greatest(wide.detach(), shard)
    top = torch.where(top.isinf(), 0, top)
    (total,) = _sums(shard, (wide - weighted.expand(top, shard.segments)).exp())
    total = fill_empty(total, shard.everywhere, 1)
    nothing = total == 0
    out = top + torch.where(nothing, 1, total).log()
    return rounded(fill_empty(out.masked_fill(nothing, -torch.inf), shard.everywhere, empty), x)


class _WeightedMean(torch.autograd.Function):
    """Weighted means, their gradients in closed form from sums over graphs that are known from forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, given: Tensor, shard: Shard, softmax: bool) -> Tensor:
        weight = given
        if softmax:
            weight = weighted.weights_below(_greatest(given, shard), given, shard.segments)
        total, above = _sums(shard, weight.to(ops.wide_dtype(weight)), ops.product(weight, x))
        total = fill_empty(total, shard.everywhere, 1)
        out = above / total
        ctx.save_for_backward(x, weight, out, total)
        ctx.segments, ctx.softmax = shard.segments, softmax
        return out.to(x.dtype)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        for_x, for_given, *_ = ctx.needs_input_grad
        x, weight, out, total = ctx.saved_tensors
        of_x, of_given = weighted.average_gradients(grad, x, weight, out, total, ctx.segments, ctx.softmax)
        return of_x if for_x else None, of_given() if for_given else None, None, None


def _greatest(values: Tensor, shard: Shard) -> Tensor:
    """Return the greatest values of every graph [B, ...]."""
    rows = flat(values)
    return extremes_of(rows, shard, ("max",)).view(shard.segments.size, *values.shape[1:])


def _sums(shard: Shard, *values: Tensor) -> list[Tensor]:
    """Return the exact sums of several tensors [N, ...] of one dtype, in one pass: [B, ...] each."""
    rows = [flat(value) for value in values]
    sums = read(torch.cat(rows, dim=1), shard, "sum").split([row.shape[1] for row in rows], dim=1)
    return [part.view(len(part), *value.shape[1:]) for part, value in zip(sums, values, strict=True)]
