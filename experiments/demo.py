"""The main job: what sum, mean and max can and cannot see, in one run and three lines.

Claim: a mean or max readout cannot tell a molecule from its copies, whatever the network learns; a sum can.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

from experiments import copies
from experiments.rows import Row


def headline(rows: Sequence[Row]) -> Iterator[str]:
    """One line a readout: how often it tells held-out molecules from copies, on average over the sets."""
    sets = list(dict.fromkeys(row["data"] for row in rows))
    for readout in copies.READOUTS:
        per_set = [copies.per_fold(rows, data, readout, "accuracy") for data in sets]
        average = mean(mean(folds) for folds in per_set)
        judged = verdict([accuracy for folds in per_set for accuracy in folds])
        yield f"{readout.capitalize():<5}{copies.percent(average):>6} %  {judged}"


def verdict(accuracies: Sequence[float]) -> str:
    """What the accuracies of all folds amount to; 50 % is what guessing gets."""
    if all(accuracy == 0.5 for accuracy in accuracies):
        return "cannot tell a held-out molecule from its copies: as good as guessing, in every fold"
    if all(accuracy == 1 for accuracy in accuracies):
        return "tells every held-out molecule from its copies"
    share = "nearly all" if mean(accuracies) > 0.95 else "some"
    return f"tells {share} molecules from their copies"
