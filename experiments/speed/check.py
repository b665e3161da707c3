"""Correctness gate: compare a contender's output and gradient with the oracle, before anybody times it.

A contender may add in any order, in the dtype of x: with random data its error stays below
4 sqrt(n) eps sum |x| (the probabilistic bound of Higham and Mary, SIAM J. Sci. Comput. 2019, with lambda = 8;
the certain bound, n eps sum |x|, would let anything pass where n is large), and one rounding of the result.
For variances the sum is that of x^2, since E[x^2] - E[x]^2 is what most packages compute. Extremes and
medians must be equal. Where nodes tie for one of these, contenders may share the gradient as they like, so
their shares are compared in sum; ours must be equal.

Ours must moreover be rounded to nearest: on a random sample of graphs and features, no number of the dtype is
nearer to the rational value than the result. And a batch whose nodes are shuffled must give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from experiments.speed.cases import WEIGHTED, Batch
from experiments.speed.oracle import SELECTIONS, Truth, exact_value, is_nearest
from experiments.speed.weighted import expected_weighted

WORST = 1e12
GRADIENT_ROUNDINGS = 12
WEIGHTED_ROUNDINGS = 32
CHUNK = 2**20  # entries of a gradient that are compared at once


class Deviation(NamedTuple):
    """How far a result is from the truth, in units of what is allowed."""

    what: str
    size: float

    @property
    def right(self) -> bool:
        """Whether it is within what is allowed."""
        return self.size <= 1


Check = Callable[[Tensor, Tensor | None, bool], Deviation]


def make_check(truth: Truth, reduce: Sequence[str], gradient: Tensor | None) -> Check:
    """Return a function of output, gradient of x and whether the contender is ours."""
    expected = Weighted(truth, reduce[0], gradient) if reduce[0] in WEIGHTED else None
    return expected.check if expected else Elementary(truth, reduce, gradient).check


def worst(*deviations: Deviation) -> Deviation:
    """The largest of them."""
    return max(deviations, key=lambda deviation: deviation.size)


def largest(deviations: Tensor) -> float:
    """The largest entry; the worst there is for NaN."""
    most = deviations.max().item() if deviations.numel() else 0.0
    return WORST if math.isnan(most) else min(most, WORST)


def wrong_layout(
    found: Tensor | None, shape: Sequence[int], dtype: torch.dtype, what: str
) -> list[Deviation]:
    """A deviation where a result has another shape or dtype than it should."""
    if found is not None and tuple(found.shape) == tuple(shape) and found.dtype == dtype:
        return []
    seen = "nothing" if found is None else f"{tuple(found.shape)} of {found.dtype}"
    return [Deviation(f"{what}: {seen} instead of {tuple(shape)} of {dtype}", WORST)]


class Elementary:
    """Check sums, means, extremes, variances and medians, side by side."""

    def __init__(self, truth: Truth, reduce: Sequence[str], gradient: Tensor | None) -> None:
        """Take the gradient of the outputs [B, R * F], if backward is to be checked, too."""
        self.truth, self.reduce, self.gradient = truth, reduce, gradient
        self.x = truth.batch.x.detach()
        self.eps, self.tiny = torch.finfo(self.x.dtype).eps, torch.finfo(self.x.dtype).tiny

    def check(self, out: Tensor, slope: Tensor | None, ours: bool = False) -> Deviation:
        """The largest deviation; NaN counts as the worst."""
        shape = (self.truth.batch.size, len(self.reduce) * self.x.shape[1])
        found = wrong_layout(out, shape, self.x.dtype, "output")
        if not found:
            blocks = list(zip(self.reduce, self._blocks(out), strict=True))
            found = [self._values(name, block) for name, block in blocks]
            found += [self._rounding(name, block) for name, block in blocks if ours]
        if self.gradient is not None:
            found += wrong_layout(slope, self.x.shape, self.x.dtype, "gradient") or [
                GradientCheck(self, ours).check(slope)  # type: ignore[arg-type]
            ]
        return worst(*found)

    def _blocks(self, out: Tensor) -> tuple[Tensor, ...]:
        return out.detach().cpu().chunk(len(self.reduce), dim=1)

    def _values(self, name: str, block: Tensor) -> Deviation:
        truth = self.truth
        if name in SELECTIONS:
            rows = truth.checked_graphs(name)
            equal = block.double()[rows].equal(getattr(truth, name)[rows])
            return Deviation(name, 0 if equal else WORST)
        found, right, scale = (
            block.double(),
            getattr(truth, "var" if name == "std" else name),
            1 / truth.divisor,
        )
        if name in ("var", "std"):
            found = found.square() if name == "std" else found
            bound, roundings = 8 * truth.count.sqrt() * truth.squares, 4
        else:
            scale = scale if name == "mean" else torch.ones(())
            bound, roundings = 4 * truth.count.sqrt() * truth.magnitude * scale, 1
        allowed = self.eps * (bound + roundings * right.abs()) + self.tiny
        return Deviation(name, largest((found - right).abs() / allowed))

    def _rounding(self, name: str, block: Tensor) -> Deviation:
        wrong = name not in SELECTIONS and not all(
            is_nearest(block[entry.graph, entry.feature], exact_value(name, entry.values))
            for entry in self.truth.sample
        )
        return Deviation(f"rounding of {name}", WORST if wrong else 0)

    def parts(self) -> dict[str, Tensor]:
        """The gradient of the outputs of each reduction, float64 [B, F]."""
        assert self.gradient is not None
        return {
            name: block.double() for name, block in zip(self.reduce, self._blocks(self.gradient), strict=True)
        }


class GradientCheck:
    """Compare the gradient of x, chunk of rows by chunk.

    For every graph and feature it is a + b x, and a share for the nodes that have the selected value.
    """

    def __init__(self, expected: Elementary, ours: bool) -> None:
        """Compute a, b and the share."""
        self.expected, self.ours = expected, ours
        x, truth, parts = expected.x, expected.truth, expected.parts()
        self.dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.selected = next((name for name in parts if name in SELECTIONS), None)
        nothing = torch.zeros_like(truth.sum)
        base, slope, size, steep = nothing, nothing, nothing, nothing
        for name, part in parts.items():
            if name in ("sum", "mean"):
                part = part / truth.divisor if name == "mean" else part
                base, size = base + part, size + part.abs()
            elif name in ("var", "std"):
                base, slope, loss = spread_gradient(truth, name, part)
                of_mean = slope.abs() * truth.magnitude / truth.divisor.sqrt()
                size, steep = loss * base.abs() + of_mean, loss * slope.abs()
        self.base, self.slope, self.size, self.steep = map(self._placed, (base, slope, size, steep))
        self.slanted = not {"var", "std"}.isdisjoint(parts)
        if self.selected:
            self.value = self._placed(getattr(truth, self.selected))
            self.given = self._placed(parts[self.selected])
            self.checked = truth.checked_graphs(self.selected).to(x.device)
            self.ties = self._count_ties()

    def _placed(self, values: Tensor) -> Tensor:
        return values.to(self.expected.x.device, self.dtype)

    def _chunks(self) -> Sequence[slice]:
        nodes, features = self.expected.x.shape
        step = max(1, CHUNK // max(1, features))
        return [slice(start, start + step) for start in range(0, nodes, step)]

    def _count_ties(self) -> Tensor:
        ties, index = torch.zeros_like(self.value), self.expected.truth.batch.index
        for rows in self._chunks():
            ties.index_add_(0, index[rows], self._winners(rows).to(ties))
        return ties.clamp_(min=1)

    def _winners(self, rows: slice) -> Tensor:
        index = self.expected.truth.batch.index[rows]
        return self.expected.x[rows].to(self.dtype) == self.value[index]

    def check(self, gradient: Tensor) -> Deviation:
        """The largest deviation of a gradient, and of the sums of the shares of nodes that tie."""
        found = [Deviation("gradient", 0)]
        shares = torch.zeros_like(self.value) if self.selected and not self.ours else None
        for rows in self._chunks():
            found.append(Deviation("gradient", self._chunk(gradient[rows].to(self.dtype), rows, shares)))
        if shares is not None:
            allowed = GRADIENT_ROUNDINGS * self.expected.eps * self.ties * (self.given.abs() + self.size)
            far = (shares - self.given).abs() / (allowed + self.expected.tiny)
            found.append(Deviation("gradient among ties", largest(far[self.checked])))
        return worst(*found)

    def _chunk(self, gradient: Tensor, rows: slice, shares: Tensor | None) -> float:
        """Compare some rows; add the shares of the selected nodes to `shares`, or compare them, too."""
        index, x = self.expected.truth.batch.index[rows], self.expected.x[rows].to(self.dtype)
        left, allowed = gradient - self.base[index], self.size[index]
        if self.slanted:
            left -= self.slope[index] * x
            allowed += self.steep[index] * x.abs()
        if self.selected:
            winners = self._winners(rows)
            if shares is not None:
                shares.index_add_(0, index, left.where(winners, 0))
                left.masked_fill_(winners, 0)
            else:
                share = (self.given / self.ties)[index]
                left -= share.where(winners, 0)
                allowed += share.abs_()
            left.masked_fill_(~self.checked[index].unsqueeze(1), 0)
        allowed.mul_(GRADIENT_ROUNDINGS * self.expected.eps).add_(self.expected.tiny)
        return largest(left.abs_().div_(allowed))


def spread_gradient(truth: Truth, name: str, part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of var or std as a + b x, and by how much its rounding errors are magnified.

    Where a standard deviation comes from E[x^2] - E[x]^2, its gradient has the relative error of that. The
    error of the mean itself is added by the caller.
    """
    slope, loss = 2 * part / truth.divisor, torch.ones_like(part)
    if name == "std":
        positive = truth.var > 0
        slope = torch.where(positive, slope / (2 * truth.var.sqrt()), 0)
        loss = torch.where(positive, 1 + truth.count.sqrt() * truth.squares / truth.var, 1)
    return -slope * truth.mean, slope, loss


