"""Correctness gate: compare a contender's output and gradient with the oracle, before anybody times it.

A contender may add in any order, in the dtype of x: with random data its error stays below
4 sqrt(n) eps sum |x| (the probabilistic bound of Higham and Mary, SIAM J. Sci. Comput. 2019, with lambda = 8;
the certain bound, n eps sum |x|, would let anything pass where n is large), and one rounding of the result.
For variances the sum is that of x^2, since E[x^2] - E[x]^2 is what most packages compute. Extremes and
medians must be equal. Where nodes tie for one of these, contenders may share the gradient as they like, so
their shares are compared in sum; ours must be equal.

Ours must moreover be rounded to nearest: on a random sample of graphs and features, a result must be the
rational value, rounded once. And a batch whose nodes are shuffled must give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from experiments.speed.batches import Batch
from experiments.speed.grid import WEIGHTED
from experiments.speed.oracle import MAGNITUDE, SELECTIONS, SQUARES, Truth

WORST = 1e12
GRADIENT_ROUNDINGS = 12
WEIGHTED_ROUNDINGS = 32
CHUNK = 2**20  # entries of a gradient that are compared at once


class Deviation(NamedTuple):
    """How far a result is from the truth, in units of what is allowed."""

    size: float
    what: str

    @property
    def right(self) -> bool:
        """Whether it is within what is allowed."""
        return self.size <= 1


Check = Callable[[Tensor, Tensor | None, bool], Deviation]


def make_check(truth: Truth, reduce: Sequence[str], gradient: Tensor | None) -> Check:
    """Return a function of output, gradient of x and whether the contender is ours.

    `gradient` is that of the outputs [B, R * F], or None where there is no backward pass.
    """
    x = truth.batch.x
    shape = (truth.batch.size, len(reduce) * x.shape[1])
    parts = {} if gradient is None else dict(zip(reduce, blocks_of(gradient, reduce), strict=True))
    if reduce[0] in WEIGHTED:
        values, slopes = weighted_checks(truth, reduce[0], gradient)
    else:
        values, slopes = elementary_check(truth, reduce), GradientCheck(truth, parts) if parts else None

    def check(out: Tensor, slope: Tensor | None, ours: bool = False) -> Deviation:
        found = wrong_layout(out, shape, x.dtype, "output") or values(out, ours)
        if slopes and slope is not None:
            found += wrong_layout(slope, x.shape, x.dtype, "gradient") or slopes(slope, ours)
        elif slopes:
            found.append(Deviation(WORST, "gradient: none"))
        return max(found, key=lambda deviation: deviation.size)

    return check


def distance(what: str, difference: Tensor, allowed: Tensor) -> Deviation:
    """The largest difference in units of what is allowed; NaN counts as the worst."""
    far = (difference.abs() / allowed).masked_fill_(difference == 0, 0)
    most = far.max().item() if far.numel() else 0.0
    return Deviation(WORST if math.isnan(most) else min(most, WORST), what)


def wrong_layout(found: Tensor, shape: Sequence[int], dtype: torch.dtype, what: str) -> list[Deviation]:
    """A deviation where a result has another shape or dtype than it should."""
    if tuple(found.shape) == tuple(shape) and found.dtype == dtype:
        return []
    seen = f"{tuple(found.shape)} of {found.dtype}"
    return [Deviation(WORST, f"{what}: {seen} instead of {tuple(shape)} of {dtype}")]


Compare = Callable[[Tensor, bool], list[Deviation]]


def weighted_checks(truth: Truth, name: str, gradient: Tensor | None) -> tuple[Compare, Compare | None]:
    """Compare softmax and attention readouts: differences beside the largest entry of a feature."""

    def against(what: str, right: Tensor) -> Compare:
        eps = torch.finfo(truth.batch.x.dtype).eps
        allowed = (WEIGHTED_ROUNDINGS * eps * right.abs().amax(dim=0)).clamp(min=1e-30)
        return lambda found, ours: [distance(what, found.detach().double() - right, allowed)]

    out, slope = truth.weighted(name, gradient)
    return against("output", out), None if slope is None else against("gradient", slope)


def elementary_check(truth: Truth, reduce: Sequence[str]) -> Compare:
    """Compare sums, means, extremes, variances and medians, side by side."""
    info = torch.finfo(truth.batch.x.dtype)

    def compare(name: str, found: Tensor) -> Deviation:
        right = truth.of("var" if name == "std" else name)
        if name in SELECTIONS:
            return distance(name, found - right, torch.zeros(()))
        if name in ("var", "std"):
            found = found.square() if name == "std" else found
            error = 8 * truth.count.sqrt() * truth.of(SQUARES) / truth.divisor + 4 * right.abs()
        else:
            scale = truth.divisor if name == "mean" else 1
            error = 4 * truth.count.sqrt() * truth.of(MAGNITUDE) / scale + right.abs()
        return distance(name, found - right, info.eps * error + info.tiny)

    def check(out: Tensor, ours: bool) -> list[Deviation]:
        found = []
        for name, block in zip(reduce, blocks_of(out, reduce), strict=True):
            found.append(compare(name, block.double()))
            if ours and name not in SELECTIONS:
                nearest = block[truth.sample].equal(truth.of(name, rounded=True))
                found.append(Deviation(0 if nearest else WORST, f"rounding of {name}"))
        return found

    return check


def blocks_of(out: Tensor, reduce: Sequence[str]) -> tuple[Tensor, ...]:
    """The part [B, F] of each reduction, on the CPU."""
    return out.detach().cpu().chunk(len(reduce), dim=1)


class GradientCheck:
    """Compare the gradient of x, chunk of rows by chunk.

    For every graph and feature it is a + b x, and a share for the nodes that have the selected value. Where a
    standard deviation comes from E[x^2] - E[x]^2, its gradient has the relative error of that.
    """

    def __init__(self, truth: Truth, parts: Mapping[str, Tensor]) -> None:
        """Compute a, b and the share for these gradients of the outputs of each reduction."""
        self.x, self.index = truth.batch.x.detach(), truth.batch.index
        self.eps, self.tiny = torch.finfo(self.x.dtype).eps, torch.finfo(self.x.dtype).tiny
        self.dtype = torch.float64 if self.x.dtype == torch.float64 else torch.float32
        base, slope, size, steep = torch.zeros(4, *truth.of("sum").shape, dtype=torch.float64)
        for name, part in ((name, part.double()) for name, part in parts.items()):
            if name in ("sum", "mean"):
                part = part / truth.divisor if name == "mean" else part
                base, size = base + part, size + part.abs()
            elif name in ("var", "std"):
                slope, loss = 2 * part / truth.divisor, torch.ones_like(part)
                if name == "std":
                    positive, var = truth.of("var") > 0, truth.of("var")
                    slope = torch.where(positive, slope / (2 * var.sqrt()), 0)
                    loss = torch.where(positive, 1 + truth.of(SQUARES) / truth.count.sqrt() / var, 1)
                base = -slope * truth.of("mean")
                of_mean = slope.abs() * truth.of(MAGNITUDE) / truth.divisor.sqrt()
                size, steep = loss * base.abs() + of_mean, loss * slope.abs()
        self.base, self.slope, self.size, self.steep = map(self._placed, (base, slope, size, steep))
        self.selected = next((name for name in parts if name in SELECTIONS), None)
        if self.selected:
            self.value, self.given = map(self._placed, (truth.of(self.selected), parts[self.selected]))
            ties = torch.zeros_like(self.value)
            for _, x, index in self._chunks():
                ties.index_add_(0, index, (x == self.value[index]).to(ties))
            self.ties = ties.clamp_(min=1)

    def _placed(self, values: Tensor) -> Tensor:
        return values.to(self.x.device, self.dtype)

    def _chunks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        step = max(1, CHUNK // max(1, self.x.shape[1]))
        for start in range(0, len(self.x), step):
            rows = slice(start, start + step)
            yield rows, self.x[rows].to(self.dtype), self.index[rows]

    def __call__(self, gradient: Tensor, ours: bool) -> list[Deviation]:
        """The deviations of a gradient, and of the sums of the shares of nodes that tie."""
        found = [Deviation(0, "gradient")]
        shares = torch.zeros_like(self.base)
        for rows, x, index in self._chunks():
            left = gradient[rows].to(self.dtype) - self.base[index] - self.slope[index] * x
            allowed = self.size[index] + self.steep[index] * x.abs()
            if self.selected:
                winners = x == self.value[index]
                if ours:
                    share = (self.given / self.ties)[index].where(winners, 0)
                    left, allowed = left - share, allowed + share.abs()
                else:
                    shares.index_add_(0, index, left.where(winners, 0))
                    left = left.masked_fill(winners, 0)
            found.append(distance("gradient", left, self._roundings(allowed)))
        if self.selected and not ours:
            allowed = self._roundings(self.ties * (self.given.abs() + self.size))
            found.append(distance("gradient among ties", shares - self.given, allowed))
        return found

    def _roundings(self, size: Tensor) -> Tensor:
        return GRADIENT_ROUNDINGS * self.eps * size + self.tiny


def same_bits(one: Tensor | None, other: Tensor | None) -> bool:
    """Return whether two results have the same bits."""
    if one is None or other is None:
        return one is other
    as_integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    return one.dtype == other.dtype and one.view(as_integers).equal(other.view(as_integers))


Results = tuple[Tensor, Tensor | None]


def check_shuffle(
    run: Callable[[Batch, Tensor | None], Results], batch: Batch, gradient: Tensor | None
) -> Deviation:
    """Run a contender on the same nodes in two orders, and compare bits of output and gradient."""
    other, order = batch.shuffled
    (out, slope), (again, moved) = run(batch, gradient), run(other, gradient)
    same = same_bits(out, again) and same_bits(None if slope is None else slope[order], moved)
    return Deviation(0 if same else WORST, "bits after a shuffle")
