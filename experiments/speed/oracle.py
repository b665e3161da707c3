"""The right values of a batch: every reduction in float64, and in rational arithmetic on a random sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from experiments.speed.cases import Batch

SAMPLE, SAMPLED_NODES = 64, 2_000_000
BLOCK = 2**24  # numbers that are converted to float64 at once
MEDIANS = 2**23  # numbers whose medians are looked up
SELECTIONS = ("max", "min", "median")


class Entry(NamedTuple):
    """One graph and feature, and the values of its nodes."""

    graph: int
    feature: int
    values: list[float]


class Truth:
    """Right values of every graph and feature, computed once for all cases with the same batch."""

    def __init__(self, batch: Batch) -> None:
        """Reduce with NumPy, on the CPU."""
        self.batch = batch
        self.count = batch.count.cpu().double().unsqueeze(1)
        self.ptr = batch.ptr.cpu().numpy()
        self.filled = np.flatnonzero(np.diff(self.ptr))

    @cached_property
    def grouped(self) -> Tensor:
        """Features graph by graph, in float32 or wider, on the CPU."""
        x = self.batch.x.detach()
        x = (x[self.batch.order] if self.batch.unsorted else x).cpu()
        return x if x.dtype == torch.float64 else x.float()

    def _reduce(self, operation: np.ufunc, change: Callable[[Tensor, slice], Tensor]) -> Tensor:
        """Reduce the changed rows of every graph in float64, block of columns by block; 0 without rows."""
        out = np.zeros((self.batch.size, self.grouped.shape[1]))
        for columns in self._columns():
            values = change(self.grouped[:, columns].double(), columns).numpy()
            out[self.filled, columns] = operation.reduceat(values, self.ptr[self.filled], axis=0)
        return torch.from_numpy(out)

    def _columns(self) -> Iterator[slice]:
        nodes, features = self.grouped.shape
        step = max(1, BLOCK // max(1, nodes))
        return (slice(start, start + step) for start in range(0, features, step) if nodes)

    @cached_property
    def sum(self) -> Tensor:
        """Sums of x."""
        return self._reduce(np.add, lambda x, _: x)

    @cached_property
    def magnitude(self) -> Tensor:
        """Sums of |x|."""
        return self._reduce(np.add, lambda x, _: x.abs())

    @cached_property
    def squares(self) -> Tensor:
        """Means of x^2."""
        return self._reduce(np.add, lambda x, _: x.square()) / self.divisor

    @property
    def divisor(self) -> Tensor:
        """Number of nodes, 1 for empty graphs."""
        return self.count.clamp(min=1)

    @property
    def mean(self) -> Tensor:
        """Means of x."""
        return self.sum / self.divisor

    @cached_property
    def var(self) -> Tensor:
        """Variances, by deviations from the mean."""
        index = torch.arange(self.batch.size).repeat_interleave(self.count.squeeze(1).long())
        mean = self.mean
        deviation = lambda x, columns: (x - mean[:, columns][index]).square()  # noqa: E731
        return self._reduce(np.add, deviation) / self.divisor

    @cached_property
    def max(self) -> Tensor:
        """Maxima, which are exact."""
        return self._reduce(np.maximum, lambda x, _: x)

    @cached_property
    def min(self) -> Tensor:
        """Minima, which are exact."""
        return self._reduce(np.minimum, lambda x, _: x)

    @cached_property
    def median(self) -> Tensor:
        """Lower medians of `checked` graphs; 0 for all others."""
        out = torch.zeros_like(self.sum)
        for graph in self.checked.nonzero().squeeze(1).tolist():
            rows = self.grouped[self.ptr[graph] : self.ptr[graph + 1]].numpy()
            if len(rows):
                middle = (len(rows) - 1) // 2
                out[graph] = torch.from_numpy(np.partition(rows, middle, axis=0)[middle]).double()
        return out

    @cached_property
    def checked(self) -> Tensor:
        """Which graphs have their medians looked up: all, or as many as there is patience for, bool [B]."""
        numbers = (self.count.squeeze(1) * self.grouped.shape[1]).cumsum(0)
        return (numbers <= MEDIANS) | (torch.arange(self.batch.size) == 0)

    def checked_graphs(self, name: str) -> Tensor:
        """Which graphs a reduction is compared on, bool [B]."""
        return self.checked if name == "median" else torch.ones(self.batch.size, dtype=torch.bool)

    @cached_property
    def sample(self) -> list[Entry]:
        """Some entries with the values of their nodes; the fewer the more nodes the graphs have."""
        generator = np.random.default_rng(0)
        found: list[Entry] = []
        nodes = 0
        for graph in generator.choice(self.filled, SAMPLE).tolist() if len(self.filled) else []:
            feature = int(generator.integers(self.grouped.shape[1]))
            values = self.grouped[self.ptr[graph] : self.ptr[graph + 1], feature].tolist()
            found.append(Entry(graph, feature, values))
            nodes += len(values)
            if nodes > SAMPLED_NODES:
                break
        return found


def exact_sum(values: Sequence[float]) -> Fraction:
    """Add floats as a fraction, by integers: every finite float is a multiple of 2^-1074."""
    shift = 1074
    return Fraction(
        sum(n << (shift - d.bit_length() + 1) for n, d in map(float.as_integer_ratio, values)), 1 << shift
    )


def exact_value(name: str, values: Sequence[float]) -> Fraction:
    """The value of a reduction as docs/readouts.md defines it, before its last rounding.

    Deviations from the mean, their squares and the variance under a root are rounded to float64.
    """
    total = exact_sum(values)
    if name == "sum":
        return total
    mean = total / len(values)
    if name == "mean":
        return mean
    centre = float(mean)
    variance = exact_sum([(value - centre) ** 2 for value in values]) / len(values)
    return variance if name == "var" else Fraction(math.sqrt(float(variance)))


def is_nearest(result: Tensor, value: Fraction) -> bool:
    """Return whether no number of the dtype is nearer to the value than the result."""
    if not torch.isfinite(result):
        return False
    neighbours = [torch.nextafter(result, torch.full_like(result, end)) for end in (-torch.inf, torch.inf)]
    error = abs(Fraction(result.item()) - value)
    return all(error <= abs(Fraction(other.item()) - value) for other in neighbours if torch.isfinite(other))
