"""The readouts as functions."""

from readouts.functional.elementary import global_add_pool, global_max_pool, global_mean_pool, readout
from readouts.functional.moments import moments
from readouts.functional.order import median, quantile, trimmed_mean
from readouts.functional.weighted import logsumexp, power_mean, softmax_mean, weighted_mean

__all__ = [
    "global_add_pool",
    "global_max_pool",
    "global_mean_pool",
    "logsumexp",
    "median",
    "moments",
    "power_mean",
    "quantile",
    "readout",
    "softmax_mean",
    "trimmed_mean",
    "weighted_mean",
]
