"""Were networks trained well enough to be compared? The question before every comparison.

A set passes where training had converged in nine of ten folds or more, or had reached the ceiling of the
readout, and where the best network is ahead of the best baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

from experiments.learning.training import LATE
from experiments.records import Row

CONVERGED, NEAR, STILL = 0.9, 0.02, 0.02  # share of folds; below the ceiling; of the last fifth of the epochs


def objections(
    of_network: Sequence[Row],
    score: str,
    networks: Mapping[str, Sequence[float]],
    baselines: Mapping[str, Sequence[float]],
) -> list[str]:
    """Return what speaks against a comparison, from the rows and the scores of one network on one set."""
    return objections_to(shares(of_network, score), networks, baselines)


def objections_to(
    converged: Mapping[str, float],
    networks: Mapping[str, Sequence[float]],
    baselines: Mapping[str, Sequence[float]],
) -> list[str]:
    """Return what speaks against a comparison, from shares of folds that had converged, and scores."""
    found = [
        f"{network} had converged in {100 * share:.0f} % of the folds"
        for network, share in converged.items()
        if share < CONVERGED
    ]
    best, ahead = (max(map(mean, scores.values()), default=0.0) for scores in (networks, baselines))
    if best <= ahead:
        found.append(
            f"the best network ({100 * best:.1f}) is not ahead of the best baseline ({100 * ahead:.1f})"
        )
    return found


def shares(rows: Sequence[Row], score: str) -> dict[str, float]:
    """In which share of the folds each readout had converged."""
    folds: dict[tuple[str, int, int], dict[str, float]] = {}
    epochs = {}
    for row in rows:
        if row["fold"] is not None:
            place = row["readout"], row["seed"], row["fold"]
            folds.setdefault(place, {})[row["metric"]] = row["value"]
            epochs[place] = row["settings"]["epochs"]
    converged: dict[str, list[bool]] = {}
    for place, values in folds.items():
        early = values["best epoch"] < LATE * epochs[place]
        fixed = values["best epoch"] == epochs[place] and abs(values["late change"]) <= STILL
        full = values[f"train {score}"] >= values["train ceiling"] - NEAR
        converged.setdefault(place[0], []).append(early or fixed or full)
    return {readout: mean(found) for readout, found in converged.items()}
