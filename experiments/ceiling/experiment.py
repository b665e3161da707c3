"""Do networks reach the ceiling of their readout, and does a lower one cost accuracy on held-out graphs?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.stats import rankdata

from experiments import figures
from experiments.ceiling import jobs
from experiments.ceiling.jobs import ALONE, CONTROLS, LOG, OF_NETWORKS, READOUTS, SIZE, TO_CEILING, measure
from experiments.console import Table, table
from experiments.experiment import Experiment, Finding, span
from experiments.options import FOLDS_OF_CLASSES, number
from experiments.records import Row, pick, present, values
from experiments.statistics import LEVEL, Comparison, corrected_error, interval, over_sets

WHOLE, CONFUSABLE = "all", "confusable"
PARTS = {WHOLE: ("graphs", "right"), CONFUSABLE: ("confusable", "confusable right")}
SCORED = ("majority", "sum", "mean", LOG, SIZE, "max", ALONE)
SHOWN = {"sum": (figures.COLOURS["sum"], "o"), SIZE: (figures.COLOURS["mean"], "s")}  # of the figure
APART = ("set", "learner", "gap", *SHOWN)
BESIDE = tuple(name for pair in CONTROLS.items() for name in pair[::-1])
ENOUGH, FEWEST, SHUFFLES = 4, 10, 10_000  # sets for an order; graphs for an interval


def tables(rows: Sequence[Row]) -> list[Table]:
    """What networks reach in training, the controls, held-out accuracy, and differences to the mean."""
    reached = ("set", "rounds", "graphs", *OF_NETWORKS)
    found = [table("Graphs right in training, / ceiling if missed", reached, reached_lines(rows))]
    controls = ("set", *BESIDE, SIZE)
    title = "Controls: right in training; perceptrons held out [%]"
    found.append(table(title, controls, control_lines(rows)))
    columns = ("set", "learner", *SCORED)
    found.append(table("Held-out accuracy without messages [%]", columns, score_lines(rows), 2))
    title = "Held out, minus mean, beside the gap of the ceilings [points]"
    found.append(table(title, APART, difference_lines(rows), 2))
    confused = ("set", "learner", "graphs", "sum", "mean", SIZE, "sum minus mean")
    found.append(table("Held out, the graphs that a mean confuses [%]", confused, confused_lines(rows), 2))
    return found


def reached_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and number of rounds."""
    for data, of_set in by_set(rows).items():
        for depth in present(of_set, "rounds", learner=TO_CEILING):
            cells = [said_reached(of_set, depth, name) for name in OF_NETWORKS]
            yield [data, str(depth), str(graphs_in(of_set, WHOLE)), *cells]
        yield []


def said_reached(of_set: Sequence[Row], depth: int, name: str) -> str:
    """The right answers in training, and the ceiling where it is missed."""
    of = {"rounds": depth, "learner": TO_CEILING, "readout": name}
    found, ceiling = (pick(of_set, **of, metric=metric) for metric in ("right", "ceiling"))
    return str(found) if found == ceiling else f"{found} / {ceiling}"


def control_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set: a readout, and beside it what has another scale and sees the same."""
    for data, of_set in by_set(rows).items():
        of = (*BESIDE, SIZE)
        yield [data, *(f"{said_reached(of_set, 0, n)}; {accuracy(of_set, 'perceptron', n)}" for n in of)]


def score_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and learner."""
    for data, of_set in by_set(rows).items():
        largest = f"{100 * pick(of_set, metric='majority') / graphs_in(of_set, WHOLE):.1f}"
        for learner in learners(rows):
            known = present(of_set, "readout", learner=learner)
            cells = [accuracy(of_set, learner, name) if name in known else "" for name in SCORED[1:]]
            yield [data, learner, largest, *cells]
        yield []


def accuracy(of_set: Sequence[Row], learner: str, name: str, part: str = WHOLE) -> str:
    """The held-out accuracy over all folds."""
    return f"{100 * per_fold(of_set, learner, name, part).mean():.1f}"


def difference_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and learner."""
    for data, of_set in by_set(rows).items():
        gap = f"{ceiling_gap(of_set):.1f}"
        for learner in learners(rows):
            yield [data, learner, gap, *(said_apart(against_mean(of_set, learner, name)) for name in SHOWN)]
        yield []


def confused_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set that has enough of such graphs, and learner."""
    for data, of_set in by_set(rows).items():
        for learner in learners(rows) if CONFUSABLE in parts(of_set) else ():
            cells = [accuracy(of_set, learner, name, CONFUSABLE) for name in ("sum", "mean", SIZE)]
            apart = said_apart(against_mean(of_set, learner, "sum", CONFUSABLE))
            yield [data, learner, str(graphs_in(of_set, CONFUSABLE)), *cells, apart]
        yield []


