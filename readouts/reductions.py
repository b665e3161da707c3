"""The table of elementary reductions: result dtypes, and what forward and backward need.

To add a reduction follow the recipe in CONTRIBUTING.md; its first steps are a row here and a definition in
`readouts.kernels.reference`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
INDEX_DTYPES = (torch.int64, torch.int32)


@dataclass(frozen=True)
class Reduction:
    """One elementary reduction.

    Attributes:
        name: its name in `reduce=`.
        of_integers: dtype of the result for integers and bool: "int64", the "default" float dtype, or
            the dtype of x ("own"). Floats keep their dtype.
        needs_x: whether backward needs the node features.
        needs_out: whether backward needs the output, to find tied nodes.
        exact_sum: whether a kernel accumulates the exact sum of the nodes.
        extreme: whether a kernel tracks the greatest or least value.
        squares: whether a kernel accumulates the exact sum of the squared deviations from the mean.
    """

    name: str
    of_integers: Literal["int64", "default", "own"]
    needs_x: bool = False
    needs_out: bool = False
    exact_sum: bool = False
    extreme: bool = False
    squares: bool = False


TABLE = (  # the order in which gradients are added
    Reduction("sum", "int64", exact_sum=True),
    Reduction("mean", "default", exact_sum=True),
    Reduction("max", "own", needs_x=True, needs_out=True, extreme=True),
    Reduction("min", "own", needs_x=True, needs_out=True, extreme=True),
    Reduction("var", "default", needs_x=True, exact_sum=True, squares=True),
    Reduction("std", "default", needs_x=True, exact_sum=True, squares=True),
)
ROWS = {row.name: row for row in TABLE}
ELEMENTARY = tuple(ROWS)
EXTREMES = tuple(row.name for row in TABLE if row.extreme)
_NEED_X = {row.name for row in TABLE if row.needs_x}
_NEED_OUT = {row.name for row in TABLE if row.needs_out}
_SUMS = {row.name for row in TABLE if row.exact_sum}
_EXTREME = {row.name for row in TABLE if row.extreme}
_SQUARES = {row.name for row in TABLE if row.squares}


def result_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of a reduction of `dtype`."""
    if dtype.is_floating_point:
        return dtype
    match ROWS[name].of_integers:
        case "int64":
            return torch.int64
        case "default":
            return torch.get_default_dtype()
        case "own":
            return dtype


def needs_x(names: Iterable[str]) -> bool:
    """Return whether backward of these reductions needs the node features."""
    return not _NEED_X.isdisjoint(names)


def needs_out(names: Iterable[str]) -> bool:
    """Return whether backward of these reductions needs their output."""
    return not _NEED_OUT.isdisjoint(names)


def tracks_sums(names: Iterable[str]) -> bool:
    """Return whether a kernel accumulates exact sums for these reductions."""
    return not _SUMS.isdisjoint(names)


def tracks_extremes(names: Iterable[str]) -> bool:
    """Return whether a kernel tracks the greatest and least values for these reductions."""
    return not _EXTREME.isdisjoint(names)


def tracks_squares(names: Iterable[str]) -> bool:
    """Return whether a kernel accumulates sums of squared deviations for these reductions."""
    return not _SQUARES.isdisjoint(names)
