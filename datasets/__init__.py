"""Data for the experiments: TU sets, rings, covers, copies, collisions, splits."""

from datasets.graphs import GraphSet, load

__all__ = ["GraphSet", "load"]