def said_apart(one: Comparison) -> str:
    """A difference in points, and its interval."""
    return f"{one.points} ({one.bounds})"


def by_set(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each set."""
    return {data: [row for row in rows if row["data"] == data] for data in present(rows, "data")}


def learners(rows: Sequence[Row]) -> list[str]:
    """The learners that were judged on held-out graphs."""
    return [name for name in present(rows, "learner") if name != TO_CEILING]


def graphs_in(of_set: Sequence[Row], part: str) -> int:
    """How many graphs of a set are in a part."""
    found: int = pick(of_set, seed=None, metric=PARTS[part][0])
    return found


def parts(of_set: Sequence[Row]) -> list[str]:
    """The whole set, and its confusable part where that is not too small."""
    return [part for part in PARTS if part == WHOLE or graphs_in(of_set, part) >= FEWEST]


def per_fold(of_set: Sequence[Row], learner: str, name: str, part: str) -> NDArray[np.float64]:
    """Right answers in each fold, divided by the mean number of graphs in one: the mean is the accuracy."""
    size, metric = PARTS[part]
    graphs = [row["value"] for row in of_set if row["fold"] is not None and row["metric"] == size]
    return np.array(values(of_set, learner=learner, readout=name, metric=metric)) / np.mean(graphs)


def differences(of_set: Sequence[Row], learner: str, name: str, part: str) -> NDArray[np.float64]:
    """The held-out accuracy of a readout minus that of the mean, fold by fold."""
    of, mean = (per_fold(of_set, learner, each, part) for each in (name, "mean"))
    return np.asarray(of - mean)


def against_mean(of_set: Sequence[Row], learner: str, name: str, part: str = WHOLE) -> Comparison:
    """The same over all folds, with its interval."""
    return Comparison(name, *interval(differences(of_set, learner, name, part), test_by_train(of_set)))


def test_by_train(of_set: Sequence[Row]) -> float:
    """Test graphs of a fold in shares of all others."""
    return 1 / (int(present(of_set, "folds")[0]) - 1)


def ceiling_gap(of_set: Sequence[Row]) -> float:
    """By how many points the ceiling of the mean is below that of the sum, without messages."""
    of = {"rounds": 0, "learner": TO_CEILING, "metric": "ceiling"}
    total, mean = (pick(of_set, **of, readout=name) for name in ("sum", "mean"))
    return 100 * float(total - mean) / graphs_in(of_set, WHOLE)


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """Networks are at their ceilings; the sum is ahead of the mean; the ceilings order by how much."""
    sets = by_set(rows)
    for data, of_set in sets.items():
        yield from at_their_ceilings(of_set, data)
    for learner in learners(rows):
        for data, of_set in sets.items():
            yield sum_ahead(of_set, data, learner)
        if len(sets) >= ENOUGH:
            yield ordered(sets, learner)
        yield returned(sets, learner)


def at_their_ceilings(of_set: Sequence[Row], data: str) -> Iterator[Finding]:
    """Checks: what networks reach in training, and that another scale changes nothing."""
    for depth in present(of_set, "rounds", learner=TO_CEILING):
        found = {name: said_reached(of_set, depth, name) for name in OF_NETWORKS}
        good = not any("/" in reached for reached in found.values())
        said = ", ".join(f"{name} {reached}" for name, reached in found.items())
        after = f"after {depth} round{'s' * (depth > 1)} of GraphSAGE" if depth else "without messages"
        numbers = f"right of {graphs_in(of_set, WHOLE)} graphs: {said}"
        yield Finding(f"{data}, networks reach their ceilings {after}", good, numbers, "check", main=False)
    found = {name: said_reached(of_set, 0, name) for name in READOUTS}
    said = ", ".join(f"{name} {found[name]}, {same} {found[same]}" for name, same in CONTROLS.items())
    alike = all(found[name] == found[same] for name, same in CONTROLS.items())
    yield Finding(f"{data}, another scale changes no ceiling", alike, said, "check", main=False)


def sum_ahead(of_set: Sequence[Row], data: str, learner: str) -> Finding:
    """The sum is more accurate than the mean on held-out graphs."""
    one = against_mean(of_set, learner, "sum")
    numbers = f"{said_apart(one)} points, ceilings {ceiling_gap(of_set):.1f} apart"
    if CONFUSABLE in parts(of_set):
        most = said_apart(against_mean(of_set, learner, "sum", CONFUSABLE))
        numbers += f"; on the {graphs_in(of_set, CONFUSABLE)} graphs that a mean confuses {most}"
    return Finding(f"{data}, {learner}, the sum is ahead of the mean", one.better, numbers)


def ordered(sets: Mapping[str, Sequence[Row]], learner: str) -> Finding:
    """The gap of the ceilings orders the gap on held-out graphs."""
    claim = f"{learner}, the ceilings order the sets"
    gaps = [ceiling_gap(of_set) for of_set in sets.values()]
    ahead = [against_mean(of_set, learner, "sum").difference for of_set in sets.values()]
    if min(len(set(gaps)), len(set(ahead))) < 2:
        return Finding(claim, None, f"all {len(sets)} sets are alike")
    rho, p = spearman(gaps, ahead)
    holds = rho > 0 if p < 1 - LEVEL else None
    return Finding(claim, holds, f"Spearman {rho:.2f}, p {p:.3f}, {len(sets)} sets")


def spearman(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Spearman's correlation, and the share of `SHUFFLES` random orders that are as far from 0."""
    a, b = (rankdata(of) - (len(of) + 1) / 2 for of in (first, second))
    others = np.random.default_rng(0).permuted(np.tile(b, (SHUFFLES - 1, 1)), axis=1) @ a
    reached = 1 + int((np.abs(others) >= abs(a @ b) - 1e-9).sum())
    return float(a @ b / np.sqrt((a @ a) * (b @ b))), reached / SHUFFLES


def returned(sets: Mapping[str, Sequence[Row]], learner: str) -> Finding:
    """The size beside the mean returns most of what the sum is ahead, over the sets where it is."""
    ahead = {data: of_set for data, of_set in sets.items() if against_mean(of_set, learner, "sum").better}
    names = "sum", SIZE
    lost, back = (sum(against_mean(of, learner, name).difference for of in ahead.values()) for name in names)
    claim = f"{learner}, n beside the mean returns most of the difference"
    if not ahead:
        return Finding(claim, None, "the sum is nowhere ahead beyond chance")
    return Finding(claim, back > lost / 2, f"{100 * back / lost:.0f} % of it, on {', '.join(ahead)}")


def numbers(rows: Sequence[Row]) -> str:
    """What the sum is ahead of the mean, and the order of the sets."""
    sets = by_set(rows)
    said = []
    for learner in learners(rows):
        gaps = [100 * against_mean(of_set, learner, "sum").difference for of_set in sets.values()]
        order = [ordered(sets, learner).numbers] if len(sets) >= ENOUGH else []
        said.append(", ".join([f"{learner} {span(gaps, '+.1f')} points", *order]))
    return f"sum minus mean on held-out graphs: {'; '.join(said)}"


def together(tasks: Sequence[jobs.Task], rows: Sequence[Row]) -> Iterator[str]:
    """What all sets say together of the sum and the mean."""
    sets = by_set(rows)
    for learner in learners(rows) if len(sets) >= ENOUGH else ():
        apart = {data: differences(of_set, learner, "sum", WHOLE) for data, of_set in sets.items()}
        errors = [corrected_error(of, test_by_train(sets[data])) for data, of in apart.items()]
        found = over_sets([float(of.mean()) for of in apart.values()], errors)
        yield f"{learner}, sum minus mean over {len(sets)} sets: {found.said}."


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """The held-out difference over the gap of the ceilings, a panel a learner."""
    drawing, panels = figures.panels(len(learners(rows)), width=4.2, height=4.2, columns=2)
    for panel, learner in zip(panels, learners(rows), strict=True):
        draw(panel, by_set(rows), learner)
    panels[0].set_ylabel("held-out accuracy, minus mean [points]")
    figures.legend(drawing, {f"{name} minus mean": (colour, "-") for name, (colour, _) in SHOWN.items()})
    return figures.save(drawing, out, "ceiling")


def draw(panel: Axes, sets: Mapping[str, Sequence[Row]], learner: str) -> None:
    """Two bars a set, with its name above them, upwards."""
    gaps = {data: ceiling_gap(of_set) for data, of_set in sets.items()}
    widest = max(1, *gaps.values())
    panel.axhline(0, color=figures.GREY, linewidth=1, linestyle=":")
    for data, of_set in sets.items():
        place, apart = gaps[data] ** 0.5, 0.012 * widest**0.5
        both = {name: against_mean(of_set, learner, name) for name in SHOWN}
        for shift, (name, one) in zip((-apart, apart), both.items(), strict=True):
            colour, marker = SHOWN[name]
            panel.plot([place + shift] * 2, [100 * one.low, 100 * one.high], color=colour, linewidth=1.5)
            panel.plot(place + shift, 100 * one.difference, marker, color=colour, markersize=5)
        above: dict[str, Any] = {
            "xytext": (0, 4),
            "textcoords": "offset points",
            "rotation": 90,
            "fontsize": 9,
        }
        top = 100 * max(one.high for one in both.values())
        panel.annotate(data, (place, top), ha="center", va="bottom", **above)
    low, high = panel.get_ylim()
    panel.set_ylim(low, high + 0.2 * (high - low))  # for the names
    panel.set(title=learner, xlabel="ceiling, sum minus mean [points]")
    ticks = [tick for tick in (0, 1, 2, 4, 8, 16, 32, 64) if tick <= 1.3 * widest]
    panel.set_xticks([tick**0.5 for tick in ticks], [str(tick) for tick in ticks])


EXPERIMENT = Experiment(
    name="ceiling",
    title="Ceiling",
    question="Does a readout that separates fewer graphs make networks less accurate on held-out graphs?",
    claim="""Without messages a mean is less accurate than a sum on held-out graphs, the more so the lower its
    ceiling, and the size beside it makes up for most of that""",
    theory="""A network gets no more graphs right than its readout can tell apart: this ceiling training
    reaches, which is a check. Whether it would have helped on held-out graphs to tell more apart is another
    question. If so, the gap between the ceilings of sum and mean orders sets by how far the sum is ahead, and
    the number of nodes, which is all that a mean loses, returns the difference.""",
    setup="""Without messages, DeepSets on the node labels: pooled by the exact readouts, standardised. *To
    the ceiling*: a layer of random sines and two trained layers, on all graphs; four networks (two seeds,
    learning rates .01 and .003 that halve five times) until one of them is at the ceiling, at most 2,000
    steps; the best is shown. After one to three rounds: GraphSAGE with means of neighbours, 64 wide, trained
    for 20 epochs, then the same layers on its pooled vectors. *Held out*: 5 x 10 stratified folds, the same
    for all readouts and both learners. Perceptrons with two hidden layers of 32, Adam at .01, at most 300
    steps on all training graphs; the step with the lowest loss on a tenth of them, held out, counts. Forests
    of 60 trees, with scikit-learn's settings. A mean confuses graphs of different classes that have one mean
    and different sums. Controls: *n \\* mean* and *sum / n* have another scale and see what sum and mean see;
    *n alone* is the size. Intervals of 95 % that know that training parts overlap.""",
    source="""DeepSets: [Zaheer et al. 2017](https://arxiv.org/abs/1703.06114). Sum as multiset, mean as
    distribution, max as set: [Xu et al. 2019](https://arxiv.org/abs/1810.00826). Random sines: Rahimi and
    Recht, *Random features for large-scale kernel machines*, 2007. Intervals: Nadeau and Bengio, *Inference
    for the generalization error*, Machine Learning 52, 2003.""",
    caveats=(
        """Held-out accuracy is measured without messages, where the ceilings of sum and mean differ most;
        after a round they nearly meet. `accuracy --network sage` trains whole networks with messages.""",
        """A ceiling counts this set: in a small set nearly every graph is alone with its readout. That a
        network reaches it says nothing of other graphs.""",
        """After rounds of messages a max may stay below its ceiling: the maxima of 64 numbers do not tell all
        sets of states apart.""",
        """The graphs that a mean confuses are chosen by their classes, so a mean is bound to do worse on
        them: the difference there says how much of it the sum wins back.""",
        "A few sets are no sample of all sets: the order over them is a description.",
    ),
    alt="""For each data set, the held-out accuracy of a sum minus that of a mean, over the difference of
    their ceilings; beside it that of a mean with the size.""",
    caption="""Held-out accuracy of the sum, and of the mean with n beside it, minus that of the mean, over
    the gap between the ceilings (square root scale); bars are 95 % intervals.""",
    prepare=jobs.prepare,
    measure=measure,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=together,
    parallel=True,
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
