"""Tables and verdicts from rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from statistics import mean, stdev

from rich.table import Table

from experiments.accuracy.statistics import compare
from experiments.console import table
from experiments.heads.law import BETWEEN, LAW
from experiments.heads.networks import DROPOUT, FLATTEN, HEADS, POOLED, SHUFFLED
from experiments.rows import Row, average, pick, present

POINT, ERRORS = 0.01, 4


def gap(rows: Sequence[Row], data: str, head: str) -> float:
    """By how much the accuracy in training is above that on held-out graphs."""
    at = partial(average, rows, data=data, readout=head)
    return at(metric="train accuracy") - at(metric="accuracy")


def lost(rows: Sequence[Row], data: str, head: str) -> float:
    """By how much the accuracy on held-out graphs is above that in other orders of their nodes."""
    at = partial(average, rows, data=data, readout=head)
    return at(metric="accuracy") - at(metric="shuffled accuracy")


def per_fold(rows: Sequence[Row], data: str, head: str) -> list[list[float]]:
    """The held-out accuracies of the networks of each fold."""
    wanted = {"data": data, "readout": head, "metric": "accuracy"}
    found: dict[int, list[float]] = {}
    for row in rows:
        if wanted.items() <= row.items():
            found.setdefault(row["fold"], []).append(row["value"])
    return list(found.values())


def spread(rows: Sequence[Row], data: str, head: str) -> float:
    """The standard deviation of the held-out accuracy over the networks of a fold, averaged over folds."""
    return mean(map(stdev, per_fold(rows, data, head)))


def trained(rows: Sequence[Row]) -> list[str]:
    """The sets on which networks were trained."""
    return [data for data in present(rows, "data") if present(rows, "draw", data=data)]


def tables(rows: Sequence[Row]) -> list[Table]:
    """Heads where networks were trained, and the law."""
    heads = ("set", "head", "weights", "train", "test", "gap", "seeds", "shuffled", "changed", "bits")
    law = ("set", "features", "m", "measured", "± error", "formula", "ratio", "variance / m")
    found = [table("Variance of the mean of m random nodes of a graph", law, law_lines(rows), 2)]
    lines = list(head_lines(rows))
    if lines:
        title = "Accuracy in the order of storage and shuffled; answers changed by that, bits kept [%]"
        found.insert(0, table(title, heads, lines, 2))
    return found


def head_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and head."""
    for data in trained(rows):
        for head in HEADS:
            at = partial(average, rows, data=data, readout=head)
            values = [
                at(metric="train accuracy"),
                at(metric="accuracy"),
                gap(rows, data, head),
                spread(rows, data, head),
                *(at(metric=metric) for metric in ("shuffled accuracy", "answers changed", "same bits")),
            ]
            yield [data, head, f"{at(metric='parameters'):.0f}", *(f"{100 * value:.1f}" for value in values)]
        yield [data, "largest class", "", "", f"{100 * average(rows, data=data, metric='majority'):.1f}"]
        yield []


