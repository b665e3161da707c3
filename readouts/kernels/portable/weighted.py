"""Weighted sums in plain PyTorch, for every device and dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from readouts.kernels.devices import wide_dtype
from readouts.kernels.portable import elementary
from readouts.numerics.rounding import narrowed

_PARTIAL = 8  # partial sums of an inner product


def supports(dtype: torch.dtype) -> bool:
    """Return True: every dtype of a readout is supported."""
    return True


def product(weight: Tensor, values: Tensor) -> Tensor:
    """Return weight * values in float64, 0 where the weight is 0, whatever the value is."""
    wide = wide_dtype(values)
    return torch.where(weight == 0, 0, weight.to(wide) * values.to(wide))


def weighted_mean(
    x: Tensor, weight: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the means [B, F] of x with weights, and the sums of the weights, both in float64.

    x is [N, F]; weight is [N, F], or [N, 1] for all features together, and so are the sums of the weights, 1
    for a graph without nodes. All sums are exact and rounded once. Products are rounded to float64 before:
    those of narrower dtypes are exact.
    """
    totals = _exact_sums(weight.to(wide_dtype(weight)), index, ptr, order)
    totals = totals.masked_fill((ptr.diff() == 0).view(-1, 1), 1)
    return _exact_sums(product(weight, x), index, ptr, order) / totals, totals


def _exact_sums(values: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None) -> Tensor:
    if values.numel() == 0:
        return values.new_zeros(ptr.shape[0] - 1, values.shape[1])
    return elementary.reduce(values, index, ptr, order, ("sum",))[:, 0]


def scale_rows(table: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    """Return weight * table[index] [N, F], rounded once to the dtype of the weights."""
    return narrowed(product(weight, table[index]), weight.dtype)


def weight_gradient(
    x: Tensor, weight: Tensor | None, slope: Tensor, mean: Tensor, index: Tensor, *, shared: bool
) -> Tensor:
    """Return the gradient of the weights of x [N, F], or, times the weight, that of scores; rounded once.

    Weights of single features have slope[index] * (x - mean[index]), [N, F]. Those that all features share
    have <x, slope[index]> - mean[index], [N, 1], with one mean for each graph.
    """
    rows = slope[index]
    if shared:
        values = _inner(x.to(slope.dtype) * rows) - mean[index]
    else:
        values = rows * (x.to(slope.dtype) - mean[index])
    return narrowed(values if weight is None else product(weight, values), x.dtype)


def _inner(products: Tensor) -> Tensor:
    """Return the sums [N, 1] of products [N, F].

    Column c is added to partial sum c modulo 8, and these as a tree: the same bits as in the native core.
    """
    partial = products.new_zeros(len(products), _PARTIAL)
    for columns in products.split(_PARTIAL, dim=1):
        partial[:, : columns.shape[1]] += columns
    while partial.shape[1] > 1:
        half = partial.shape[1] // 2
        partial = partial[:, :half] + partial[:, half:]
    return partial
