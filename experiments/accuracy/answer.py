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

from experiments.console import percent
from experiments.statistics import EQUIVALENCE, corrected_error

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
        error = corrected_error(differences, 1 / (folds - 1))
        return cls(float(differences.mean()), error, len(differences) - 1)

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
    regret = {}
    for name in scores:
        gains = (Belief.of(scores[other], scores[name], folds).gain() for other in scores if other != name)
        regret[name] = max(gains, default=0.0)
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
    choice = choose(scores, folds)
    reached = percent(mean(scores[choice.readout]))
    said = [f"{where}: choose {choice.readout}, at {reached} % {unit} on held-out graphs."]
    if not choice.against:
        said = [f"{where}: {choice.readout} reaches {reached} % {unit}; one readout leaves no choice."]
    said += [f"It is ahead of {name} {in_words(belief)}." for name, belief in choice.against.items()]
    if choice.as_good:
        said.append(f"Within a point: {', '.join(choice.as_good)}; any of these will do.")
    if choice.against and not choice.as_good and not choice.worse:
        said.append("These folds do not settle it.")
    if choice.against:
        ranked = sorted(choice.regret.items(), key=lambda pair: pair[1])
        losses = ", ".join(f"{name} {percent(loss)}" for name, loss in ranked)
        said.append(f"Expected loss of each choice, in points: {losses}.")
    said.append(beside_baselines(scores[choice.readout], baselines, folds))
    bounds = ", ".join(f"{name} {percent(ceilings[name])}" for name in scores)
    said.append(f"What each readout could reach at most on these graphs [%]: {bounds}.")
    return " ".join(said)


def beside_baselines(best: Sequence[float], baselines: Mapping[str, Sequence[float]], folds: int) -> str:
    """Say whether the chosen network is ahead of what does not look at the structure."""
    name = max(baselines, key=lambda baseline: mean(baselines[baseline]))
    ahead = Belief.of(best, baselines[name], folds).above(0.0)
    said = f"The best baseline, {name}, reaches {percent(mean(baselines[name]))} %"
    if ahead > SURE:
        return f"{said}."
    doubt = "the baseline may be all that you need"
    return f"{said}; the network is ahead of it with probability {ahead:.2f}: {doubt}."


def in_words(belief: Belief) -> str:
    """Say how much a difference is, and how sure."""
    surely, behind = belief.above(EQUIVALENCE), 1 - belief.above(-EQUIVALENCE)
    return (
        f"by {100 * belief.mean:.1f} points (over one point with probability {surely:.2f}, within one "
        f"{max(0.0, 1 - surely - behind):.2f}, behind by over one {behind:.2f})"
    )
