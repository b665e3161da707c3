"""Sum, mean, max, min, variance and standard deviation over the nodes of all ranks.

Values and gradients have the bits of `readouts.kernels.reference`. Messages forward: for max and min the
greatest keys, and the numbers of ties if some rank wants gradients; for the other names two for an exact
sum; for var and std two more for the squares. Backward sends nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from readouts import ops
from readouts.distributed.nodes import RankNodes, first_derivative
from readouts.distributed.sums import sum_over
from readouts.distributed.ties import count_ties, gradients, shares
from readouts.numerics.keys import flip, keys_of, values_of
from readouts.numerics.rounding import narrowed, sqrt
from readouts.reductions import ELEMENTARY, EXTREMES, needs_x, result_dtype, tracks_squares
from readouts.segments import Segments

KNOWN = {"sum", "mean", "max", "min", "var", "std"}
NOTHING = torch.iinfo(torch.int64).min  # the key of the maximum of no numbers


def reduce(rows: Tensor, shard: RankNodes, names: tuple[str, ...]) -> Tensor:
    """Reduce the rows [N, F] of all ranks to [B, R, F], a block for every elementary name."""
    return _Reduce.apply(rows, shard, names)


class _Reduce(torch.autograd.Function):
    """`reduce` with the gradients of `readouts.kernels.reference`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, shard: RankNodes, names: tuple[str, ...]) -> Tensor:
        blocks: dict[str, Tensor] = {}
        values = ties = mean = std = None
        extremes = tuple(name for name in EXTREMES if name in names)
        if extremes:
            values = extremes_of(rows, shard, extremes)
            ties = count_ties(rows, values, shard) if shard.wants_grad else None
            blocks |= zip(extremes, values.unbind(1), strict=True)
        if set(names) - set(extremes):
            averages, mean, std = _averages(rows, shard, names)
            blocks |= averages
        ctx.shard, ctx.names, ctx.extremes = shard, names, extremes
        kept = rows if needs_x(names) else None
        ctx.save_for_backward(kept, values, ties, mean, std)
        return torch.stack([blocks[name] for name in names], dim=1)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rows, values, ties, mean, std = ctx.saved_tensors
        nodes = ctx.shard.count.clamp(min=1).view(-1, 1)
        terms = []
        for block in sorted(range(len(ctx.names)), key=lambda block: ELEMENTARY.index(ctx.names[block])):
            name, slope = ctx.names[block], grad[:, block].double()
            if name in EXTREMES:
                slope = slope / ties[:, ctx.extremes.index(name)].clamp(min=1)
            terms.append((name, slope / nodes if name == "mean" else slope))

        def total(rows: Tensor, index: Tensor) -> Tensor:
            result = torch.zeros(rows.shape, dtype=torch.float64, device=rows.device)
            for name, slope in terms:
                match name:
                    case "sum" | "mean":
                        result += slope[index]
                    case "max" | "min":
                        result += shares(rows, index, values[:, ctx.extremes.index(name)], slope)
                    case "var":
                        result += (2 * slope)[index] * ((rows - mean[index]) / nodes[index])
                    case "std":
                        share = slope[index] * ((rows - mean[index]) / (nodes * std)[index])
                        result += torch.where((std == 0)[index], 0, share)
                    case _:
                        raise ValueError(f"reduce: expected one of {', '.join(ELEMENTARY)}, got {name!r}")
            return result

        if rows is None:  # all nodes of a graph have the same gradient
            table = gradients(grad[:, 0], torch.arange(len(grad), device=grad.device), total)
            return Segments.expand(ctx.shard, table), None, None
        return gradients(rows, ctx.shard.index, total), None, None


def extremes_of(rows: Tensor, shard: RankNodes, names: Sequence[str]) -> Tensor:
    """Return the extreme values over all ranks [B, K, F], without a derivative, in one message."""
    local = ops.reduce(rows, shard.index, shard.ptr, shard.order, names)
    flips = torch.tensor([flip(name) for name in names], device=rows.device).view(-1, 1)
    keys = keys_of(local, flips)
    (best,) = shard.ranks.max(keys.masked_fill((shard.count_here == 0).view(-1, 1, 1), NOTHING))
    return values_of(best, rows.dtype, flips).masked_fill((shard.count == 0).view(-1, 1, 1), 0)


def _averages(
    rows: Tensor, shard: RankNodes, names: Sequence[str]
) -> tuple[dict[str, Tensor], Tensor | None, Tensor | None]:
    """Return sums, means, var and std by name [B, F]; for var and std also mean and std in float64."""
    unknown = set(names) - KNOWN
    if unknown:
        known = ", ".join(sorted(KNOWN))
        raise ValueError(f"reduce: expected one of {known} on many processes, got {sorted(unknown)}")
    index, size, nodes = shard.index, shard.size, shard.count.clamp(min=1)
    dtypes = {name: result_dtype(name, rows.dtype) for name in names}
    sums = sum_over(shard.ranks, rows, index, size)
    blocks = {}
    if "sum" in names:
        blocks["sum"] = sums.rounded(dtypes["sum"])
    if "mean" in names:
        blocks["mean"] = sums.rounded(dtypes["mean"], nodes)
    if not tracks_squares(names):
        return blocks, None, None
    mean = sums.rounded(torch.float64, nodes)
    deviations = rows.to(torch.float64, copy=True).sub_(mean[index])
    squares = sum_over(shard.ranks, deviations.square_(), index, size)
    std = sqrt(squares.rounded(torch.float64, nodes))
    if "var" in names:
        blocks["var"] = squares.rounded(dtypes["var"], nodes)
    if "std" in names:
        blocks["std"] = narrowed(std, dtypes["std"])
    return blocks, mean, std
