"""Graph readouts whose output does not change, not by one bit, when the nodes are shuffled."""

from readouts.accumulator import Accumulator
from readouts.functional.elementary import global_add_pool, global_max_pool, global_mean_pool, readout
from readouts.functional.moments import moments
from readouts.functional.order import median, quantile, trimmed_mean
from readouts.functional.weighted import logsumexp, power_mean, softmax_mean, weighted_mean
from readouts.scatter import exact_scatter
from readouts.segments import Segments

__all__ = [
    "Accumulator",
    "Segments",
    "exact_scatter",
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
__version__ = "0.2.0"
