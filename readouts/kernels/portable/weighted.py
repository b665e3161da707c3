"""Weighted sums in PyTorch, for every device and dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from readouts.kernels.devices import wide_dtype
from readouts.kernels.portable import elementary
from readouts.numerics.rounding import narrowed

_PARTIAL = 8  # number of partial sums of an inner product


def supports(dtype: torch.dtype) -> bool:
    """Return True: every dtype of a readout is supported."""
    return True


def product(weight: Tensor, values: Tensor) -> Tensor:
    """Return weight * values in float64; 0 where the weight is 0, even for NaN and infinite values.

    Those are left out before the product, so that its derivatives are right as well.
    """
    wide = wide_dtype(values)
    return weight.to(wide) * torch.where((weight != 0) | values.isfinite(), values, 0).to(wide) + 0.0


def weighted_mean(
    x: Tensor, weight: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the weighted means [B, F] of x, and the sums of the weights, both in float64.

    x is [N, F]; weight is [N, F], or [N, 1] for one weight per node. The sums of the weights have as many
    columns as weight and are 1 for an empty graph. All sums are exact and rounded once. Products are rounded
    to float64 first; products of narrower dtypes are exact.
    """
    totals = _exact_sums(weight.to(wide_dtype(weight)), index, ptr, order)
    totals = totals.masked_fill((ptr.diff() == 0).view(-1, 1), 1)
    return _exact_sums(product(weight, x), index, ptr, order) / totals, totals


def _exact_sums(values: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None) -> Tensor:
    if values.numel() == 0:
        return values.new_zeros(ptr.shape[0] - 1, values.shape[1])
    return elementary.reduce(values, index, ptr, order, ("sum",))[:, 0]


def scale_rows(table: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    """Return weight * table[index] [N, F], rounded once to the dtype of weight."""
    return narrowed(product(weight, table[index]), weight.dtype)


def weight_gradient(
    x: Tensor, weight: Tensor | None, slope: Tensor, mean: Tensor, index: Tensor, *, shared: bool
) -> Tensor:
    """Return the gradient of the weights of x [N, F], or of scores (times the weight), rounded once.

    For weights of single features it is slope[index] * (x - mean[index]), [N, F]. For weights that all
    features share it is <x, slope[index]> - mean[index], [N, 1], with one mean per graph.
    """
    rows = slope[index]
    if shared:
        values = _inner(x.to(slope.dtype) * rows) - mean[index]
    else:
        values = rows * (x.to(slope.dtype) - mean[index])
    return narrowed(values if weight is None else product(weight, values), x.dtype)


def _inner(products: Tensor) -> Tensor:
    """Return the sums [N, 1] of products [N, F].

    Column c is added to partial sum c modulo 8, and the partial sums are added as a tree; the native core
    adds in the same order and returns the same bits.
    """
    partial = products.new_zeros(len(products), _PARTIAL)
    for columns in products.split(_PARTIAL, dim=1):
        partial[:, : columns.shape[1]] += columns
    while partial.shape[1] > 1:
        half = partial.shape[1] // 2
        partial = partial[:, :half] + partial[:, half:]
    return partial
