"""Weighted sums in plain PyTorch, for every device and dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from readouts.kernels.devices import wide_dtype
from readouts.kernels.portable import elementary
from readouts.kernels.portable.elementary import narrowed

_PARTIAL = 8  # partial sums of an inner product


def supports(dtype: torch.dtype) -> bool:
    """Return True: every dtype of a readout is supported."""
    return True


def product(weight: Tensor, values: Tensor) -> Tensor:
    """Return weight * values in float64, 0 where the weight is 0, whatever the value is."""
    wide = wide_dtype(values)
    return torch.where(weight == 0, 0, weight.to(wide) * values.to(wide))


def weighted_sum(
    x: Tensor, weight: Tensor | None, index: Tensor, ptr: Tensor, order: Tensor | None
) -> Tensor:
    """Return the exact sums [B, F] of weight * x, rounded to float64.

    Products are rounded to float64; those of narrower dtypes are exact. x is [N, F], weight [N, F], [N, 1]
    for one of all features, or None for 1.
    """
    values = x.to(wide_dtype(x)) if weight is None else product(weight, x)
    if values.numel() == 0:
        return values.new_zeros(ptr.shape[0] - 1, x.shape[1])
    return elementary.reduce(values, index, ptr, order, ("sum",))[:, 0]


def scale_rows(table: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    """Return weight * table[index] [N, F], rounded once to the dtype of the weights."""
    return narrowed(product(weight, table[index]), weight.dtype)


def weight_gradient(x: Tensor, weight: Tensor | None, slope: Tensor, mean: Tensor, index: Tensor) -> Tensor:
    """Return slope[index] * (x - mean[index]) [N, F], times the weight if there is one, rounded once."""
    values = slope[index] * (x.to(slope.dtype) - mean[index])
    return narrowed(values if weight is None else product(weight, values), x.dtype)


def row_dot(x: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """Return the inner products of x [N, F] and table[index], float64 [N, 1].

    Column c is added to partial sum c modulo 8, and these as a tree: the same bits as in the native core.
    """
    products = x.to(table.dtype) * table[index]
    partial = products.new_zeros(len(x), _PARTIAL)
    for columns in products.split(_PARTIAL, dim=1):
        partial[:, : columns.shape[1]] += columns
    while partial.shape[1] > 1:
        half = partial.shape[1] // 2
        partial = partial[:, :half] + partial[:, half:]
    return partial
