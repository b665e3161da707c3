"""What one gets without looking at the structure: the largest class, the size, the counts of the atoms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from datasets.splits import Split
from experiments.learning.batches import Resident
from experiments.learning.goals import Goal, goal_of, named

SIZE = "size only"
OF_CLASSES: dict[str, Callable[[int], Any]] = {
    "majority class": lambda seed: DummyClassifier(strategy="most_frequent"),
    SIZE: lambda seed: DecisionTreeClassifier(max_depth=1, random_state=seed),
    "counts only": lambda seed: RandomForestClassifier(200, random_state=seed),
}
OF_NUMBERS: dict[str, Callable[[int], Any]] = {
    "mean of training": lambda seed: DummyRegressor(),
    SIZE: lambda seed: DecisionTreeRegressor(max_leaf_nodes=16, min_samples_leaf=5, random_state=seed),
    "counts only": lambda seed: RandomForestRegressor(200, random_state=seed),
}
BASELINES = OF_CLASSES.keys() | OF_NUMBERS.keys()


def metrics_of(goal: type[Goal]) -> tuple[str, ...]:
    """Return the names of the numbers of `fit_and_judge`."""
    return (*goal.metrics, *(f"train {name}" for name in goal.metrics))


def fit_and_judge(resident: Resident, split: Split, baseline: str, seed: int) -> dict[str, float]:
    """Fit on all graphs but those to test: there is nothing to choose on a hold-out.

    *Size only* is one threshold on the number of nodes (for numbers, at most sixteen steps); *counts only* a
    forest on the sum of the node features and that number: the structure-agnostic baseline of Errica et al.
    (arXiv 1912.09893) in another form.
    """
    counts, y = resident.counts().cpu().numpy(), resident.y.cpu()
    features = counts[:, -1:] if baseline == SIZE else counts
    seen, tested = [*split.train, *split.validation], list(split.test)
    goal = goal_of(resident.classes, y, seen)
    make = (OF_CLASSES if resident.classes else OF_NUMBERS)[baseline]
    model = make(seed).fit(features[seen], y.numpy()[seen])
    training, test = (
        goal.judge(torch.from_numpy(model.predict(features[part])), y[part]) for part in (seen, tested)
    )
    return test | named("train", training)
