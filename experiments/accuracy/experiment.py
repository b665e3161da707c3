"""Networks x readouts and baselines on the folds of each set, beside ceilings, and what differences mean.

A job is one method on one fold; see `experiments.jobs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from matplotlib.axes import Axes

from datasets import GraphSet
from experiments import figures
from experiments.accuracy.answer import paragraph
from experiments.accuracy.gate import objections, shares
from experiments.accuracy.jobs import Plan, ceiling, list_fits, most_folds, reads_attributes
from experiments.console import Table, percent, say, table, tracked
from experiments.experiment import Experiment, Finding, Published, span
from experiments.jobs import carry_out, known
from experiments.learning.batches import NETWORKS, reside
from experiments.learning.goals import ACCURACY, SKILL
from experiments.learning.networks import READOUTS
from experiments.learning.training import Settings
from experiments.options import FOLDS_OF_CLASSES, flag, names, number
from experiments.records import Row, RowLog, pick, present
from experiments.statistics import DISAGREEMENT, Comparison, compare, corrected_error, detectable, over_sets

QUICK = ("sum", "mean", "max")


def measure(
    tasks: Sequence[GraphSet],
    log: RowLog,
    device: str,
    seed: int,
    network: Sequence[str],
    readout: Sequence[str],
    folds: int | None,
    repeats: int,
    epochs: int,
    seeds: int,
    attributes: bool,
    group: bool,
    quick: bool,
) -> list[Row]:
    """The rows of what the command line asks for."""
    settings = Settings(epochs=epochs, seeds=seeds)
    if quick:
        settings = replace(settings, epochs=min(epochs, 50), learning_rates=settings.learning_rates[:1])
    readouts = tuple(dict.fromkeys(readout)) or (QUICK if quick else tuple(READOUTS))
    plan = Plan(tuple(dict.fromkeys(network)), readouts, folds, repeats, seed, attributes, group, settings)
    return measure_plan(tasks, log, plan, device)


def measure_plan(sets: Sequence[GraphSet], log: RowLog, plan: Plan, device: str) -> list[Row]:
    """The rows of all ceilings, baselines and networks."""
    fits = [fit for graphs in sets for fit in list_fits(graphs, plan)]
    kinds = [(graphs, network) for graphs in sets for network in plan.networks]
    residents = {
        (graphs.name, network): reside(graphs, network, plan.settings.rounds, reads_attributes(graphs, plan))
        for graphs, network in tracked(kinds, "colouring nodes")
    }
    jobs = [ceiling(resident, name, plan) for resident in residents.values() for name in plan.readouts]
    jobs += [fit.job(residents[fit.data, fit.network], plan.settings, device) for fit in fits]
    if any(known(job, log) is None for job in jobs):
        say(*(power(graphs, plan) for graphs in sets if graphs.classes))
    return carry_out(jobs, log, "training")


def power(graphs: GraphSet, plan: Plan) -> str:
    """What these folds can find, in words."""
    folds = plan.folds or most_folds(graphs)
    least = 100 * detectable(len(graphs), folds, plan.repeats)
    return (
        f"{graphs.name}: {plan.repeats} x {folds} folds find a true difference of {least:.1f} points four "
        f"times out of five, if two networks disagree on {100 * DISAGREEMENT:.0f} % of the graphs"
    )


CONTRAST = ("mean", "sum")  # planned: the reference, and what is compared with it before all others
ENOUGH = 3  # sets, for a word on sets like these
TITLES = {ACCURACY: "Accuracy", SKILL: "Skill"}
NOT_TRIED = (
    "Not tried: other widths, depths, optimisers and schedules, edge features, splits by size or scaffold; "
    "a readout may gain from settings of its own."
)
ERRORS = ("set", "network", "readout", "MAE", "RMSE", "R2")
SCORES = ("set", "network", "readout", "train", "hold-out", "test", "sd", "ceiling", "converged")
COMPARED = ("set", "network", "method", "difference", "95 % interval", "p", "verdict")


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """Scores, errors of predicted numbers, and for each set and network the differences to the reference."""
    sets = present(rows, "data")
    scores = " and ".join(dict.fromkeys(TITLES[score_of(rows, data)] for data in sets))
    yield table(f"{scores} [%], mean over folds", SCORES, score_lines(rows), text_columns=3)
    if errors := list(error_lines(rows)):
        yield table("Errors on held-out graphs, mean over folds", ERRORS, errors, 3)
    reference, _ = comparisons_of(rows, sets[0], networks(rows, sets[0])[0])
    title = f"Paired differences to {reference} [points]; p after Holm, but for the planned sum minus mean"
    yield table(title, COMPARED, comparison_lines(rows), text_columns=3)


def score_of(rows: Sequence[Row], data: str) -> str:
    """The metric that decides on a set: accuracy, or skill where numbers are predicted."""
    return SKILL if SKILL in present(rows, "metric", data=data) else ACCURACY


def error_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line a method of every set whose numbers are predicted."""
    for data in present(rows, "data"):
        if score_of(rows, data) == SKILL:
            for network, of_network in methods(rows, data).items():
                for method in of_network:
                    of = {"data": data, "network": network, "readout": method}
                    found = (mean(per_fold(rows, **of, metric=name)) for name in ("mae", "rmse", "r2"))
                    yield [data, network or "none", method, *(f"{value:.3g}" for value in found)]
            yield []


