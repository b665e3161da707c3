"""The operators from which readouts are computed."""

from readouts.kernels.devices import wide_dtype
from readouts.kernels.native.memory import DefaultWord, new_tensor
from readouts.kernels.portable.order import mean_of_two
from readouts.kernels.portable.weighted import product
from readouts.ops.elementary import reduce, reduce_backward, reduce_batch, reduce_flat
from readouts.ops.grouping import check_greatest, expand_ptr, greatest, group, ranks
from readouts.ops.order import midpoint, select, trimmed_mean
from readouts.ops.registry import is_direct, is_eager, is_plain, is_transforming, kernel_for
from readouts.ops.scatter import (
    embedding_backward,
    groupings,
    index_put,
    index_put_,
    index_reduce_,
    put_,
    scatter_,
    scatter_reduce,
    segment_reduce,
)

__all__ = [
    "DefaultWord",
    "check_greatest",
    "embedding_backward",
    "expand_ptr",
    "greatest",
    "group",
    "groupings",
    "index_put",
    "index_put_",
    "index_reduce_",
    "is_direct",
    "is_eager",
    "is_plain",
    "is_transforming",
    "kernel_for",
    "mean_of_two",
    "midpoint",
    "new_tensor",
    "product",
    "put_",
    "ranks",
    "reduce",
    "reduce_backward",
    "reduce_batch",
    "reduce_flat",
    "scatter_",
    "scatter_reduce",
    "segment_reduce",
    "select",
    "trimmed_mean",
    "wide_dtype",
]
