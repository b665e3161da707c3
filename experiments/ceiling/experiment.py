"""Do networks reach the ceiling of their readout, and does a lower one cost accuracy on held-out graphs?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.stats import spearmanr

from experiments import figures
from experiments.ceiling.jobs import (
    CONTROLS,
    LOG,
    OF_NETWORKS,
    READOUTS,
    SIZE,
    TO_CEILING,
    Task,
    measure,
    prepare,
)
from experiments.console import Table, table
from experiments.experiment import Drawing, Experiment, Finding, span
from experiments.options import FOLDS_OF_CLASSES, number
from experiments.records import Row, pick, present, values
from experiments.statistics import Comparison, corrected_error, interval, over_sets

WHOLE, CONFUSABLE = "all", "confusable"
PARTS = {WHOLE: ("graphs", "right"), CONFUSABLE: ("confusable", "confusable right")}
ENOUGH, FEWEST = 4, 10  # sets for an order; graphs for an interval


def tables(rows: Sequence[Row]) -> list[Table]:
    """What networks reach in training, what is right on held-out graphs, and differences to the mean."""
    reached = ("set", "rounds", "graphs", "majority", *READOUTS)
    scores = ("set", "learner", "part", "graphs", *READOUTS)
    apart = ("set", "learner", "part", "graphs", "gap", "readout", "difference", "95 % interval", "verdict")
    return [
        table(
            "Graphs answered right when trained on all; / ceiling where it is missed",
            reached,
            reached_lines(rows),
        ),
        table("Accuracy on held-out graphs without messages [%]", scores, score_lines(rows), text_columns=3),
        table(
            "Held-out differences to the mean, and the gap of the ceilings of sum and mean [points]",
            apart,
            difference_lines(rows),
            text_columns=3,
        ),
    ]


def reached_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and number of rounds."""
    for data in present(rows, "data"):
        about = [str(pick(rows, data=data, seed=None, metric=metric)) for metric in ("graphs", "majority")]
        for depth in present(rows, "rounds", data=data, learner=TO_CEILING):
            of = {"data": data, "rounds": depth, "learner": TO_CEILING}
            names = present(rows, "readout", **of)
            cells = [said_reached(rows, of | {"readout": name}) if name in names else "" for name in READOUTS]
            yield [data, str(depth), *about, *cells]
        yield []


def said_reached(rows: Sequence[Row], of: Mapping[str, Any]) -> str:
    """The right answers in training, and the ceiling where it is missed."""
    found, ceiling = (pick(rows, **of, metric=metric) for metric in ("right", "ceiling"))
    return str(found) if found == ceiling else f"{found} / {ceiling}"


def score_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set, learner and part."""
    for data in present(rows, "data"):
        for learner in learners(rows):
            for part in parts(rows, data):
                names = present(rows, "readout", data=data, learner=learner)
                cells = [
                    f"{100 * per_fold(rows, data, learner, name, part).mean():.1f}" if name in names else ""
                    for name in READOUTS
                ]
                yield [data, learner, part, str(graphs_in(rows, data, part)), *cells]
        yield []


def difference_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set, learner, part and readout that knows the size."""
    for data in present(rows, "data"):
        for learner in learners(rows):
            for part in parts(rows, data):
                for name in [
                    name for name in ("sum", LOG, SIZE) if name in present(rows, "readout", learner=learner)
                ]:
                    one = against_mean(rows, data, learner, name, part)
                    yield [
                        *(data, learner, part, str(graphs_in(rows, data, part))),
                        f"{ceiling_gap(rows, data):.1f}",
                        name,
                        f"{100 * one.difference:+.1f}",
                        f"{100 * one.low:+.1f} to {100 * one.high:+.1f}",
                        one.verdict,
                    ]
        yield []


def learners(rows: Sequence[Row]) -> list[str]:
    """The learners that were judged on held-out graphs."""
    return [name for name in present(rows, "learner") if name != TO_CEILING]


def graphs_in(rows: Sequence[Row], data: str, part: str) -> int:
    """How many graphs of a set are in a part."""
    found: int = pick(rows, data=data, seed=None, metric=PARTS[part][0])
    return found


