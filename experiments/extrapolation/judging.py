"""How good predictions are where classes are unequal, how sure networks are, and what size alone tells."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, matthews_corrcoef, recall_score
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_calibration_error

from experiments.extrapolation.task import HOLD_OUT, TRAIN, Parts, Task

Labels = npt.NDArray[np.int64]

PREDICTED = ("MCC", "class-weighted accuracy", "accuracy")
JUDGED = (*PREDICTED, "class-weighted loss")
CALIBRATED = ("logit norm", "confidence", "ECE", "NLL", "accuracy")
BINS = 10
MAJORITY, SIZE, BEST_SIZE = "majority class", "size only", "size only, best"
THRESHOLD = partial(DecisionTreeClassifier, max_depth=1, class_weight="balanced", random_state=0)
BASELINES: dict[str, Callable[[], Any]] = {
    MAJORITY: partial(DummyClassifier, strategy="most_frequent"),
    SIZE: THRESHOLD,
    BEST_SIZE: THRESHOLD,
}


def predicted(y: Labels, answers: Labels) -> dict[str, float]:
    """MCC (0 where answers or classes do not vary), mean recall of the classes that are there, accuracy."""
    varied = len(np.union1d(y, answers)) > 1
    recall = recall_score(y, answers, labels=np.unique(y), average="macro", zero_division=0)
    values = matthews_corrcoef(y, answers) if varied else 0.0, recall, accuracy_score(y, answers)
    return dict(zip(PREDICTED, map(float, values), strict=True))


def judged(logits: Tensor, y: Tensor) -> dict[str, float]:
    """The same of logits [B, C], and the cross-entropy in which every class counts the same."""
    loss = cross_entropy(logits, y, weight=class_weights(y, logits.shape[1]))
    found = predicted(y.cpu().numpy(), logits.argmax(dim=1).cpu().numpy())
    return found | {"class-weighted loss": float(loss)}


def class_weights(y: Tensor, classes: int) -> Tensor:
    """What makes every class that is there count the same: float32 [C], inversely as its share."""
    counts = y.bincount(minlength=classes)
    return torch.where(counts > 0, len(y) / counts.clamp(min=1), 0.0)


def calibration(logits: Tensor, y: Tensor) -> dict[str, float]:
    """Mean norm of the centred logits [B, C], mean confidence, its error (`BINS` bins), loss, accuracy.

    A shift of all logits changes no probability, so the norm is that of logits less their mean over classes.
    """
    wide = logits.double()
    probabilities = wide.softmax(dim=1)
    confidence, answers = probabilities.max(dim=1)
    values = (
        (wide - wide.mean(dim=1, keepdim=True)).norm(dim=1).mean(),
        confidence.mean(),
        multiclass_calibration_error(probabilities, y, num_classes=logits.shape[1], n_bins=BINS),
        cross_entropy(wide, y),
        (answers == y).double().mean(),
    )
    return dict(zip(CALIBRATED, map(float, values), strict=True))


def fit_and_judge(task: Task, parts: Parts, part: str, baseline: str) -> dict[str, float]:
    """Fit on the number of nodes of the small graphs; *size only, best* is fitted on those it is judged on.

    Any threshold among small sizes leaves all large graphs on one side. What size could tell of these at most
    is said by the threshold that is best for them.
    """
    learned = parts[part] if baseline == BEST_SIZE else parts[TRAIN] + parts[HOLD_OUT]
    sizes = np.array([[graph.num_nodes] for graph in task.graphs])
    y = np.array([int(graph.y) for graph in task.graphs])
    model = BASELINES[baseline]().fit(sizes[list(learned)], y[list(learned)])
    asked = list(parts[part])
    return predicted(y[asked], model.predict(sizes[asked]))
