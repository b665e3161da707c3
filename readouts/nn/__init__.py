"""Readouts as modules, in the protocol of PyG's `Aggregation`."""

from readouts.nn.elementary import (
    MaxReadout,
    MeanReadout,
    MinReadout,
    MultiReadout,
    StdReadout,
    SumReadout,
    VarReadout,
)

__all__ = [
    "MaxReadout",
    "MeanReadout",
    "MinReadout",
    "MultiReadout",
    "StdReadout",
    "SumReadout",
    "VarReadout",
]
