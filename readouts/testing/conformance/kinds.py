"""The kinds of readouts whose values are known, and which of them a readout behaves like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from readouts.kernels import reference

GRAPHS = ([1.0, 2.0, 4.0, 0.5, 2.5], [-1.0, 5.0, 0.25, 2.0])  # no two kinds agree on both
Value = Callable[[list[float]], float]


def value(kind: str, column: list[float], dtype: torch.dtype = torch.float32) -> float:
    """Return what the contract says a readout of this kind makes of one graph's column of a dtype."""
    if kind == "median":
        return _median(column, dtype)
    return reference.REDUCTIONS[kind](column, dtype)


def _median(column: list[float], dtype: torch.dtype) -> float:
    """Return the midpoint of the two middle values, rounded once."""
    ordered = sorted(column)
    return value("mean", [ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]], dtype)


def _product(column: list[float]) -> float:
    product = Fraction(1)
    for factor in column:
        product *= Fraction(factor)
    return float(product)


def _unbiased(kind: str) -> Value:
    return lambda column: float(getattr(torch, kind)(torch.tensor(column, dtype=torch.float64)))


def _contract(kind: str) -> Value:
    return lambda column: value(kind, column, torch.float64)


# What a readout of each kind may give where it keeps another convention than the contract.
DIALECTS: dict[str, tuple[Value, ...]] = {
    "sum": (_contract("sum"),),
    "mean": (_contract("mean"),),
    "max": (_contract("max"),),
    "min": (_contract("min"),),
    "median": (
        _contract("median"),
        lambda column: sorted(column)[(len(column) - 1) // 2],
        lambda column: sorted(column)[len(column) // 2],
    ),
    "var": (_contract("var"), _unbiased("var")),
    "std": (_contract("std"), _unbiased("std")),
    "mul": (_product,),
}
NAMES = (*DIALECTS, "other")


def recognised(out: Tensor) -> tuple[str, ...]:
    """Name the kind of every column of the output [2, R] for `GRAPHS`; ("other",) if any is unknown."""
    kinds = tuple(_kind(column.tolist()) for column in out.double().unbind(1))
    return kinds if kinds and "other" not in kinds else ("other",)


def _kind(came: Sequence[float]) -> str:
    for kind, dialects in DIALECTS.items():
        for dialect in dialects:
            if all(abs(dialect(graph) - seen) < 1e-3 for graph, seen in zip(GRAPHS, came, strict=True)):
                return kind
    return "other"
