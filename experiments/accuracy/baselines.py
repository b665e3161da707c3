"""What one gets without looking at the structure: the largest class, the size, the counts of the atoms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from datasets.splits import Split
from experiments.accuracy.resident import Resident

BASELINES: dict[str, Callable[[int], Any]] = {
    "majority class": lambda seed: DummyClassifier(strategy="most_frequent"),
    "size only": lambda seed: DecisionTreeClassifier(max_depth=1, random_state=seed),
    "counts only": lambda seed: RandomForestClassifier(200, random_state=seed),
}
METRICS = ("accuracy", "train accuracy")


def fit_and_judge(resident: Resident, split: Split, baseline: str, seed: int) -> dict[str, float]:
    """Fit on all graphs but those to test: there is nothing to choose on a hold-out.

    *Size only* is one threshold on the number of nodes; *counts only* a forest on the sum of the node
    features and that number: the structure-agnostic baseline of Errica et al. (arXiv 1912.09893) in another
    form.
    """
    counts, y = resident.counts().cpu().numpy(), resident.y.cpu().numpy()
    features = counts[:, -1:] if baseline == "size only" else counts
    seen, tested = [*split.train, *split.validation], list(split.test)
    model = BASELINES[baseline](seed).fit(features[seen], y[seen])
    return {
        "accuracy": float(model.score(features[tested], y[tested])),
        "train accuracy": float(model.score(features[seen], y[seen])),
    }
