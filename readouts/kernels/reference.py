"""The definition of every operator: a loop over graphs in rational arithmetic, rounded once.

Slow, but easy to read; every other kernel must return the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from readouts.reductions import ELEMENTARY, result_dtype

Column = list[float] | list[int]


def round_once(value: Fraction, dtype: torch.dtype) -> float:
    """Round `value` to the nearest number of floating-point `dtype`, ties to even; a zero is +0.

    As IEEE 754 prescribes, values that round beyond the largest finite number become infinite, and values
    below the least normal number are rounded to a subnormal number.
    """
    limits = torch.finfo(dtype)
    bits = 1 - int(math.log2(limits.eps))
    if value == 0:
        return 0.0
    size = abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if size < Fraction(2) ** exponent:
        exponent -= 1
    least = int(math.log2(limits.smallest_normal))
    quantum = Fraction(2) ** (max(exponent, least) - bits + 1)
    rounded = round(value / quantum) * quantum
    if abs(rounded) > Fraction(limits.max):
        return math.inf if value > 0 else -math.inf
    return float(rounded) + 0.0


def reduce(x: Tensor, index: Tensor, count: Tensor, names: Sequence[str]) -> Tensor:
    """Reduce the rows of x [N, F] that share an index to [B, R, F]; see `readouts.ops.reduce`.

    `count` [B] is the number of nodes of every graph.
    """
    blocks = [_columns(x, index, count, REDUCTIONS[name], result_dtype(name, x.dtype)) for name in names]
    return torch.stack(blocks, dim=1)


def reduce_backward(grad: Tensor, x: Tensor, index: Tensor, count: Tensor, names: Sequence[str]) -> Tensor:
    """Return the gradient [N, F] of `reduce` with respect to x, given that of its output [B, R, F].

    Each contribution is computed in float64. Contributions are added in the order
    sum, mean, max, min, var, std, and the total is rounded once to the dtype of x.
    """
    out = torch.zeros(x.shape, dtype=x.dtype)
    for graph in range(len(count)):
        nodes = (index == graph).nonzero().view(-1).tolist()
        for feature in range(x.shape[1]):
            column = [float(x[node, feature]) for node in nodes]
            for position, node in enumerate(nodes):
                total = 0.0
                for name in ELEMENTARY:
                    for block in [r for r, other in enumerate(names) if other == name]:
                        total += SENSITIVITIES[name](float(grad[graph, block, feature]), column, position)
                out[node, feature] = _rounded(total, x.dtype)
    return out


def _columns(
    x: Tensor, index: Tensor, count: Tensor, value: Callable[[Column, torch.dtype], float], dtype: torch.dtype
) -> Tensor:
    """Apply `value` to every graph's column of every feature; an empty graph's value is 0."""
    out = torch.zeros(len(count), x.shape[1], dtype=dtype)
    for graph in range(len(count)):
        rows = x[index == graph]
        for feature in range(x.shape[1]) if len(rows) else ():
            out[graph, feature] = value(rows[:, feature].tolist(), dtype)
    return out


def _rounded(value: float | Fraction, dtype: torch.dtype) -> float:
    if isinstance(value, float) and not math.isfinite(value):
        return value
    return round_once(Fraction(value), dtype)


def _total(column: Column) -> Fraction | float:
    """Return the exact sum; if the column has NaN or infinities, their sum by IEEE 754."""
    special = [value for value in column if not math.isfinite(value)]
    return sum(special) if special else sum(map(Fraction, column), Fraction(0))


def _sum(column: Column, dtype: torch.dtype) -> float | int:
    total = _total(column)
    return _rounded(total, dtype) if dtype.is_floating_point else int(total)


def _mean(column: Column, dtype: torch.dtype) -> float:
    return _rounded(_total(column) / len(column), dtype)


def _max(column: Column, dtype: torch.dtype) -> float | int:
    return math.nan if any(map(math.isnan, column)) else max(column, key=_order)


def _min(column: Column, dtype: torch.dtype) -> float | int:
    return math.nan if any(map(math.isnan, column)) else min(column, key=_order)


def _order(value: float) -> tuple[float, float]:
    """Return the sort key of a number by IEEE 754 `maximum`, with -0 below +0."""
    return value, math.copysign(1.0, value)


def _deviations(column: Column) -> list[float]:
    mean = _mean(column, torch.float64)
    return [float(value) - mean for value in column]


def _var(column: Column, dtype: torch.dtype) -> float:
    return _mean([deviation * deviation for deviation in _deviations(column)], dtype)


def _std(column: Column, dtype: torch.dtype) -> float:
    return _rounded(math.sqrt(_var(column, torch.float64)), dtype)


def _ties(column: Column, extreme: float) -> list[bool]:
    return [value == extreme or (value != value and extreme != extreme) for value in column]


def _share(grad: float, column: Column, position: int, extreme: float) -> float:
    ties = _ties(column, extreme)
    return grad / sum(ties) if ties[position] else 0.0


def _std_sensitivity(grad: float, column: Column, position: int) -> float:
    std = _std(column, torch.float64)
    return 0.0 if std == 0 else grad * (_deviations(column)[position] / (len(column) * std))


REDUCTIONS: dict[str, Callable[[Column, torch.dtype], float]] = {
    "sum": _sum,
    "mean": _mean,
    "max": _max,
    "min": _min,
    "var": _var,
    "std": _std,
}

SENSITIVITIES: dict[str, Callable[[float, Column, int], float]] = {
    "sum": lambda grad, column, position: grad,
    "mean": lambda grad, column, position: grad / len(column),
    "max": lambda grad, column, position: _share(grad, column, position, _max(column, torch.float64)),
    "min": lambda grad, column, position: _share(grad, column, position, _min(column, torch.float64)),
    "var": lambda grad, column, position: 2.0 * grad * (_deviations(column)[position] / len(column)),
    "std": _std_sensitivity,
}
