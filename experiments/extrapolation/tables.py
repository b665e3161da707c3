"""Skill by size and calibration of copies in tables, and what follows of the claims; all from rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import mean, stdev

import numpy as np
from rich.table import Table

from experiments.accuracy.statistics import interval
from experiments.console import share, table
from experiments.extrapolation.copies import COPIES, IDENTITIES, MOVED
from experiments.extrapolation.judging import BASELINES, BEST_SIZE, CALIBRATED, MAJORITY
from experiments.extrapolation.measure import COPIED
from experiments.extrapolation.task import BALANCED, BETWEEN, HOLD_OUT, LARGE, TRAIN
from experiments.extrapolation.training import PROPORTIONS, READOUTS
from experiments.rows import Row, present

PARTS = (TRAIN, HOLD_OUT, BETWEEN, LARGE, BALANCED)
ACCURACY, LOSS = "class-weighted accuracy", "class-weighted loss"
LEAST_GRAPHS, LEAST_SLOPE, LEAST_RISE, TOLERANCE = 10, 0.5, 0.01, 1e-5
MOST = COPIES[-1]


def found(rows: Sequence[Row], **wanted: object) -> list[float]:
    """The values of the rows that fulfil the conditions, one a seed."""
    return [row["value"] for row in rows if wanted.items() <= row.items()]


def slope(rows: Sequence[Row], data: str, readout: str) -> float:
    """How fast the logits grow: the slope of the log of their mean norm over log k, fitted to all seeds."""
    norms = [
        mean(found(rows, data=data, readout=readout, part=COPIED, k=k, metric="logit norm")) for k in COPIES
    ]
    return float(np.polyfit(np.log(COPIES), np.log(np.maximum(norms, 1e-12)), 1)[0])


def tables(rows: Sequence[Row]) -> list[Table]:
    """For each set MCC by size, with class-weighted numbers of large graphs, and calibration of copies."""
    of_size = ("readout", TRAIN, HOLD_OUT, BETWEEN, f"{LARGE} (sd)", "balanced", "accuracy", "loss")
    of_copies = ("readout", "k", *CALIBRATED, "slope", "other bits")
    laid_out = []
    for data in present(rows, "data"):
        title = f"{data}: MCC by size; class-weighted accuracy and loss on large graphs"
        laid_out.append(table(title, of_size, size_lines(rows, data)))
        title = f"{data}: k disjoint copies of held-out graphs; slope of log norm over log k"
        laid_out.append(table(title, of_copies, copy_lines(rows, data)))
    return laid_out


def size_lines(rows: Sequence[Row], data: str) -> Iterator[list[str]]:
    """How many graphs there are and of what size, and a line for each readout and baseline."""
    for fact in ("graphs", "nodes"):
        values = [found(rows, data=data, part=part, metric=fact) for part in PARTS]
        yield [f"({fact})", *(averaged(one, ".1f") for one in values), "", ""]
    yield []
    for readout in (*READOUTS, *BASELINES):
        of = partial(found, rows, data=data, readout=readout)
        shown = {part: averaged(of(part=part, metric="MCC")) for part in PARTS}
        shown[LARGE] += f" ({stdev(of(part=LARGE, metric='MCC')):.2f})"
        yield [
            readout,
            *shown.values(),
            *(averaged(of(part=LARGE, metric=name)) for name in (ACCURACY, LOSS)),
        ]


def averaged(values: Sequence[float], form: str = ".2f") -> str:
    """A mean, or nothing where there are no values."""
    return format(mean(values), form) if values else ""


def copy_lines(rows: Sequence[Row], data: str) -> Iterator[list[str]]:
    """Two lines for each readout: the values of one graph, and of most copies."""
    for readout in READOUTS:
        for k in (1, MOST):
            values = [f"{copied(rows, data, readout, metric, k):.2f}" for metric in CALIBRATED]
            grown = [f"{slope(rows, data, readout):z.2f}", f"{copied(rows, data, readout, MOVED, k):.0%}"]
            yield [readout, str(k), *values, *(grown if k > 1 else ["", ""])]


def copied(rows: Sequence[Row], data: str, readout: str, metric: str, k: int) -> float:
    """A value of k copies, averaged over seeds."""
    return mean(found(rows, data=data, readout=readout, part=COPIED, k=k, metric=metric))


def verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """Three sentences a set: larger graphs, logits of copies, calibration of copies."""
    for data in present(rows, "data"):
        yield f"{data}, larger graphs: {of_sizes(rows, data)}."
        yield f"{data}, logits of copies: {of_logits(rows, data)}."
        yield f"{data}, calibration of copies: {of_calibration(rows, data)}."


def of_sizes(rows: Sequence[Row], data: str) -> str:
    """Whether the interval of the difference in MCC between mean and sum, over seeds, is above 0 or below.

    With fewer than `LEAST_GRAPHS` graphs in the balanced part, one graph of a rare class would decide.
    """
    of_large = partial(found, rows, data=data, part=LARGE, metric="MCC")
    large = {name: of_large(readout=name) for name in (*READOUTS, BEST_SIZE)}
    difference, low, high, _ = interval(np.array(large["mean"]) - np.array(large["sum"]), 0.0)
    graphs = mean(found(rows, data=data, part=BALANCED, metric="graphs"))
    undecided = graphs < LEAST_GRAPHS or low <= 0 <= high
    word = "undecided" if undecided else "as claimed" if low > 0 else "not as claimed"
    best = max(READOUTS, key=lambda name: mean(large[name]))
    of_majority = partial(found, rows, data=data, readout=MAJORITY, metric="accuracy")
    before, after = (share(mean(of_majority(part=part))) for part in (TRAIN, LARGE))
    return (
        f"{word}, mean has an MCC of {averaged(large['mean'])} and sum of {averaged(large['sum'])} "
        f"(difference {difference:+.2f}, 95 % interval {low:+.2f} to {high:+.2f} over "
        f"{len(large['mean'])} trainings; {graphs:.1f} graphs when classes are balanced); {best} is best "
        f"with {averaged(large[best])}, the best size threshold for these graphs has "
        f"{averaged(large[BEST_SIZE])}; the largest class in training is {before} of it "
        f"and {after} of the large graphs"
    )


def of_logits(rows: Sequence[Row], data: str) -> str:
    """Whether the sum grows as its head says, and no bit of those that see proportions moves."""
    grows = slope(rows, data, "sum")
    apart = [max(found(rows, data=data, part=COPIED, metric=name)) for name in IDENTITIES]
    shaken = [
        readout for readout in PROPORTIONS if any(found(rows, data=data, readout=readout, metric=MOVED))
    ]
    held = grows >= LEAST_SLOPE and max(apart) <= TOLERANCE and not shaken
    bits = f"{' and '.join(shaken)} moved" if shaken else f"not a bit of {', '.join(PROPORTIONS)} moved"
    return (
        f"{'as' if held else 'not as'} claimed, the norm of sum's logits grows as k^{grows:.2f}, {bits}; "
        f"less its bias sum has k times the logits up to {apart[0]:.0e}, and mean has sum's at temperature n "
        f"up to {apart[1]:.0e}"
    )


def of_calibration(rows: Sequence[Row], data: str) -> str:
    """Whether sum's calibration error and loss grow with copies of the same graphs."""
    one, most = ({metric: copied(rows, data, "sum", metric, k) for metric in CALIBRATED} for k in (1, MOST))
    held = most["ECE"] - one["ECE"] > LEAST_RISE and most["NLL"] > one["NLL"]
    told = ", ".join(f"{metric} from {one[metric]:.2f} to {most[metric]:.2f}" for metric in CALIBRATED[1:])
    stays = " and ".join(f"{name} {copied(rows, data, 'mean', name, MOST):.2f}" for name in ("ECE", "NLL"))
    return (
        f"{'as' if held else 'not as'} claimed, with {MOST} copies sum goes in {told}; mean stays at {stays}"
    )
