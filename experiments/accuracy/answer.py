"""The answer of `accuracy`: which readout to choose, how sure that is, and what is lost if it is wrong.

Beliefs about a mean difference follow the correlated Bayesian t-test (Benavoli et al., "Time for a change",
JMLR 18, 2017) with a region of practical equivalence of one point. The regret of a choice is what another
choice is expected to bring more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
from scipy.stats import t as student

from experiments.statistics import EQUIVALENCE

SURE = 0.9


@dataclass(frozen=True)
class Belief:
    """A Student distribution for the mean of paired differences of folds."""

    mean: float
    scale: float
    freedom: int

    @classmethod
    def of(cls, one: Sequence[float], other: Sequence[float], folds: int) -> Belief:
        """Believe what repeats of `folds` folds say of `one` minus `other`."""
        differences = np.subtract(one, other)
        widened = (1 / len(differences) + 1 / (folds - 1)) * differences.var(ddof=1)
        return cls(float(differences.mean()), float(np.sqrt(widened)), len(differences) - 1)

    def above(self, least: float) -> float:
        """Return the probability of a difference above this."""
        if self.scale == 0:
            return float(self.mean > least)
        return float(student.sf((least - self.mean) / self.scale, self.freedom))

    def gain(self) -> float:
        """Return the expectation of max(0, difference)."""
        if self.scale == 0 or self.freedom < 2:
            return max(0.0, self.mean)
        start = -self.mean / self.scale
        tail = student.pdf(start, self.freedom) * (self.freedom + start**2) / (self.freedom - 1)
        return float(self.mean * self.above(0.0) + self.scale * tail)


@dataclass(frozen=True)
class Choice:
    """A readout, how it does against each other one, and the expected regret of choosing each."""

    readout: str
    against: Mapping[str, Belief]
    regret: Mapping[str, float]

    @property
    def as_good(self) -> list[str]:
        """The others that are surely within one point, or better."""
        return [name for name, belief in self.against.items() if 1 - belief.above(EQUIVALENCE) > SURE]

    @property
    def worse(self) -> list[str]:
        """The others that are surely worse by more than one point."""
        return [name for name, belief in self.against.items() if belief.above(EQUIVALENCE) > SURE]


def choose(scores: Mapping[str, Sequence[float]], folds: int) -> Choice:
    """Choose the readout of the best mean; `scores` holds a number a fold, greater ones are better."""
    regret = {
        name: max(
            (Belief.of(scores[other], scores[name], folds).gain() for other in scores if other != name),
            default=0.0,
        )
        for name in scores
    }
    best = max(scores, key=lambda name: mean(scores[name]))
    against = {name: Belief.of(scores[best], scores[name], folds) for name in scores if name != best}
    return Choice(best, against, regret)


def paragraph(
    where: str,
    unit: str,
    scores: Mapping[str, Sequence[float]],
    baselines: Mapping[str, Sequence[float]],
    ceilings: Mapping[str, float],
    folds: int,
) -> str:
    """Say what to choose, how sure that is, what is lost if it is wrong, and what bounds it from both sides.

    `where` names set and network, and `unit` what points are points of. All scores are shares of 1.
    """
    best, level = max(((name, mean(found)) for name, found in baselines.items()), key=lambda pair: pair[1])
    if len(scores) == 1:
        (name,) = scores
        return f"{where}: {name} reaches {points(mean(scores[name]))} % {unit}; one readout leaves no choice."
    choice = choose(scores, folds)
    reached = mean(scores[choice.readout])
    said = [f"{where}: choose {choice.readout}, at {points(reached)} % {unit} on held-out graphs."]
    said += [f"It is ahead of {name} {in_words(belief)}." for name, belief in choice.against.items()]
    if choice.as_good:
        said.append(
            f"No worse within a point: {', '.join(choice.as_good)}; take the one that is simplest to train."
        )
    if not choice.as_good and not choice.worse:
        said.append("These folds do not settle it.")
    losses = ", ".join(
        f"{name} {points(loss)}" for name, loss in sorted(choice.regret.items(), key=lambda kv: kv[1])
    )
    said.append(f"Expected loss if the choice is wrong, in points: {losses}.")
    ahead = Belief.of(scores[choice.readout], baselines[best], folds)
    if ahead.above(0.0) > SURE:
        said.append(f"The best baseline, {best}, reaches {points(level)} %.")
    else:
        said.append(
            f"The best baseline, {best}, reaches {points(level)} %: the network is not surely ahead of it, so "
            "that this run says little about readouts, and the baseline may be all that is needed."
        )
    bounds = ", ".join(f"{name} {points(ceilings[name])}" for name in scores)
    said.append(f"The most that each readout allows on these graphs [%]: {bounds}.")
    return " ".join(said)


def in_words(belief: Belief) -> str:
    """Say how much a difference is, and how sure."""
    surely, worse = belief.above(EQUIVALENCE), 1 - belief.above(-EQUIVALENCE)
    return (
        f"by {100 * belief.mean:.1f} points (by over one point with probability {surely:.2f}, within one "
        f"point {max(0.0, 1 - surely - worse):.2f}, behind by over one {worse:.2f})"
    )


def points(share: float) -> str:
    """A share of 1 as points, with one decimal."""
    return f"{100 * share:.1f}"
