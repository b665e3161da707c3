"""Accuracies beside baselines and ceilings, and what the differences amount to; all from rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean, stdev

from rich.table import Table

from experiments.accuracy.baselines import BASELINES
from experiments.accuracy.statistics import Comparison, compare
from experiments.console import table
from experiments.rows import Row, pick, present

REFERENCE = "mean"


def tables(rows: Sequence[Row]) -> list[Table]:
    """Accuracies; then, for each set and network, differences to the reference."""
    columns = ("set", "network", "readout", "train", "hold-out", "test", "sd", "ceiling")
    data = present(rows, "data")[0]
    reference, _ = comparisons_of(rows, data, networks(rows, data)[0])
    title = f"Paired differences to {reference} [points], p after Holm"
    comparisons = ("set", "network", "method", "difference", "95 % interval", "p", "verdict")
    return [
        table("Accuracy [%], mean over folds", columns, accuracy_lines(rows), text_columns=3),
        table(title, comparisons, comparison_lines(rows), text_columns=3),
    ]


def accuracy_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line a method; the baselines of a set stand first."""
    for data in present(rows, "data"):
        for network in (None, *networks(rows, data)):
            for method in methods(rows, data, network):
                of = {"data": data, "network": network, "readout": method}
                test = per_fold(rows, **of, metric="accuracy")
                yield [
                    data,
                    network or "none",
                    method,
                    percent(mean(per_fold(rows, **of, metric="train accuracy"))),
                    percent(mean(per_fold(rows, **of, metric="validation accuracy"))) if network else "",
                    percent(mean(test)),
                    percent(stdev(test)),
                    percent(pick(rows, **of, metric="ceiling")) if network else "",
                ]
            yield []


def comparison_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line a comparison."""
    for data in present(rows, "data"):
        for network in networks(rows, data):
            for one in comparisons_of(rows, data, network)[1]:
                bounds = f"{100 * one.low:+.1f} to {100 * one.high:+.1f}"
                difference = f"{100 * one.difference:+.1f}"
                yield [data, network, one.method, difference, bounds, f"{one.p:.3f}", one.verdict]
            yield []


def sentences(rows: Sequence[Row]) -> Iterator[str]:
    """What follows, in words, for each set and network; nothing is averaged over sets."""
    for data in present(rows, "data"):
        for network in networks(rows, data):
            reference, found = comparisons_of(rows, data, network)
            groups: dict[str, list[str]] = {}
            for one in found:
                groups.setdefault(one.verdict, []).append(one.method)
            told = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in groups.items())
            yield f"{data}, {network}, against {reference}: {told}."


def comparisons_of(rows: Sequence[Row], data: str, network: str) -> tuple[str, list[Comparison]]:
    """The reference, mean where it was run, and all other readouts and the baselines against it."""
    readouts = methods(rows, data, network)
    reference = REFERENCE if REFERENCE in readouts else readouts[0]
    accuracies = {
        method: per_fold(rows, data=data, network=of, readout=method, metric="accuracy")
        for of in (network, None)
        for method in methods(rows, data, of)
    }
    folds = next(row["folds"] for row in rows if row["data"] == data and row["fold"] is not None)
    return reference, compare(accuracies, reference, folds)


def networks(rows: Sequence[Row], data: str) -> list[str]:
    """The networks that were trained on a set."""
    return [name for name in present(rows, "network", data=data) if name]


def methods(rows: Sequence[Row], data: str, network: str | None) -> list[str]:
    """The readouts of a network, or the baselines."""
    if network is None:
        return list(BASELINES)
    return present(rows, "readout", data=data, network=network)


def per_fold(rows: Sequence[Row], **conditions: object) -> list[float]:
    """The values of one metric, one a fold, in the order of seeds and folds."""
    found = [row for row in rows if row["fold"] is not None and conditions.items() <= row.items()]
    return [row["value"] for row in sorted(found, key=lambda row: (row["seed"], row["fold"]))]


def percent(value: float) -> str:
    """A share in percent with one decimal."""
    return f"{100 * value:.1f}"