class Weighted:
    """Check softmax and attention readouts, gradients too, against float64."""

    def __init__(self, truth: Truth, name: str, gradient: Tensor | None) -> None:
        """Compute the right output and gradient."""
        self.x = truth.batch.x
        self.out, self.slope = expected_weighted(truth.batch, name, gradient)

    def check(self, out: Tensor, slope: Tensor | None, ours: bool = False) -> Deviation:
        """The largest difference, in units of what is allowed beside the largest entry of a feature."""
        found = [self._compare("output", out, self.out)]
        if self.slope is not None:
            found.append(self._compare("gradient", slope, self.slope))
        return worst(*found)

    def _compare(self, what: str, found: Tensor | None, right: Tensor) -> Deviation:
        if wrong := wrong_layout(found, right.shape, self.x.dtype, what):
            return wrong[0]
        assert found is not None
        allowed = WEIGHTED_ROUNDINGS * torch.finfo(found.dtype).eps * right.abs().amax(dim=0)
        return Deviation(what, largest((found.detach().double() - right).abs() / allowed.clamp(min=1e-30)))


def same_bits(one: Tensor | None, other: Tensor | None) -> bool:
    """Return whether two results have the same bits."""
    if one is None or other is None:
        return one is other
    as_integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    return one.dtype == other.dtype and one.view(as_integers).equal(other.view(as_integers))


def check_shuffle(
    run: Callable[[Batch, Tensor | None], tuple[Tensor, Tensor | None]],
    batch: Batch,
    gradient: Tensor | None,
    out: Tensor,
    slope: Tensor | None,
) -> Deviation:
    """Run a contender on the same nodes in another order, and compare bits of output and gradient."""
    other, order = batch.shuffled
    again, moved = run(other, gradient)
    same = same_bits(out.detach(), again.detach())
    if slope is not None:
        same = same and same_bits(slope[order], moved)
    return Deviation("bits after a shuffle", 0 if same else WORST)
