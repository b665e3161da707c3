"""Is one readout better than another? Paired differences over folds whose training parts overlap.

Folds share most of their training graphs, so a plain paired t-test takes chance for skill. Nadeau and Bengio
("Inference for the generalization error", Machine Learning 52, 2003) widen the variance by the share of
graphs that are tested: for k r differences d, from r repeats of k folds,

    t = mean(d) / sqrt((1 / (k r) + n_test / n_train) var(d)),    k r - 1 degrees of freedom.

Here n_train counts all graphs that are not tested, the hold-out too, for the selection learns from it:
n_test / n_train = 1 / (k - 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

LEVEL = 0.95
EQUIVALENCE = 0.01
DISAGREEMENT, POWER = 0.15, 0.8  # of two networks; of a test
SPREAD = 0.05  # of differences between sets, as believed before


@dataclass(frozen=True)
class Comparison:
    """A method against the reference: mean difference in accuracy, its interval, and p after Holm."""

    method: str
    difference: float
    low: float
    high: float
    p: float

    @property
    def differs(self) -> bool:
        """Whether chance is excluded."""
        return self.p < 1 - LEVEL

    @property
    def equivalent(self) -> bool:
        """Whether the interval is within one point."""
        return self.low > -EQUIVALENCE and self.high < EQUIVALENCE

    @property
    def better(self) -> bool | None:
        """Whether the method is better than the reference; None is undecided."""
        if self.differs:
            return self.difference > 0
        return False if self.equivalent else None

    @property
    def worse(self) -> bool:
        """Whether the method is worse."""
        return self.differs and self.difference <= 0

    @property
    def verdict(self) -> str:
        """In words: better or worse, by more than a point or not, equivalent, or undecided."""
        if self.differs:
            beyond = self.low > EQUIVALENCE or self.high < -EQUIVALENCE
            return f"{'worse' if self.worse else 'better'}{' by over 1 point' if beyond else ''}"
        return "equivalent" if self.equivalent else "undecided"

    @property
    def points(self) -> str:
        """The difference in points."""
        return f"{100 * self.difference:+.1f}"

    @property
    def bounds(self) -> str:
        """The interval in points."""
        return f"{100 * self.low:+.1f} to {100 * self.high:+.1f}"


def compare(
    accuracies: Mapping[str, Sequence[float]], reference: str, folds: int, planned: str | None = None
) -> list[Comparison]:
    """Compare each method with the reference, fold by fold, and correct for the number of comparisons.

    The one contrast that was planned, that of `planned` with the reference, stands for itself: its p is not
    corrected, and does not count among the others. Raises `ValueError` where methods do not have the same
    number of folds.
    """
    others = [method for method in accuracies if method != reference]
    against = np.asarray(accuracies[reference])
    for method in others:
        if len(accuracies[method]) != len(against):
            raise ValueError(
                f"accuracies: expected {len(against)} folds of {method}, got {len(accuracies[method])}"
            )
    found = [interval(np.asarray(accuracies[method]) - against, 1 / (folds - 1)) for method in others]
    searched = [place for place, method in enumerate(others) if method != planned]
    adjusted = [p for *_, p in found]
    for place, p in zip(searched, holm([adjusted[place] for place in searched]), strict=True):
        adjusted[place] = p
    return [
        Comparison(method, difference, low, high, p)
        for method, (difference, low, high, _), p in zip(others, found, adjusted, strict=True)
    ]


def interval(
    differences: NDArray[np.float64], test_by_train: float, level: float = LEVEL
) -> tuple[float, float, float, float]:
    """Mean difference, the bounds of its corrected interval, and the two-sided p of no difference.

    Differences that are all 0 are no difference. Where they are all the same otherwise, the folds are too few
    or too small to tell their spread: the interval is then all that is possible, and p is 1.
    """
    count, mean = len(differences), float(differences.mean())
    error = corrected_error(differences, test_by_train)
    if error <= 1e-12:
        return (0.0, 0.0, 0.0, 1.0) if mean == 0 else (mean, -1.0, 1.0, 1.0)
    reach = float(student.ppf((1 + level) / 2, count - 1)) * error
    return mean, mean - reach, mean + reach, float(2 * student.sf(abs(mean) / error, count - 1))


def corrected_error(differences: NDArray[np.float64], test_by_train: float) -> float:
    """The standard error of a mean of differences between folds whose training parts overlap."""
    return float(np.sqrt((1 / len(differences) + test_by_train) * differences.var(ddof=1)))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p: the i-th smallest of m times m - i + 1, not below those before it, at most 1."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return [float(value) for value in adjusted]


def detectable(graphs: int, folds: int, repeats: int, disagreement: float = DISAGREEMENT) -> float:
    """The least true difference in accuracy that these folds find four times out of five.

    Where two networks disagree on a share d of the graphs, the difference in one fold of m graphs has a
    variance of about d / m.
    """
    count = folds * repeats
    error = np.sqrt((1 / count + 1 / (folds - 1)) * disagreement * folds / graphs)
    return float(error * (student.ppf((1 + LEVEL) / 2, count - 1) + student.ppf(POWER, count - 1)))


@dataclass(frozen=True)
class Overall:
    """What several sets say together of a difference: its mean over sets like these, and how sets differ."""

    mean: float
    low: float
    high: float
    between: float
    above: float
    within: float

    @property
    def said(self) -> str:
        """The mean in points, its interval, and how sets differ."""
        bounds = f"{100 * self.low:+.1f} to {100 * self.high:+.1f}"
        return f"{100 * self.mean:+.1f} points on average ({bounds}), sets differ by {100 * self.between:.1f}"


def over_sets(differences: Sequence[float], errors: Sequence[float]) -> Overall:
    """Believe in a difference of each set drawn around one mean: d_s ~ N(m, t^2 + e_s^2), t half normal.

    The scale of t is five points; m is flat. `above` and `within` are the probabilities that m is over one
    point, and within one point of 0. Integrated over a grid.
    """
    found, error = np.asarray(differences), np.maximum(errors, 1e-6)
    spreads = np.linspace(0, 0.25, 251)
    means = np.linspace(-0.5, 0.5, 2001)
    variance = spreads[:, None, None] ** 2 + error**2
    log = -0.5 * ((found - means[:, None]) ** 2 / variance + np.log(variance)).sum(axis=2)
    log -= 0.5 * (spreads[:, None] / SPREAD) ** 2
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    of_mean, cumulative = weight.sum(axis=0), np.cumsum(weight.sum(axis=0))
    low, high = (float(means[np.searchsorted(cumulative, q)]) for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Overall(
        float(of_mean @ means),
        low,
        high,
        float(weight.sum(axis=1) @ spreads),
        float(of_mean[means > EQUIVALENCE].sum()),
        float(of_mean[np.abs(means) <= EQUIVALENCE].sum()),
    )