def law_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set, kind of features and number of nodes."""
    for data in present(rows, "data"):
        for kind in present(rows, "features", data=data):
            for m in present(rows, "nodes", data=data, features=kind):
                at = partial(pick, rows, data=data, features=kind, nodes=m)
                measured, predicted, plain, error = (at(metric=metric) for metric in LAW)
                numbers = [f"{value:.3g}" for value in (measured, error, predicted)]
                ratio = f"{measured / predicted:.3f}" if predicted else ""
                yield [data, kind, str(m), *numbers, ratio, f"{plain:.3g}"]
            yield []


def verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """For each set: order of the nodes, overfitting, accuracy, seeds, and the law."""
    for data in present(rows, "data"):
        if data in trained(rows):
            yield f"{data}, order of the nodes: {of_orders(rows, data)}."
            yield f"{data}, overfitting: {of_gaps(rows, data)}."
            yield f"{data}, accuracy: {of_accuracies(rows, data)}."
            yield f"{data}, seeds: {of_seeds(rows, data)}."
        yield f"{data}, law of the mean: {of_law(rows, data)}."


def claimed(held: bool) -> str:
    """How a verdict begins."""
    return "as claimed" if held else "not as claimed"


def points(values: Mapping[str, float]) -> str:
    """Percentage points of every head."""
    return ", ".join(f"{head} {100 * value:.1f}" for head, value in values.items())


def of_orders(rows: Sequence[Row], data: str) -> str:
    """Whether readouts keep every bit, and flattened heads lose accuracy when nodes are shuffled."""
    at = partial(average, rows, data=data)
    kept = all(at(readout=head, metric="same bits") == 1 for head in POOLED)
    drops = {head: lost(rows, data, head) for head in (FLATTEN, DROPOUT)}
    changed = [100 * at(readout=head, metric="answers changed") for head in drops]
    best = max(at(readout=head, metric="accuracy") for head in POOLED)
    used = at(readout=SHUFFLED, metric="shuffled accuracy")
    fails = min(drops.values()) >= POINT
    return (
        f"{claimed(kept and fails)}, readouts {'keep' if kept else 'do not keep'} every bit when nodes are "
        f"shuffled; flattened heads give {min(changed):.0f} to {max(changed):.0f} % other answers and "
        f"{'lose' if fails else 'do not lose'} accuracy (points: {points(drops)}); trained on shuffled nodes "
        f"one is right in {100 * used:.1f} %, the best readout in {100 * best:.1f} %, the largest class is "
        f"{100 * at(metric='majority'):.1f} %"
    )


def of_gaps(rows: Sequence[Row], data: str) -> str:
    """Whether the flattened head overfits more than every readout, and dropout makes it less."""
    gaps = {head: gap(rows, data, head) for head in HEADS}
    more = all(gaps[FLATTEN] > gaps[head] for head in POOLED)
    helps = gaps[DROPOUT] < gaps[FLATTEN]
    return (
        f"{claimed(more and helps)}, flatten {'overfits' if more else 'does not overfit'} more than every "
        f"readout, and dropout {'helps' if helps else 'does not help'} "
        f"(points by which training is above held out: {points(gaps)})"
    )


def of_accuracies(rows: Sequence[Row], data: str) -> str:
    """Whether the mean is right more often than flattened heads, by intervals for overlapping folds."""
    folds = {
        head: [mean(found) for found in per_fold(rows, data, head)] for head in ("mean", FLATTEN, DROPOUT)
    }
    found = compare(folds, "mean", len(folds["mean"]))
    better = [one.verdict.startswith("better") for one in found]
    worse = [one.verdict.startswith("worse") for one in found]
    told = ", ".join(
        f"{one.method} {100 * one.difference:+.1f} points "
        f"({100 * one.low:+.1f} to {100 * one.high:+.1f}, {one.verdict})"
        for one in found
    )
    return f"{claimed(all(worse)) if all(worse) or any(better) else 'undecided'}, against the mean: {told}"


def of_seeds(rows: Sequence[Row], data: str) -> str:
    """Whether the flattened head varies more than every readout."""
    spreads = {head: spread(rows, data, head) for head in HEADS}
    more = all(spreads[FLATTEN] > spreads[head] for head in POOLED)
    return (
        f"{claimed(more)}, flatten {'varies' if more else 'does not vary'} more than every readout "
        f"between networks on a fold (standard deviation of held-out accuracies in points: {points(spreads)})"
    )


def of_law(rows: Sequence[Row], data: str) -> str:
    """Whether random nodes obey the law, and how far the nodes of one graph are from random ones."""
    within, factors = [], []
    for kind in present(rows, "features", data=data):
        at = partial(pick, rows, data=data, features=kind)
        for m in present(rows, "nodes", data=data, features=kind):
            measured, predicted, _, error = (at(nodes=m, metric=metric) for metric in LAW)
            within.append(abs(measured - predicted) <= ERRORS * error)
        if BETWEEN[0] in present(rows, "metric", data=data, features=kind):
            between, independent = (at(metric=metric) for metric in BETWEEN)
            factors += [f"{between / independent:.1f} times ({kind})"] if independent else []
    whole = "; the mean of a whole graph varies {} as much as that of as many nodes drawn from all graphs"
    return (
        f"{claimed(all(within))}, the variance of the mean of m random nodes is within {ERRORS} standard "
        f"errors of S² (1 - m / n) / m in {sum(within)} of {len(within)} cases"
        f"{whole.format(' and '.join(factors)) if factors else ''}"
    )
