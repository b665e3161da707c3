"""Readouts of graphs whose nodes are spread over the ranks of a `torch.distributed` process group."""

from readouts.distributed.functional import (
    logsumexp,
    median,
    quantile,
    readout,
    softmax_mean,
    trimmed_mean,
    weighted_mean,
)
from readouts.distributed.module import DistributedReadout

__all__ = [
    "DistributedReadout",
    "logsumexp",
    "median",
    "quantile",
    "readout",
    "softmax_mean",
    "trimmed_mean",
    "weighted_mean",
]