def parts(rows: Sequence[Row], data: str) -> list[str]:
    """The whole set, and its confusable part where that is not too small."""
    return [part for part in PARTS if part == WHOLE or graphs_in(rows, data, part) >= FEWEST]


def per_fold(rows: Sequence[Row], data: str, learner: str, name: str, part: str) -> NDArray[np.float64]:
    """Right answers in each fold, divided by the mean number of graphs in one: the mean is the accuracy."""
    size, metric = PARTS[part]
    graphs = [
        row["value"]
        for row in rows
        if row["data"] == data and row["fold"] is not None and row["metric"] == size
    ]
    return np.array(values(rows, data=data, learner=learner, readout=name, metric=metric)) / np.mean(graphs)


def against_mean(rows: Sequence[Row], data: str, learner: str, name: str, part: str = WHOLE) -> Comparison:
    """The held-out accuracy of a readout minus that of the mean."""
    apart = differences(rows, data, learner, name, part)
    return Comparison(name, *interval(apart, 1 / (folds_of(rows, data) - 1)))


def differences(
    rows: Sequence[Row], data: str, learner: str, name: str, part: str = WHOLE
) -> NDArray[np.float64]:
    """The same, fold by fold."""
    of, mean = (per_fold(rows, data, learner, each, part) for each in (name, "mean"))
    return np.asarray(of - mean)


def folds_of(rows: Sequence[Row], data: str) -> int:
    """How many folds a set was cut into."""
    folds: int = present(rows, "folds", data=data)[0]
    return folds


def ceiling_gap(rows: Sequence[Row], data: str) -> float:
    """By how many points the ceiling of the mean is below that of the sum, without messages."""
    of = {"data": data, "rounds": 0, "learner": TO_CEILING, "metric": "ceiling"}
    total, mean = (pick(rows, **of, readout=name) for name in ("sum", "mean"))
    return 100 * float(total - mean) / graphs_in(rows, data, WHOLE)


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """Networks are at their ceilings; the sum is ahead of the mean; the ceilings foretell by how much."""
    for data in present(rows, "data"):
        yield from at_their_ceilings(rows, data)
    for learner in learners(rows):
        for data in present(rows, "data"):
            yield sum_ahead(rows, data, learner)
        if len(present(rows, "data")) >= ENOUGH:
            yield ordered(rows, learner)
        yield returned(rows, learner)


def at_their_ceilings(rows: Sequence[Row], data: str) -> Iterator[Finding]:
    """Checks: what networks reach in training, and that another scale changes nothing."""
    for depth in present(rows, "rounds", data=data, learner=TO_CEILING):
        of = {"data": data, "rounds": depth, "learner": TO_CEILING}
        names = [name for name in OF_NETWORKS if name in present(rows, "readout", **of)]
        said = ", ".join(f"{name} {said_reached(rows, of | {'readout': name})}" for name in names)
        good = all("/" not in said_reached(rows, of | {"readout": name}) for name in names)
        after = f"after {depth} rounds of GraphSAGE" if depth else "without messages"
        numbers = f"right of {graphs_in(rows, data, WHOLE)} graphs: {said}"
        yield Finding(f"{data}, networks reach their ceilings {after}", good, numbers, "check", main=False)
    of = {"data": data, "rounds": 0, "learner": TO_CEILING, "metric": "right"}
    pairs = {
        name: (pick(rows, **of, readout=name), pick(rows, **of, readout=same))
        for name, same in CONTROLS.items()
    }
    said = ", ".join(f"{name} {a}, {CONTROLS[name]} {b}" for name, (a, b) in pairs.items())
    yield Finding(
        f"{data}, scale is not size", all(a == b for a, b in pairs.values()), said, "check", main=False
    )


def sum_ahead(rows: Sequence[Row], data: str, learner: str) -> Finding:
    """The sum is more accurate than the mean on held-out graphs."""

    def said(part: str) -> str:
        one = against_mean(rows, data, learner, "sum", part)
        return f"{100 * one.difference:+.1f} points ({100 * one.low:+.1f} to {100 * one.high:+.1f})"

    numbers = f"{said(WHOLE)}, ceilings {ceiling_gap(rows, data):.1f} apart"
    if CONFUSABLE in parts(rows, data):
        numbers += (
            f"; on the {graphs_in(rows, data, CONFUSABLE)} graphs that a mean confuses {said(CONFUSABLE)}"
        )
    better = against_mean(rows, data, learner, "sum").better
    return Finding(f"{data}, {learner}, sum is ahead of mean", better, numbers)


