"""Readouts as modules, in the protocol of PyG's `Aggregation`."""

from readouts.nn.attention import AttentionReadout, MultiheadAttentionReadout, Set2SetReadout
from readouts.nn.deep_sets import DeepSetsReadout
from readouts.nn.distribution import MomentReadout, SizeAwareMeanReadout, SortReadout
from readouts.nn.elementary import MaxReadout, MeanReadout, MinReadout, StdReadout, SumReadout, VarReadout
from readouts.nn.multi import MultiReadout, readout_resolver
from readouts.nn.order import MedianReadout, QuantileReadout, TrimmedMeanReadout
from readouts.nn.partial import PartialReadout
from readouts.nn.squeeze import SqueezeExcitation
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
    "readout_resolver",
]
