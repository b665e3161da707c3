"""Sums of a few float64 numbers with all of their rounding errors, on tensors.

An error-free transformation replaces a + b or a * b by its rounded value and the error of that rounding,
which is a float64 number too (Dekker 1971; Ogita, Rump & Oishi, "Accurate sum and dot product", 2005). A sum
of many terms is kept as two numbers and a bound on the error of these, often 0. A result is certain if both
ends of its error interval round to the same number (Ziv 1991).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from readouts.numerics.rounding import narrowed

SPLITTER = 2.0**27 + 1
LEAST, GREATEST = 2.0**-300, 2.0**300


def two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return a + b rounded, and the error of that rounding."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def two_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return a * b rounded, and the error of that rounding."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = halves(a), halves(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def halves(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return two numbers with half of the digits each, whose sum is a."""
    scaled = a * SPLITTER
    high = scaled - (scaled - a)
    return high, a - high


def total_of(terms: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sum of terms as high + low, and a bound on the error of these."""
    high = low = bound = torch.zeros((), dtype=torch.float64)
    for term in terms:
        high, error = two_sum(high, term)
        low, rest = two_sum(low, error)
        bound = bound + rest.abs()
    return *two_sum(high, low), 2 * bound


def quotient(terms: Iterable[Tensor], nodes: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the sum of float64 terms over n, rounded once to `dtype`, in float64, and where that is certain.

    It is not certain where the middle of two numbers lies in the error interval. n is from 1 to 2^31 - 1.
    """
    count = nodes.double()
    high, low, bound = total_of(terms)
    ratio = high / count
    product, error = two_product(ratio, count)
    rest = (((high - product) - error) + low) / count
    relative = 2.0**-100 if dtype == torch.float64 else 2.0**-50  # wider than a rounding to float64
    bound = ratio.abs() * relative + bound / count
    lower, upper = (narrowed(ratio + (rest + side), dtype).double() for side in (-bound, bound))
    return lower, (lower == upper) & _is_safe(high)


def variance(
    sums: list[Tensor], squares: list[Tensor], mean: Tensor, nodes: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return `quotient` of sum_i (x_i - mean)^2, from terms of sum_i x_i and of sum_i x_i^2."""
    values, certain = quotient(_deviations(sums, squares, mean, nodes.double()), nodes, dtype)
    return values, certain & _is_safe(mean)


def _deviations(sums: list[Tensor], squares: list[Tensor], mean: Tensor, count: Tensor) -> Iterator[Tensor]:
    """Yield numbers whose exact sum is sum_i x_i^2 - 2 mean sum_i x_i + n mean^2."""
    yield from squares
    for term in sums:
        for part in two_product(mean, term):
            yield -2 * part
    for square in two_product(mean, mean):
        yield from two_product(square, count)


def _is_safe(values: Tensor) -> Tensor:
    """Return where squares and their errors neither underflow nor overflow."""
    size = values.abs()
    return (size == 0) | ((size > LEAST) & (size < GREATEST))