def score_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line a method; the baselines of a set stand first."""
    for data in present(rows, "data"):
        score = score_of(rows, data)
        for network, of_network in methods(rows, data).items():
            trained = [row for row in rows if row["data"] == data and row["network"] == network]
            converged = shares(trained, score) if network else {}
            for method in of_network:
                of = {"data": data, "network": network, "readout": method}
                at = partial(per_fold, rows, **of)
                training, test = mean(at(metric=f"train {score}")), at(metric=score)
                held_out = limit = settled = ""
                if network:
                    held_out = percent(mean(at(metric=f"validation {score}")))
                    limit = percent(pick(rows, **of, metric="ceiling"))
                    settled = f"{100 * converged[method]:.0f}"
                found = percent(training), held_out, percent(mean(test)), percent(stdev(test)), limit, settled
                yield [data, network or "none", method, *found]
            yield []


def comparison_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line a comparison."""
    for data, network in pairs(rows):
        for one in comparisons_of(rows, data, network)[1]:
            yield [data, network, one.method, one.points, one.bounds, f"{one.p:.3f}", one.verdict]
        yield []


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """The sum beats the mean, for each pair of set and network; then all others against the reference."""
    for data, network in pairs(rows):
        reference, found = comparisons_of(rows, data, network)
        against = objections_to(rows, data, network)
        for one in found:
            said = f"{one.points} points of {score_of(rows, data)} ({one.bounds}, {one.verdict})"
            said += f"; no comparison, for {' and '.join(against)}" if against else ""
            claim = f"{data}, {network}, {one.method} is better than {reference}"
            main = (reference, one.method) == CONTRAST
            yield Finding(claim, None if against else one.better, said, main=main)


def objections_to(rows: Sequence[Row], data: str, network: str) -> list[str]:
    """What speaks against comparing the readouts of a network on a set."""
    of_network = [row for row in rows if row["data"] == data and row["network"] == network]
    scores = scores_of(rows, data, network), scores_of(rows, data, None)
    return objections(of_network, score_of(rows, data), *scores)


def numbers(rows: Sequence[Row]) -> str:
    """What the sum is ahead of the mean."""
    found = [
        100 * one.difference
        for data, network in pairs(rows)
        if not objections_to(rows, data, network)
        for reference, compared in [comparisons_of(rows, data, network)]
        for one in compared
        if (reference, one.method) == CONTRAST
    ]
    return f"sum minus mean: {span(found, '+.1f') + ' points' if found else 'not compared'}"


def comparisons_of(rows: Sequence[Row], data: str, network: str) -> tuple[str, list[Comparison]]:
    """The reference, mean where it was run, and all other readouts against it."""
    scores = scores_of(rows, data, network)
    reference = CONTRAST[0] if CONTRAST[0] in scores else next(iter(scores))
    planned = CONTRAST[1] if reference == CONTRAST[0] else None
    return reference, compare(scores, reference, folds_of(rows, data), planned)


def scores_of(rows: Sequence[Row], data: str, network: str | None) -> dict[str, list[float]]:
    """The scores of each readout of a network, or of the baselines, one a fold."""
    of = {"data": data, "network": network}
    at = partial(per_fold, rows, **of, metric=score_of(rows, data))
    return {method: at(readout=method) for method in present(rows, "readout", **of)}


def folds_of(rows: Sequence[Row], data: str) -> int:
    """How many folds a set was cut into."""
    folds: int = next(row["folds"] for row in rows if row["data"] == data and row["fold"] is not None)
    return folds


def answers(tasks: Sequence[GraphSet], rows: Sequence[Row]) -> Iterator[str]:
    """Which readout to choose, for each set and network, and what was not tried."""
    for data, network in pairs(rows):
        scores, score, of = scores_of(rows, data, network), score_of(rows, data), f"{data}, {network}"
        limits = {
            name: pick(rows, data=data, network=network, readout=name, metric="ceiling") for name in scores
        }
        yield paragraph(of, score, scores, scores_of(rows, data, None), limits, folds_of(rows, data))
    for network in present(rows, "network"):
        yield from together(rows, network) if network else ()
    yield NOT_TRIED