def ordered(rows: Sequence[Row], learner: str) -> Finding:
    """The gap of the ceilings orders the gap on held-out graphs."""
    sets = present(rows, "data")
    gaps = [ceiling_gap(rows, data) for data in sets]
    found = spearmanr(gaps, [against_mean(rows, data, learner, "sum").difference for data in sets])
    holds = found.statistic > 0 if found.pvalue < 0.05 else None
    numbers = f"Spearman {found.statistic:.2f}, p {found.pvalue:.3f}, {len(sets)} sets"
    return Finding(f"{learner}, ceilings order the sets", None if holds is None else bool(holds), numbers)


def returned(rows: Sequence[Row], learner: str) -> Finding:
    """The size beside the mean returns most of what the sum is ahead, where it is."""
    sets = [data for data in present(rows, "data") if against_mean(rows, data, learner, "sum").better]
    lost, back = (
        sum(against_mean(rows, data, learner, name).difference for data in sets) for name in ("sum", SIZE)
    )
    claim = f"{learner}, n beside the mean returns most of the difference"
    if not sets:
        return Finding(claim, None, "on no set the sum is ahead beyond chance")
    return Finding(claim, back > lost / 2, f"{100 * back / lost:.0f} % of it, on {', '.join(sets)}")


def numbers(rows: Sequence[Row]) -> str:
    """What the sum is ahead of the mean, and the order."""
    said = []
    for learner in learners(rows):
        gaps = [100 * against_mean(rows, data, learner, "sum").difference for data in present(rows, "data")]
        said.append(f"{learner} {span(gaps, '+.1f')}")
    return f"sum minus mean on held-out graphs: {', '.join(said)} points"


def together(tasks: Sequence[Task], rows: Sequence[Row]) -> Iterator[str]:
    """What all sets say together of the sum and the mean."""
    sets = present(rows, "data")
    for learner in learners(rows) if len(sets) >= ENOUGH else ():
        apart = {data: differences(rows, data, learner, "sum") for data in sets}
        errors = [corrected_error(apart[data], 1 / (folds_of(rows, data) - 1)) for data in sets]
        found = over_sets([float(of.mean()) for of in apart.values()], errors)
        yield (
            f"{learner}, sum minus mean over {len(sets)} sets: {100 * found.mean:+.1f} points on average "
            f"({100 * found.low:+.1f} to {100 * found.high:+.1f}), sets differ by {100 * found.between:.1f}."
        )


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """The held-out difference over the gap of the ceilings: one panel a learner, one bar a set."""
    drawing, panels = figures.panels(len(learners(rows)), width=4.2, height=3.8, columns=2)
    colours_of = {"sum": figures.COLOURS["sum"], SIZE: figures.COLOURS["mean"]}
    gaps = {data: ceiling_gap(rows, data) for data in present(rows, "data")}
    for panel, learner in zip(panels, learners(rows), strict=True):
        tops: dict[str, float] = {}
        panel.axhline(0, color=figures.GREY, linewidth=1, linestyle=":")
        for shift, (name, colour) in zip((-0.05, 0.05), colours_of.items(), strict=True):
            for data, gap in gaps.items():
                one = against_mean(rows, data, learner, name)
                place = gap**0.5 + shift
                panel.plot([place] * 2, [100 * one.low, 100 * one.high], color=colour, linewidth=1.5)
                panel.plot(
                    place, 100 * one.difference, "o" if name == "sum" else "s", color=colour, markersize=5
                )
                tops[data] = max(one.high, tops.get(data, one.high))
        for data, top in tops.items():
            label(panel, data, gaps[data] ** 0.5, top)
        ticks = [tick for tick in (0, 1, 2, 4, 8, 16, 32, 64) if tick <= 1.3 * max(1, *gaps.values())]
        panel.set(title=learner, xlabel="ceiling of sum minus mean [points]")
        panel.set_xticks([tick**0.5 for tick in ticks], [str(tick) for tick in ticks])
    panels[0].set_ylabel("held-out accuracy, minus mean [points]")
    figures.legend(drawing, {f"{name} minus mean": (colour, "-") for name, colour in colours_of.items()})
    return figures.save(drawing, out, "ceiling")


