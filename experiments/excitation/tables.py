"""Tables and verdicts; all from rows.

Gates help where `experiments.accuracy.statistics` calls the difference to no gates better. The rest is
claimed of folds: in all of them copies move no gate by mean or max, and saturate gates by sum; in nine of ten
or more, gates by sum follow the size more than the others do, on average over the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

from rich.table import Table

from experiments.accuracy.statistics import Comparison, compare
from experiments.console import share, table
from experiments.excitation.measure import BASELINES, CLOSE, COPIES, SPREAD
from experiments.excitation.networks import NONE, ROUNDS, SQUEEZES, VIEWS
from experiments.rows import Row, pick, present

NEARLY_ALL = 0.9


def tables(rows: Sequence[Row]) -> list[Table]:
    """Accuracies, differences, gates, and copies; averages over the folds."""
    accuracies = ("set", "squeeze", "parameters", "train", "held out", "ceiling")
    differences = ("set", "squeeze", "difference", "95 % interval", "p", "verdict")
    gates = ("set", "squeeze", "network", "block", "gate", "sd over graphs", "sd over channels", "with size")
    copies = ("set", "squeeze", "copies", "moved", "at most", "saturated", "answers changed")
    return [
        table("Accuracy, with gates squeezed by a readout", accuracies, accuracy_lines(rows), 2),
        table(
            "Paired differences to no gates [points], p after Holm", differences, difference_lines(rows), 2
        ),
        table("Gates of all graphs, and their rank correlation with the size", gates, gate_lines(rows), 3),
        table(f"Gates of copies; saturated: within {CLOSE} of 0 or 1", copies, copy_lines(rows), 2),
    ]


def accuracy_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line a network, after the baselines."""
    for data in present(rows, "data"):
        for squeeze in (*BASELINES, *VIEWS):
            sides = (mean(per_fold(rows, data, squeeze, name)) for name in ("train accuracy", "accuracy"))
            parameters, ceiling = "", ""
            if squeeze in VIEWS:
                parameters = f"{per_fold(rows, data, squeeze, 'parameters')[0]:.0f}"
                ceiling = share(pick(rows, data=data, squeeze=squeeze, metric="ceiling"))
            yield [data, squeeze, parameters, *map(share, sides), ceiling]
        yield []


def difference_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line a squeeze."""
    for data in present(rows, "data"):
        for one in comparisons(rows, data):
            bounds = f"{100 * one.low:+.1f} to {100 * one.high:+.1f}"
            yield [data, one.method, f"{100 * one.difference:+.1f}", bounds, f"{one.p:.3f}", one.verdict]
        yield []


def gate_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each squeeze, network and block."""
    for data in present(rows, "data"):
        for squeeze in SQUEEZES:
            for trained in (True, False):
                for block in range(ROUNDS - 1):
                    found = (per_fold(rows, data, squeeze, name, trained, block=block) for name in SPREAD)
                    stage = "trained" if trained else "untrained"
                    yield [data, squeeze, stage, str(block + 1), *(share(mean(values)) for values in found)]
        yield []


def copy_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each network and number of copies; a network without gates has answers only."""
    for data in present(rows, "data"):
        for squeeze in VIEWS:
            for k in COPIES:
                changed = share(mean(per_fold(rows, data, squeeze, "answers changed", copies=k)))
                line = [data, squeeze, str(k), "", "", "", changed]
                if squeeze != NONE:
                    moved, most, saturated = (
                        per_fold(rows, data, squeeze, name, copies=k)
                        for name in ("moved", "moved at most", "saturated")
                    )
                    line[3:6] = [exactly(mean(moved)), exactly(max(most)), share(mean(saturated))]
                if squeeze != NONE or k == COPIES[-1]:
                    yield line
        yield []


def exactly(value: float) -> str:
    """A share that is written 0 only where it is 0, to the bit."""
    return share(value) if value else "0"


def per_fold(
    rows: Sequence[Row], data: str, squeeze: str, metric: str, trained: bool = True, **wanted: int
) -> list[float]:
    """The values of one metric, one a fold, in the order of the folds."""
    conditions = {"data": data, "squeeze": squeeze, "metric": metric, **wanted}
    return [
        row["value"]
        for row in rows
        if conditions.items() <= row.items() and (row.get("epochs") != 0) == trained
    ]


def comparisons(rows: Sequence[Row], data: str) -> list[Comparison]:
    """Each squeeze against no gates, fold by fold."""
    accuracies = {squeeze: per_fold(rows, data, squeeze, "accuracy") for squeeze in VIEWS}
    return compare(accuracies, NONE, len(accuracies[NONE]))


def verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """For each set: what helps, what copies do to the gates, and whether these follow the size."""
    for data in present(rows, "data"):
        yield of_accuracy(rows, data)
        yield of_copies(rows, data)
        yield of_sizes(rows, data)


def of_accuracy(rows: Sequence[Row], data: str) -> str:
    """Whether gates help."""
    found = comparisons(rows, data)
    helped = [one.method for one in found if one.verdict.startswith("better")]
    told = ", ".join(f"{one.method} {100 * one.difference:+.1f} ({one.verdict})" for one in found)
    claim = f"gates help when squeezed by {' and '.join(helped)}" if helped else "no gates are shown to help"
    return f"{data}: {claim}; points of held-out accuracy above the network without: {told}."


def of_copies(rows: Sequence[Row], data: str) -> str:
    """Whether copies leave gates by mean and max as they are, and saturate those by sum."""
    most = {name: max(per_fold(rows, data, name, "moved at most", copies=COPIES[-1])) for name in SQUEEZES}
    once, copied = (per_fold(rows, data, "sum", "saturated", copies=k) for k in (1, COPIES[-1]))
    still = [name for name in SQUEEZES if most[name] == 0]
    more = all(after > before for before, after in zip(once, copied, strict=True))
    claimed = still == ["mean", "max"] and more
    changed = mean(per_fold(rows, data, "sum", "answers changed", copies=COPIES[-1]))
    return (
        f"{data}: {'as' if claimed else 'not as'} claimed, {COPIES[-1]} copies of a graph leave all gates by "
        f"{' and '.join(still) or 'no readout'} as they are; of those by sum {share(mean(copied))} are "
        f"saturated, {share(mean(once))} before, and {share(changed)} of the answers change."
    )


def of_sizes(rows: Sequence[Row], data: str) -> str:
    """Whether gates by sum follow the size more than others."""
    found = {name: with_size(rows, data, name) for name in SQUEEZES}
    most = [by_sum > max(others) for *others, by_sum in zip(*found.values(), strict=True)]
    claimed = mean(most) >= NEARLY_ALL
    told = ", ".join(f"{name} {share(mean(values))}" for name, values in found.items())
    return (
        f"{data}: {'as' if claimed else 'not as'} claimed, gates by sum follow the size most in {sum(most)} "
        f"of {len(most)} folds; rank correlation with it: {told}."
    )


def with_size(rows: Sequence[Row], data: str, squeeze: str) -> list[float]:
    """How the gates go with the size, on average over the blocks: one value a fold."""
    blocks = (per_fold(rows, data, squeeze, "with size", block=block) for block in range(ROUNDS - 1))
    return [mean(values) for values in zip(*blocks, strict=True)]