def together(rows: Sequence[Row], network: str) -> Iterator[str]:
    """What all sets with classes that may be compared say together of the planned contrast."""
    differences, errors = [], []
    for data in present(rows, "data", network=network):
        scores = scores_of(rows, data, network)
        asked = score_of(rows, data) == ACCURACY and scores.keys() >= set(CONTRAST)
        if asked and not objections_to(rows, data, network):
            apart = np.subtract(scores[CONTRAST[1]], scores[CONTRAST[0]])
            differences.append(float(apart.mean()))
            errors.append(corrected_error(apart, 1 / (folds_of(rows, data) - 1)))
    if len(differences) >= ENOUGH:
        found = over_sets(differences, errors)
        yield (
            f"{network}, sum minus mean over {len(differences)} sets: {found.said}; over one point with "
            f"probability {found.above:.2f}, within one {found.within:.2f}."
        )


def pairs(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """All sets with the networks that were trained on them."""
    return [(data, network) for data in present(rows, "data") for network in networks(rows, data)]


def networks(rows: Sequence[Row], data: str) -> list[str]:
    """The networks that were trained on a set."""
    return [name for name in present(rows, "network", data=data) if name]


def methods(rows: Sequence[Row], data: str) -> dict[str | None, list[str]]:
    """The baselines of a set, whose network is None, and then the readouts of each network."""
    kinds = (None, *networks(rows, data))
    return {kind: present(rows, "readout", data=data, network=kind) for kind in kinds}


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """One panel for each set and network."""
    shown = {}
    for data, network in pairs(rows):
        kinds = methods(rows, data)
        shown[data, network] = [(kind, name) for kind in (None, network) for name in reversed(kinds[kind])]
    height = 0.26 * max(map(len, shown.values())) + 0.8
    entries = {"dots: folds, bar: mean": (figures.INK, ""), "grey triangle: ceiling": (figures.GREY, "")}
    draws = [partial(draw, rows, *pair, lines) for pair, lines in shown.items()]
    return figures.draw(out, "accuracy", draws, entries, width=4.0, height=height, columns=2)


def draw(
    rows: Sequence[Row], data: str, network: str, lines: Sequence[tuple[str | None, str]], panel: Axes
) -> None:
    """A line a method, from below: a dot a fold, a bar for their mean, a triangle for the ceiling."""
    score = score_of(rows, data)
    for height, (of, method) in enumerate(lines):
        where = {"data": data, "network": of, "readout": method}
        found = [100 * value for value in per_fold(rows, **where, metric=score)]
        colour = figures.COLOURS.get(method, figures.INK if of else figures.GREY)
        figures.dots(panel, height, found, colour, (13, 2.5))
        if of:
            ceiling = 100 * pick(rows, **where, metric="ceiling")
            panel.plot([ceiling], [height], "<", color=figures.GREY, markersize=4)
    panel.set(title=f"{data}, {network}", xlabel=f"held-out {score} [%]", xlim=(None, 102))
    panel.set_yticks(range(len(lines)), [method for _, method in lines])


def per_fold(rows: Sequence[Row], **conditions: object) -> list[float]:
    """The values of one metric, one a fold, in the order of seeds and folds."""
    found = [row for row in rows if row["fold"] is not None and conditions.items() <= row.items()]
    return [row["value"] for row in sorted(found, key=lambda row: (row["seed"], row["fold"]))]


PUBLISHED = (
    Published(
        work="[Xu et al. 2019](https://arxiv.org/abs/1810.00826): GIN-0, sum readout",
        what="Accuracy [%] of GIN with a sum readout",
        protocol="""10-fold cross-validation, the best epoch of the curve averaged over the validation folds;
        mean and standard deviation over folds.""",
        why="""Theirs is chosen on the folds that are reported, so it is optimistic, and all depths are read
        out; ours is chosen on a hold-out within the training part, and the last round alone is read out.
        Their *PTC* is PTC_MR.""",
        values={
            "MUTAG": "89.4 ± 5.6",
            "PTC_MR": "64.6 ± 7.0",
            "PROTEINS": "76.2 ± 2.8",
            "NCI1": "82.7 ± 1.7",
        },
        network="gin",
        readouts=("sum",),
        shown="{test} ± {sd}",
    ),
    Published(
        work="[Errica et al. 2020](https://arxiv.org/abs/1912.09893): GIN, readout chosen from mean and sum",
        what="Accuracy [%] of GIN; ours: sum / mean",
        protocol="""10-fold risk assessment, inner model selection on a hold-out; mean and standard deviation
        over folds, each the mean of three runs.""",
        why="""The same kind of protocol; their selection also searches depth, width, dropout and readout,
        ours learning rate and epoch alone.""",
        values={"PROTEINS": "73.3 ± 4.0", "NCI1": "80.0 ± 1.4"},
        network="gin",
        readouts=("sum", "mean"),
        shown="{test} ± {sd}",
    ),
    Published(
        work="[Errica et al. 2020](https://arxiv.org/abs/1912.09893): structure-agnostic baseline",
        what="Accuracy [%] without the structure",
        protocol="As above; counts of the node labels and a small multilayer perceptron.",
        why="Ours is a forest on the counts of the node labels and the size.",
        values={"PROTEINS": "75.8 ± 3.7", "NCI1": "69.8 ± 2.2"},
        network="none",
        readouts=("counts only",),
        shown="{test} ± {sd}",
    ),
    Published(
        work="[Morris et al. 2020](https://arxiv.org/abs/2007.08663), the TUDataset paper: GIN, mean readout",
        what="Accuracy [%] of GIN with a mean readout",
        protocol="Ten times 10-fold cross-validation, selection on a validation part.",
        why="Ten repeats against ours (see the command), and other widths and schedules.",
        values={"PROTEINS": "72.2", "ENZYMES": "38.7", "NCI1": "77.7"},
        network="gin",
        readouts=("mean",),
        shown="{test}",
    ),
    Published(
        work="[Buterez et al. 2022](https://arxiv.org/abs/2211.04952): readouts alone, on GIN",
        what="Sum / mean / max; published: MCC, ours: accuracy [%]",
        protocol="Matthews correlation of their raw runs, averaged.",
        why="""Another measure, so only the order of the readouts and the smallness of their differences can
        be compared.""",
        values={"MUTAG": ".754 / .777 / .775", "Mutagenicity": ".626 / .614 / .654"},
        network="gin",
        readouts=("sum", "mean", "max"),
        shown="{test}",
    ),
)


EXPERIMENT = Experiment(
    name="accuracy",
    title="Accuracy",
    question="""Which readout is best for my data? Networks with every readout on the same folds, with
    baselines and upper bounds.""",
    claim="After a network that can count, a sum readout is more accurate than a mean",
    theory="""The readout that separates more graphs is the better one: a network with a sum readout is more
    accurate than one with a mean. On TU molecules the ceilings of both are nearly the same after a round of
    messages, so expect no significant difference often.""",
    setup="""GIN with batch norm, batches of 32, Adam with a learning rate that halves every 50 epochs.
    Stratified folds, the same folds, seeds and first weights for every readout. Within each fold the loss on
    a hold-out chooses the learning rate of each readout from .01, .003 and .001, and, with 500 graphs or
    more, the epoch; smaller sets are then trained once more on all but the test part, for a fixed number of
    epochs. The test part is asked once. A comparison is made only of networks that had converged and that are
    ahead of the best baseline: majority class, one threshold on the number of nodes, a forest on the counts
    of the atoms. Differences are paired by fold, with intervals that know that training parts overlap; sum
    minus mean is the planned contrast, all other p-values are Holm's; *equivalent* is an interval within one
    point. Over sets, a hierarchical model.""",
    source="""For the sum: [Xu et al. 2019](https://arxiv.org/abs/1810.00826). Against it: [Rosenbluth et al.
    2023](https://arxiv.org/abs/2302.11603). Protocol: [Errica et al. 2020](https://arxiv.org/abs/1912.09893).
    Intervals: Nadeau and Bengio, *Inference for the generalization error*, Machine Learning 52, 2003.""",
    caveats=(
        """*Undecided* is the usual outcome on small sets: it says that the folds are too few, not that
        readouts are equal.""",
        "One architecture and schedule for all: a readout may gain from settings of its own.",
        "No train accuracy is above the ceiling of its readout; a run in which one were would stop.",
    ),
    alt="""Held-out accuracy of every readout and baseline: a dot a fold, a bar for the mean, a triangle for
    the ceiling.""",
    caption="Held-out accuracy: a dot a fold, a bar for their mean, a grey triangle for the ceiling.",
    measure=measure,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=answers,
    takes_numbers=True,
    published=PUBLISHED,
    options={
        "network": names("network", NETWORKS, ("gin",)),
        "readout": names("readout", READOUTS),
        "folds": FOLDS_OF_CLASSES,
        "repeats": number(1, 1, "Cross-validations, each with its own folds."),
        "epochs": number(200, 1, "Epochs of training at most."),
        "seeds": number(1, 1, "Networks on each fold, from other weights; rows are their means."),
        "attributes": flag("Take node attributes, too.", "attributes"),
        "group": flag("Keep graphs that are the same in one fold.", "group"),
        "quick": flag("Sum, mean and max, one learning rate, 50 epochs at most.", "quick"),
    },
    quick={"quick": True},
    parallel=True,
)
