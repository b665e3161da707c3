"""Averages with weights over the nodes of all ranks, with formulas and gradients of `readouts.weighted`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from readouts import weighted
from readouts.distributed.elementary import extremes_of, read
from readouts.distributed.shard import Shard, first_derivative
from readouts.weighted import aligned, alike, computed, fill_empty, rounded


def weighted_mean(x: Tensor, weight: Tensor, shard: Shard, empty: float) -> Tensor:
    """Return what `readouts.distributed.weighted_mean` does."""
    wide = computed(x)
    weight = aligned(computed(weight), x).to(wide.dtype)
    total, above = _sums(shard, weight, weight * wide)
    above = fill_empty(above, shard.everywhere, empty)
    return rounded(above / fill_empty(total, shard.everywhere, 1), x)


def softmax_mean(x: Tensor, scores: Tensor, shard: Shard, empty: float) -> Tensor:
    """Return what `readouts.distributed.softmax_mean` does."""
    out = _SoftmaxMean.apply(*alike(x, scores), shard)
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


class _SoftmaxMean(torch.autograd.Function):
    """`softmax_mean`, its gradient in closed form: it takes sums over graphs that are known from forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scores: Tensor, shard: Shard) -> Tensor:
        weight = weighted.weights_below(_greatest(scores, shard), scores, shard.segments)
        total, above = _sums(shard, weight, weight * x)
        total = fill_empty(total, shard.everywhere, 1)
        out = above / total
        ctx.save_for_backward(x, scores, out, weight, total)
        ctx.segments = shard.segments
        return out

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        for_x, for_scores, _ = ctx.needs_input_grad
        x, scores, out, weight, total = ctx.saved_tensors
        given = x, scores, out, weight, total, ctx.segments
        return *weighted.softmax_gradients(grad, *given, for_x, for_scores), None


def _greatest(values: Tensor, shard: Shard) -> Tensor:
    """Return the greatest values of every graph [B, ...]."""
    rows = values.flatten(1) if values.dim() > 1 else values.unsqueeze(1)
    return extremes_of(rows, shard, ("max",)).view(shard.segments.size, *values.shape[1:])


def _sums(shard: Shard, *values: Tensor) -> list[Tensor]:
    """Return the exact sums of several tensors [N, ...] of one dtype, in one pass: [B, ...] each."""
    rows = [value.flatten(1) if value.dim() > 1 else value.unsqueeze(1) for value in values]
    sums = read(torch.cat(rows, dim=1), shard, "sum").split([row.shape[1] for row in rows], dim=1)
    return [part.view(len(part), *value.shape[1:]) for part, value in zip(sums, values, strict=True)]
