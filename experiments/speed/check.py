"""Whether a contender's result is right, before anybody times it.

Sums of floats are compared with float64 sums. A contender may add up in any order, in the dtype of x: with
random data its error stays below 4 sqrt(n) eps sum |x| (the probabilistic bound of Higham and Mary, SIAM J.
Sci. Comput. 2019, with lambda = 8; the certain bound, n eps sum |x|, would let anything pass where n is
large), and one rounding of the result. A maximum must be equal. A gradient is a sum of three products, so a
few eps. Where nodes tie for the maximum, others may share the gradient as they like, so their shares are
compared in sum; ours must be equal.

Ours with `exact=True` must moreover be the rational sum, rounded to nearest: on a random sample of graphs and
features no number of the dtype is nearer to the sum of fractions than the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from experiments.speed.shapes import Batch

SAMPLE, SAMPLED_NODES = 64, 2_000_000
WORST = 1e12


class Deviation(NamedTuple):
    """How far something is from the truth, in units of what is allowed."""

    what: str
    size: float

    @property
    def right(self) -> bool:
        """Whether it is within what is allowed."""
        return self.size <= 1


def worst(*deviations: Deviation) -> Deviation:
    """The largest of them."""
    return max(deviations, key=lambda deviation: deviation.size)


class Truth:
    """Sum, sum of sizes, maximum and number of nodes that reach it, of every graph and feature of a batch."""

    def __init__(self, batch: Batch) -> None:
        """Reduce with NumPy, on the CPU, in float64."""
        self.batch = batch
        self.count = batch.count.cpu().double().unsqueeze(1)
        self._ptr = batch.ptr.cpu().numpy()

    def _reduce(self, operation: np.ufunc, values: Tensor, dtype: type) -> Tensor:
        """Reduce the rows of every graph; 0 where there is none."""
        filled = np.flatnonzero(np.diff(self._ptr))
        out: np.ndarray = np.zeros((self.batch.size, values.shape[1]), dtype)
        out[filled] = operation.reduceat(values.numpy(), self._ptr[filled], axis=0, dtype=dtype)
        return torch.from_numpy(out)

    @cached_property
    def grouped(self) -> Tensor:
        """Features graph by graph, in float32 or wider, on the CPU."""
        x = self.batch.grouped.detach().cpu()
        return x if x.dtype == torch.float64 else x.float()

    @cached_property
    def sum(self) -> Tensor:
        """Sums in float64."""
        return self._reduce(np.add, self.grouped, np.float64)

    @cached_property
    def sum_of_sizes(self) -> Tensor:
        """Sums of |x| in float64."""
        return self._reduce(np.add, self.grouped.abs(), np.float64)

    @cached_property
    def max(self) -> Tensor:
        """Maxima, which are exact."""
        return self._reduce(np.maximum, self.grouped, self.grouped.numpy().dtype.type)

    @cached_property
    def winner(self) -> Tensor:
        """Which node and feature reaches the maximum, in the order of the batch, on its device."""
        return self.batch.x.detach() == self.max.to(self.batch.x)[self.batch.index]

    @cached_property
    def ties(self) -> Tensor:
        """How many nodes reach the maximum."""
        winner = self.winner[self.batch.order] if self.batch.shuffled else self.winner
        return self._reduce(np.add, winner.cpu().to(torch.int64), np.int64).double()

    @cached_property
    def sample(self) -> list[tuple[int, int, Fraction]]:
        """Graph, feature and exact sum, for some entries; the fewer the more nodes the graphs have."""
        generator = np.random.default_rng(0)
        filled = np.flatnonzero(np.diff(self._ptr))
        found, nodes = [], 0
        for graph in generator.choice(filled, SAMPLE).tolist() if len(filled) else []:
            feature = int(generator.integers(self.grouped.shape[1]))
            start, end = self._ptr[graph : graph + 2]
            found.append((graph, feature, exact_sum(self.grouped[start:end, feature].tolist())))
            nodes += end - start
            if nodes > SAMPLED_NODES:
                break
        return found


def exact_sum(values: Sequence[float]) -> Fraction:
    """The sum of floats as a fraction, by integers: every finite float is a multiple of 2^-1074."""
    shift = 1074
    return Fraction(
        sum(n << (shift - d.bit_length() + 1) for n, d in map(float.as_integer_ratio, values)), 1 << shift
    )


class Expected:
    """What outputs and gradient of some reductions should be, given the gradient of the outputs."""

    def __init__(self, truth: Truth, reduce: Sequence[str], gradient: Tensor | None) -> None:
        """Take the gradient of the outputs [B, R * F], if backward is to be checked, too."""
        self.truth, self.reduce, self.gradient = truth, reduce, gradient
        self.eps = torch.finfo(truth.batch.x.dtype).eps
        self.tiny = torch.finfo(truth.batch.x.dtype).tiny

    def check(
        self, out: Tensor, gradient: Tensor | None, ours: bool = False, exact: bool = False
    ) -> Deviation:
        """The largest deviation; NaN counts as the worst."""
        shape = (self.truth.batch.size, len(self.reduce) * self.truth.batch.x.shape[1])
        if out.shape != shape or out.dtype != self.truth.batch.x.dtype:
            return Deviation(f"{tuple(out.shape)} of {out.dtype} in the place of {shape}", WORST)
        found = [
            self._values(name, block) for name, block in zip(self.reduce, self._blocks(out), strict=True)
        ]
        if exact:
            found += [
                self._rounding(name, block)
                for name, block in zip(self.reduce, self._blocks(out), strict=True)
            ]
        if self.gradient is not None:
            found += self._gradient(gradient, ours)
        return worst(*found)

    def _blocks(self, out: Tensor) -> tuple[Tensor, ...]:
        return out.detach().cpu().chunk(len(self.reduce), dim=1)

    def _values(self, name: str, block: Tensor) -> Deviation:
        truth = self.truth
        if name == "max":
            return Deviation("max", 0 if block.to(truth.max.dtype).equal(truth.max) else WORST)
        divisor = truth.count.clamp(min=1) if name == "mean" else 1
        right = truth.sum / divisor
        bound = 4 * truth.count.sqrt() * self.eps * truth.sum_of_sizes / divisor
        return Deviation(
            name, largest((block.double() - right).abs() / (bound + self.eps * right.abs() + self.tiny))
        )

    def _rounding(self, name: str, block: Tensor) -> Deviation:
        if name == "max":
            return Deviation("max", 0)
        wrong = sum(
            not is_nearest(
                block[graph, feature], total / int(self.truth.count[graph]) if name == "mean" else total
            )
            for graph, feature, total in self.truth.sample
        )
        return Deviation(f"rounding of {name}", 0 if wrong == 0 else WORST)

    def _gradient(self, gradient: Tensor | None, ours: bool) -> list[Deviation]:
        x = self.truth.batch.x
        if gradient is None or gradient.shape != x.shape or gradient.dtype != x.dtype:
            return [Deviation("gradient of another shape or dtype", WORST)]
        difference = gradient.float() - self.gradient_of_x
        tied = None if ours else self.tied
        if tied is None:
            return [Deviation("gradient", largest(difference.abs_()) / self.gradient_bound)]
        rows = tied.any(dim=1).nonzero().squeeze(1)
        shares = torch.zeros_like(self.truth.max, dtype=torch.float32, device=x.device)
        shares.index_add_(0, self.truth.batch.index[rows], difference[rows] * tied[rows])
        bound = self.gradient_bound * self.truth.ties.max().item()
        return [
            Deviation("gradient", largest(difference.abs_().masked_fill_(tied, 0)) / self.gradient_bound),
            Deviation("gradient among ties", largest(shares.abs_()) / bound),
        ]

    @cached_property
    def _parts(self) -> dict[str, Tensor]:
        """What a node gets from each reduction, for every graph and feature, in float64."""
        assert self.gradient is not None
        parts = dict(zip(self.reduce, (block.double() for block in self._blocks(self.gradient)), strict=True))
        if "mean" in parts:
            parts["mean"] = parts["mean"] / self.truth.count.clamp(min=1)
        return parts

    @cached_property
    def gradient_of_x(self) -> Tensor:
        """The right gradient in float32, on the device of x; nodes that tie have equal shares."""
        batch = self.truth.batch
        nothing = torch.zeros_like(self.truth.sum)
        everyone = sum((self._parts[name] for name in self.reduce if name != "max"), start=nothing)
        result = everyone.float().to(batch.x.device)[batch.index]
        if "max" in self.reduce:
            share = (self._parts["max"] / self.truth.ties.clamp(min=1)).float().to(batch.x.device)
            result += torch.where(self.truth.winner, share[batch.index], 0)
        return result

    @cached_property
    def gradient_bound(self) -> float:
        """What a gradient may be off, everywhere: 8 eps of the largest sum of parts."""
        sizes = sum((part.abs() for part in self._parts.values()), start=torch.zeros(1))
        return 8 * self.eps * sizes.max().item() + self.tiny

    @cached_property
    def tied(self) -> Tensor | None:
        """Which nodes and features share a maximum with others; None if there are none."""
        if "max" not in self.reduce or self.truth.ties.max() <= 1:
            return None
        several = (self.truth.ties > 1).to(self.truth.batch.x.device)
        return self.truth.winner & several[self.truth.batch.index]


def largest(deviations: Tensor) -> float:
    """The largest of them; the worst there is for NaN."""
    most = deviations.max().item() if deviations.numel() else 0.0
    return WORST if math.isnan(most) else min(most, WORST)


def is_nearest(result: Tensor, value: Fraction) -> bool:
    """Whether no number of the dtype is nearer to the value than the result."""
    if not torch.isfinite(result):
        return False
    neighbours = [torch.nextafter(result, torch.full_like(result, end)) for end in (-torch.inf, torch.inf)]
    error = abs(Fraction(result.item()) - value)
    return all(error <= abs(Fraction(other.item()) - value) for other in neighbours if torch.isfinite(other))
