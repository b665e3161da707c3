"""The networks and readouts to choose from, known without importing what they are made of."""

from __future__ import annotations

NETWORKS = ("gin", "sage", "gcn")
READOUTS = ("sum", "mean", "max", "median", "std", "attention", "sum+mean+max", "size-aware mean")
