"""Weighted sums in the native core: products are formed while summing, and not stored."""

from __future__ import annotations

import torch
from torch import Tensor

from readouts.kernels.native.grouping import check
from readouts.kernels.native.library import DTYPES, core, is_available
from readouts.kernels.native.memory import (
    address,
    contiguous,
    graphs_ready,
    new_tensor,
    ready,
    threads_for,
)


def supports(dtype: torch.dtype) -> bool:
    """Return whether this module computes weighted sums of this dtype."""
    return dtype.is_floating_point and dtype in DTYPES and is_available()


def weighted_mean(
    x: Tensor, weight: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return weighted means and sums of weights in float64; see `readouts.kernels.portable.weighted`."""
    (nodes, features), columns, size = x.shape, weight.shape[1], ptr.shape[0] - 1
    x, (ptr, order) = contiguous(x), graphs_ready(ptr, order, nodes)
    weight = ready("weight", weight, (nodes, columns if columns == 1 else features), x.dtype)
    means = new_tensor(x, size, features, dtype=torch.float64)
    totals = new_tensor(x, size, columns, dtype=torch.float64)
    if means.numel() == 0:
        return means, totals.fill_(1)
    check(
        core.weighted_mean(
            x.data_ptr(), DTYPES[x.dtype], nodes, features, ptr.data_ptr(), address(order), size,
            weight.data_ptr(), columns < features, means.data_ptr(), totals.data_ptr(),
            threads_for(nodes * features),
        )
    )  # fmt: skip
    return means, totals


def scale_rows(table: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    """Return weight * table[index] [N, F], rounded once to the dtype of the weights."""
    nodes, (size, features) = index.shape[0], table.shape
    columns = 1 if weight.shape[1] == 1 else features
    table, weight = (
        ready("table", table, (size, features), torch.float64),
        ready("weight", weight, (nodes, columns), weight.dtype),
    )
    index = ready("batch", index, (nodes,), torch.int64)
    result = new_tensor(weight, nodes, features)
    check(
        core.scale_rows(
            table.data_ptr(), index.data_ptr(), size, weight.data_ptr(), DTYPES[weight.dtype],
            weight.shape[1] < features, nodes, features, result.data_ptr(), threads_for(nodes * features),
        )
    )  # fmt: skip
    return result


def weight_gradient(
    x: Tensor, weight: Tensor | None, slope: Tensor, mean: Tensor, index: Tensor, *, shared: bool
) -> Tensor:
    """Return the gradient of weights or scores; see `readouts.kernels.portable.weighted`."""
    nodes, features = x.shape
    size, columns = slope.shape[0], 1 if shared else features
    x, index = contiguous(x), ready("batch", index, (nodes,), torch.int64)
    slope = ready("slope", slope, (size, features), torch.float64)
    mean = ready("mean", mean, (size, columns), torch.float64)
    weight = None if weight is None else ready("weight", weight, (nodes, columns), x.dtype)
    result = new_tensor(x, nodes, columns)
    if features == 0:
        return result.zero_()
    check(
        core.weight_gradient(
            slope.data_ptr(), mean.data_ptr(), index.data_ptr(), slope.shape[0], x.data_ptr(),
            address(weight), DTYPES[x.dtype], shared, nodes, features, result.data_ptr(),
            threads_for(nodes * features),
        )
    )  # fmt: skip
    return result
