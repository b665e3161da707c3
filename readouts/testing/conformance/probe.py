"""Kinds of readouts whose values the contract defines, and which of them a readout behaves like."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from readouts.kernels import reference

GRAPHS = ([1.0, 2.0, 4.0, 0.5, 2.5], [-1.0, 5.0, 0.25, 2.0])  # no two kinds agree on both
Value = Callable[[list[float]], float]


def value(kind: str, column: list[float], dtype: torch.dtype = torch.float32) -> float:
    """Return the value by the contract of a readout of this kind, for one column of one graph."""
    if kind == "median":  # the midpoint of the two middle values, rounded once
        kind, column = "mean", [statistics.median_low(column), statistics.median_high(column)]
    return reference.REDUCTIONS[kind](column, dtype)


# Values by which a readout of each kind is recognised: of the contract, and of other conventions.
DIALECTS: dict[str, list[Value]] = {
    kind: [partial(value, kind, dtype=torch.float64)]
    for kind in ("sum", "mean", "max", "min", "median", "var", "std")
}
DIALECTS["median"] += [statistics.median_low, statistics.median_high]
DIALECTS["var"] += [statistics.variance]
DIALECTS["std"] += [statistics.stdev]
DIALECTS["mul"] = [math.prod]
NAMES = (*DIALECTS, "other")


def recognised(out: Tensor) -> tuple[str, ...]:
    """Return the kind of every column of the output [2, R] for `GRAPHS`; ("other",) if any is unknown."""
    kinds = tuple(_kind(column.tolist()) for column in out.double().unbind(1))
    return kinds if kinds and "other" not in kinds else ("other",)


def _kind(came: Sequence[float]) -> str:
    for kind, dialects in DIALECTS.items():
        for dialect in dialects:
            if all(abs(dialect(graph) - seen) < 1e-3 for graph, seen in zip(GRAPHS, came, strict=True)):
                return kind
    return "other"