def label(panel: Axes, data: str, place: float, top: float) -> None:
    """Write the name of a set above its bars, upwards."""
    panel.annotate(
        data,
        (place, 100 * top),
        xytext=(0, 4),
        textcoords="offset points",
        rotation=90,
        ha="center",
        va="bottom",
        fontsize=9,
    )


EXPERIMENT = Experiment(
    name="ceiling",
    title="Ceiling",
    question="Does a readout that separates fewer graphs make networks less accurate on held-out graphs?",
    claim=(
        "Without messages a mean is less accurate than a sum on held-out graphs, the more so the lower its "
        "ceiling, and the size beside it makes up for most of that"
    ),
    theory=(
        "A network gets no more graphs right than its readout can tell apart: this ceiling training reaches, "
        "which is a check. Whether it would have helped on held-out graphs to tell more apart is another "
        "question. If so, the gap between the ceilings of sum and mean orders sets by how far the sum is "
        "ahead, and the number of nodes, which is all that a mean loses, returns the difference."
    ),
    setup=(
        "Without messages, DeepSets on the node labels: pooled by the exact readouts, standardised. *To the "
        "ceiling*: a layer of random sines and two trained layers, on all graphs; four networks (two seeds, "
        "learning rates .01 and .003 that halve five times) until one of them is at the ceiling, at most "
        "2,000 steps; the best is shown. After one to three rounds: GraphSAGE with means of neighbours, 64 "
        "wide, trained for 20 epochs, then the same layers on its pooled vectors. *Held out*: 5 x 10 "
        "stratified folds, the same for all readouts and both learners. Perceptrons with two hidden layers "
        "of 32, Adam at .01, at most 300 steps on all training graphs; the step with the lowest loss on a tenth "
        "of them, held out, counts. Forests of 60 trees, with scikit-learn's settings. *Confusable* graphs "
        "share their mean with a graph of another class that the sum tells apart. Controls: *n \\* mean* and "
        "*sum / n* have another scale and see what sum and mean see; *n alone* is the size. Intervals know "
        "that training parts overlap."
    ),
    source=(
        "DeepSets: [Zaheer et al. 2017](https://arxiv.org/abs/1703.06114). Sum as multiset, mean as "
        "distribution, max as set: [Xu et al. 2019](https://arxiv.org/abs/1810.00826). Random sines: Rahimi "
        "and Recht, *Random features for large-scale kernel machines*, 2007. Intervals: Nadeau and Bengio, "
        "*Inference for the generalization error*, Machine Learning 52, 2003."
    ),
    caveats=(
        (
            "Held-out accuracy is measured without messages, where the ceilings of sum and mean differ most; "
            "after a round they nearly meet. `accuracy --network sage` trains whole networks with messages."
        ),
        (
            "A ceiling counts this set: in a small set nearly every graph is alone with its readout. That a "
            "network reaches it says nothing of other graphs."
        ),
        (
            "After rounds of messages a max may stay below its ceiling: the maxima of 64 numbers do not tell "
            "all sets of states apart."
        ),
        "A few sets are no sample of all sets: the order over them is a description.",
    ),
    drawings=(
        Drawing(
            "ceiling",
            "For each data set, the held-out accuracy of a sum minus that of a mean, over the difference "
            "of their ceilings; beside it that of a mean with the size.",
            "Held-out accuracy of the sum, and of the mean with n beside it, minus that of the mean, over the "
            "gap between the ceilings (square root scale); bars are 95 % intervals.",
        ),
    ),
    prepare=prepare,
    measure=measure,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=together,
    options={
        "folds": FOLDS_OF_CLASSES,
        "repeats": number(5, 1, "Cross-validations, each with its own folds."),
        "epochs": number(300, 1, "Steps of a perceptron on a fold at most, each on all training graphs."),
        "steps": number(2000, 1, "Steps towards the ceiling at most, each on all graphs."),
        "rounds": number(3, 0, "Rounds of GraphSAGE, 0 to this, for the ceilings."),
    },
    quick={"repeats": 1, "rounds": 1},
    on_device=False,
)
