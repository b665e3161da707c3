"""Readouts as modules with the interface of PyG's `Aggregation`."""

from readouts.nn.attention import AttentionReadout, MultiheadAttentionReadout, Set2SetReadout
from readouts.nn.compose import (
    DeepSetsReadout,
    MultiReadout,
    PartialReadout,
    SqueezeExcitation,
    readout_resolver,
)
from readouts.nn.elementary import MaxReadout, MeanReadout, MinReadout, StdReadout, SumReadout, VarReadout
from readouts.nn.moments import MomentReadout, SizeAwareMeanReadout
from readouts.nn.order import MedianReadout, QuantileReadout, SortReadout, TrimmedMeanReadout
from readouts.nn.pyg import from_pyg
from readouts.nn.weighted import LogSumExpReadout, PowerMeanReadout, SoftmaxReadout, WeightedMeanReadout

__all__ = [
    "AttentionReadout",
    "DeepSetsReadout",
    "LogSumExpReadout",
    "MaxReadout",
    "MeanReadout",
    "MedianReadout",
    "MinReadout",
    "MomentReadout",
    "MultiReadout",
    "MultiheadAttentionReadout",
    "PartialReadout",
    "PowerMeanReadout",
    "QuantileReadout",
    "Set2SetReadout",
    "SizeAwareMeanReadout",
    "SoftmaxReadout",
    "SortReadout",
    "SqueezeExcitation",
    "StdReadout",
    "SumReadout",
    "TrimmedMeanReadout",
    "VarReadout",
    "WeightedMeanReadout",
    "from_pyg",
    "readout_resolver",
]
