"""What networks are trained for: to name the class of a graph, or its number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

Integers = NDArray[np.int64]
ACCURACY, SKILL = "accuracy", "skill"


class Goal(ABC):
    """A loss, the numbers that judge predictions, and the best that can be done with what a readout sees."""

    score: ClassVar[str]  # the metric that decides, a share of 1; greater is better
    metrics: ClassVar[tuple[str, ...]]

    @abstractmethod
    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of each copy, [K], of outputs [K, B, O]."""

    @abstractmethod
    def predict(self, outputs: Tensor) -> Tensor:
        """Return classes or numbers [B]."""

    @abstractmethod
    def judge(self, predicted: Tensor, y: Tensor) -> dict[str, float]:
        """Return the value of every metric."""

    @abstractmethod
    def ceiling(self, seen: Integers, y: Tensor) -> float:
        """Return the best score of any function of what is seen, a number for each graph."""


@dataclass(frozen=True, eq=False)
class Classes(Goal):
    """To name the class: cross-entropy, with weights of the classes if given; the share of right answers."""

    weight: Tensor | None = None
    score = ACCURACY
    metrics = (ACCURACY,)

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the cross-entropy."""
        expected = y.expand(len(outputs), -1)
        weight = self.weight
        each = cross_entropy(outputs.movedim(2, 1), expected, weight=weight, reduction="none")
        scale = len(y) if weight is None else weight[y].sum()
        return each.sum(dim=1) / scale

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the class of the greatest logit."""
        return outputs.argmax(dim=1)

    def judge(self, predicted: Tensor, y: Tensor) -> dict[str, float]:
        """Return the share of right answers."""
        return {ACCURACY: int((predicted == y).sum()) / len(y)}

    def ceiling(self, seen: Integers, y: Tensor) -> float:
        """Return the share of graphs that are in the majority class of those that look the same."""
        _, together = np.unique(seen, return_inverse=True)
        table = np.zeros((together.max() + 1, int(y.max()) + 1), dtype=np.int64)
        np.add.at(table, (together, y.numpy()), 1)
        return int(table.max(axis=1).sum()) / len(y)


@dataclass(frozen=True)
class Numbers(Goal):
    """To predict a number: squared error, in standard deviations of the training targets.

    Skill is the share of the mean absolute error of the constant predictor, which says the training mean,
    that is removed: 1 - MAE / MAE of the constant.
    """

    mean: float
    deviation: float
    score = SKILL
    metrics = (SKILL, "mae", "rmse", "r2")

    @classmethod
    def of(cls, y: Tensor) -> Numbers:
        """Take the scale of the targets of the training graphs."""
        return cls(float(y.mean()), float(y.std(correction=0)) or 1.0)

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the mean squared error."""
        return (outputs.squeeze(2) - (y - self.mean) / self.deviation).square().mean(dim=1)

    def predict(self, outputs: Tensor) -> Tensor:
        """Return numbers in the unit of the targets."""
        return outputs.squeeze(1) * self.deviation + self.mean

    def judge(self, predicted: Tensor, y: Tensor) -> dict[str, float]:
        """Return skill, mean absolute error, root of the mean squared error, and R2."""
        error, constant = (predicted - y).double(), (y - self.mean).double()
        spread = float((y - y.mean()).double().square().mean())
        squared = float(error.square().mean())
        return {
            SKILL: 1 - float(error.abs().mean()) / (float(constant.abs().mean()) or 1.0),
            "mae": float(error.abs().mean()),
            "rmse": squared**0.5,
            "r2": 1 - squared / (spread or 1.0),
        }

    def ceiling(self, seen: Integers, y: Tensor) -> float:
        """Return the skill of the median of all graphs that look the same."""
        order = np.argsort(seen, kind="stable")
        parts = np.split(y.double().numpy()[order], np.flatnonzero(np.diff(seen[order])) + 1)
        least = sum(float(np.abs(part - np.median(part)).sum()) for part in parts)
        return 1 - least / (float((y - self.mean).double().abs().sum()) or 1.0)


def goal_of(classes: int, y: Tensor, positions: Sequence[int]) -> Goal:
    """Return the goal of a set: without classes, numbers scaled as those of the graphs at these positions."""
    return Classes() if classes else Numbers.of(y[torch.tensor(positions, device=y.device)])


def named(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    """Put a word before the name of every metric."""
    return {f"{prefix} {name}": value for name, value in values.items()}
