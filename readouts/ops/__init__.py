"""The operators behind every readout."""

from readouts.kernels.devices import wide_dtype
from readouts.kernels.portable.order import mean_of_two
from readouts.ops.elementary import reduce, reduce_backward, reduce_batch
from readouts.ops.grouping import expand_ptr, greatest, group, ranks
from readouts.ops.order import midpoint, select, trimmed_mean
from readouts.kernels.native.memory import new_tensor
from readouts.ops.registry import can_skip_dispatcher, is_plain, is_transforming

__all__ = [
    "can_skip_dispatcher",
    "expand_ptr",
    "greatest",
    "group",
    "is_plain",
    "is_transforming",
    "mean_of_two",
    "midpoint",
    "new_tensor",
    "ranks",
    "reduce",
    "reduce_backward",
    "reduce_batch",
    "select",
    "trimmed_mean",
    "wide_dtype",
]
