"""Weighted sums in the core: they multiply while they add, and need no product of the size of x."""

from __future__ import annotations

import torch
from torch import Tensor

from readouts.kernels.native.elementary import address
from readouts.kernels.native.grouping import check
from readouts.kernels.native.library import DTYPES, core, is_available
from readouts.kernels.native.memory import new_tensor, ready, threads_for


def supports(dtype: torch.dtype) -> bool:
    """Return whether this module computes weighted sums of this dtype."""
    return dtype.is_floating_point and dtype in DTYPES and is_available()


def weighted_sum(
    x: Tensor, weight: Tensor | None, index: Tensor, ptr: Tensor, order: Tensor | None
) -> Tensor:
    """Return the exact sums [B, F] of weight * x in float64; see `readouts.kernels.portable.weighted`."""
    (nodes, features), size = x.shape, ptr.shape[0] - 1
    x, ptr = ready(x), ptr.contiguous()
    weight = None if weight is None else ready(weight)
    out = new_tensor(x, size, features, dtype=torch.float64)
    check(
        core.weighted_sum(
            x.data_ptr(), DTYPES[x.dtype], nodes, features, ptr.data_ptr(), address(order), size,
            address(weight), weight is not None and weight.shape[1] < features, out.data_ptr(),
            threads_for(nodes * features),
        )
    )  # fmt: skip
    return out


def scale_rows(table: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    """Return weight * table[index] [N, F], rounded once to the dtype of the weights."""
    nodes, (size, features) = index.shape[0], table.shape
    table, weight, index = ready(table), ready(weight), index.contiguous()
    result = new_tensor(weight, nodes, features)
    check(
        core.scale_rows(
            table.data_ptr(), index.data_ptr(), size, weight.data_ptr(), DTYPES[weight.dtype],
            weight.shape[1] < features, nodes, features, result.data_ptr(), threads_for(nodes * features),
        )
    )  # fmt: skip
    return result


def weight_gradient(x: Tensor, weight: Tensor | None, slope: Tensor, mean: Tensor, index: Tensor) -> Tensor:
    """Return slope[index] * (x - mean[index]) [N, F], times the weight if there is one, rounded once."""
    nodes, features = x.shape
    x, slope, mean, index = ready(x), ready(slope), ready(mean), index.contiguous()
    weight = None if weight is None else ready(weight)
    result = new_tensor(x, nodes, features)
    check(
        core.weight_gradient(
            slope.data_ptr(), mean.data_ptr(), index.data_ptr(), slope.shape[0], x.data_ptr(),
            address(weight), DTYPES[x.dtype], nodes, features, result.data_ptr(),
            threads_for(nodes * features),
        )
    )  # fmt: skip
    return result


def row_dot(x: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """Return the inner products of x [N, F] and table[index], float64 [N, 1]."""
    nodes, features = x.shape
    x, table, index = ready(x), ready(table), index.contiguous()
    result = new_tensor(x, nodes, 1, dtype=torch.float64)
    check(
        core.row_dot(
            x.data_ptr(), DTYPES[x.dtype], nodes, features, table.data_ptr(), index.data_ptr(),
            table.shape[0], result.data_ptr(), threads_for(nodes * features),
        )
    )  # fmt: skip
    return result
