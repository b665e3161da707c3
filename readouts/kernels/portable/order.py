"""Order statistics in PyTorch, for every device and dtype: one sort of the nodes by graph and value."""

from __future__ import annotations

import torch
from torch import Tensor

from readouts.kernels.devices import wide_dtype
from readouts.numerics.keys import NAN_KEY, sortable, unsorted
from readouts.numerics.limbs import segment_sum
from readouts.numerics.rounding import narrowed
from readouts.reductions import result_dtype


def supports(dtype: torch.dtype) -> bool:
    """Return True: every dtype of a readout is supported."""
    return True


def select(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor) -> Tensor:
    """Return the order statistics [B, K, F] with these ranks [B, K]; see `readouts.ops.select`."""
    keys, last = _sorted_keys(x, index), ptr[1:] - 1
    places = torch.minimum(ptr[:-1, None] + ranks.clamp(min=0), last[:, None]).clamp(min=0)
    values = _values(keys[places], x.dtype)
    if x.is_floating_point():
        unordered = keys[last.clamp(min=0)] == _nan_key(x)
        values = values.masked_fill(unordered.unsqueeze(1), torch.nan)
    return values.masked_fill((ptr.diff() == 0).view(-1, 1, 1), 0)


def midpoint(
    x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the means [B, F] of the order statistics with two ranks [B, 2], and the statistics [B, 2, F]."""
    values = select(x, index, ptr, order, ranks)
    return mean_of_two(*values.unbind(1)), values


def mean_of_two(a: Tensor, b: Tensor) -> Tensor:
    """Return (a + b) / 2 without overflow, rounded once; for integers in the default float dtype."""
    wide = a.dtype if a.is_floating_point() else wide_dtype(a)
    a, b, dtype = a.to(wide), b.to(wide), result_dtype("mean", a.dtype)
    total = a + b
    return (torch.where(total.isinf(), a / 2 + b / 2, total / 2) + 0.0).to(dtype)


def keep(
    x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the values that trimming keeps, sorted by graph as rows [N, F], and their offsets [B + 2].

    The last of the B + 1 graphs holds the rows that are cut.
    """
    kept = ptr.diff() - 2 * cut
    offsets = torch.cat([ptr[:1], kept.cumsum(0), ptr[-1:]])
    graph = torch.sort(index).values
    place = torch.arange(len(x), device=x.device) - ptr[graph] - cut[graph]
    inside = (place >= 0) & (place < kept[graph])
    rows = _values(_sorted_keys(x, index), x.dtype).masked_fill(~inside.unsqueeze(1), 0)
    if x.is_floating_point():
        rows = rows.masked_fill(bounds[:, 0].isnan()[graph], torch.nan)
    return rows[inside.long().argsort(descending=True, stable=True)], offsets


def spread(
    grad: Tensor,
    x: Tensor,
    bounds: Tensor,
    index: Tensor,
    ptr: Tensor,
    order: Tensor | None,
    cut: Tensor,
) -> Tensor:
    """Return the gradient [N, F] of the trimmed mean, given that of its output [B, F]."""
    kept = (ptr.diff() - 2 * cut).clamp(min=1).view(-1, 1)
    slope, cut = grad.double() / kept, cut.view(-1, 1)
    low, high = bounds[index].unbind(1)
    unordered = x.isnan() & low.isnan()
    at_low, at_high = (x == low) | unordered, (x == high) | unordered
    ties_low, ties_high, below, beyond = (
        segment_sum(mask.long(), index, len(grad)) for mask in (at_low, at_high, x < low, x > high)
    )
    one_value = (bounds[:, 0] == bounds[:, 1]) | bounds[:, 0].isnan()
    kept_low = torch.where(one_value, kept, below + ties_low - cut)
    kept_high = torch.where(one_value, 0, beyond + ties_high - cut)
    share_low = slope * kept_low / ties_low.clamp(min=1)
    share_high = slope * kept_high / ties_high.clamp(min=1)
    total = torch.where((x > low) & (x < high), slope[index], 0.0)
    total = torch.where(at_high, share_high[index], total)
    total = torch.where(at_low, share_low[index], total)
    return narrowed(total, x.dtype)


def _sorted_keys(x: Tensor, index: Tensor) -> Tensor:
    """Return the numbers as integers in the same order, sorted by graph and value; NaN is the largest."""
    keys = sortable(x)
    if x.is_floating_point():
        keys = keys.masked_fill(x.isnan(), _nan_key(x))
    if x.element_size() <= 4:  # graph and number fit one integer
        mixed = (index.unsqueeze(1) << 32) + keys
        return ((mixed.sort(0).values + 2**31) & (2**32 - 1)) - 2**31
    by_value = keys.argsort(0)
    by_graph = index[by_value].argsort(dim=0, stable=True)
    return keys.gather(0, by_value.gather(0, by_graph))


def _nan_key(x: Tensor) -> int:
    return NAN_KEY if x.element_size() == 8 else 2**31 - 1


def _values(keys: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the numbers with these keys; a NaN key may map to any value, which the caller overwrites."""
    if dtype.itemsize == 2 and dtype.is_floating_point:
        keys = keys.clamp(max=2**15 - 1)
    return unsorted(keys, dtype)
