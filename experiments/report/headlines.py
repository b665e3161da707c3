"""An experiment in a few words and numbers, from its rows: for the table at the top of the report.

The rules are fixed here and can come out against the claim. Numbers that differ between sets are told from
the least to the greatest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from statistics import mean

from datasets.collisions import VIEWS
from experiments import copies, counting, propositions, robustness, scaling, tower
from experiments.accuracy import tables as accuracies
from experiments.accuracy.statistics import Comparison
from experiments.activation_maps import tables as maps
from experiments.excitation import tables as excitation
from experiments.extrapolation import tables as extrapolation
from experiments.extrapolation.task import LARGE
from experiments.gradients import tables as gradients
from experiments.heads import tables as heads
from experiments.heads.networks import FLATTEN, POOLED
from experiments.rows import Row, average, pick, present
from experiments.speed.cells import gather
from experiments.speed.thresholds import evaluate, main_ratios

ALMOST = 0.01
BETTER_THAN_GUESSING = 0.75
ROUNDING = 1e-6


def headline(name: str, rows: Sequence[Row]) -> dict[str, str] | None:
    """`verdict` and `numbers` of an experiment, or None of one that is not known here."""
    if name not in HEADLINES:
        return None
    verdict, numbers = HEADLINES[name](rows)
    return {"verdict": verdict, "numbers": numbers}


def held(by_case: Sequence[bool | None]) -> str:
    """In how many cases a claim held, in words; None is undecided."""
    good, open_ = sum(case is True for case in by_case), sum(case is None for case in by_case)
    if open_ == len(by_case):
        return "undecided" if by_case else "not asked"
    if good == len(by_case):
        return "holds"
    word = f"holds in {good} of {len(by_case)}" if good else "does not hold"
    return f"{word}, undecided in {open_}" if open_ else word


def claimed(sentence: str) -> bool | None:
    """What a sentence that begins with "as claimed", "not as claimed" or "undecided" says."""
    return None if sentence.startswith("undecided") else sentence.startswith("as claimed")


def span(values: Iterable[float], form: str = ".1f") -> str:
    """The least and the greatest, or the one number that they are when written."""
    ends = sorted(values)
    low, high = (f"{end:{form}}" for end in (ends[0], ends[-1]))
    return low if low == high else f"{low} to {high}"


def of_collisions(rows: Sequence[Row]) -> tuple[str, str]:
    """The mean's ceiling is below the sum's, after a round by at most a point; that of max is the lowest."""
    good, gaps = [], []
    for data in present(rows, "data"):
        ceilings = [ceilings_at(rows, data, depth) for depth in (0, 1)]
        gaps.append([100 * (ceiling["sum"] - ceiling["mean"]) for ceiling in ceilings])
        ordered = all(c["sum"] >= c["mean"] >= c["max"] for c in ceilings)
        good.append(ordered and gaps[-1][0] > 0 and gaps[-1][1] <= 100 * ALMOST)
    before, after = (span(gap) for gap in zip(*gaps, strict=True))
    return held(
        good
    ), f"the mean's ceiling is {before} points below the sum's on atoms, {after} after a round"


def ceilings_at(rows: Sequence[Row], data: str, depth: int) -> dict[str, float]:
    """The ceiling of each readout with injective aggregation."""
    at = {"data": data, "depth": depth, "aggregation": "sum", "metric": "ceiling"}
    return {view: pick(rows, **at, readout=view) for view in VIEWS}


def of_tower(rows: Sequence[Row]) -> tuple[str, str]:
    """All readouts but the sum have one output, bit for bit, and the sum is its multiple of the first."""
    found = list(towers(rows).values())
    good = [
        {row["readout"] for row in strayed(inside)} <= {"sum"} and sum_error(inside) <= ROUNDING
        for inside in found
    ]
    apart = max(row["value"] for row in rows if row["metric"] == "distance" and row["readout"] != "sum")
    factor = max(row["factor"] for row in rows)
    numbers = f"means and maxima at most {tower.small(apart)} apart, sums up to {factor:.4g} times the first"
    return held(good), f"{numbers}; towers: {len(found)}"


def towers(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """The rows of each tower, by its set and name."""
    result: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        result.setdefault((row["data"], row["tower"]), []).append(row)
    return result


def strayed(rows: Iterable[Row]) -> list[Row]:
    """The distances to the first graph that are not 0."""
    return [row for row in rows if row["metric"] == "distance" and row["value"]]


def sum_error(rows: Iterable[Row]) -> float:
    """How far the sums are from their multiples of the first, relative to these."""
    found = [row for row in rows if (row["metric"], row["readout"]) == ("deviation", "sum")]
    return max(float(row["value"] / row["factor"]) for row in found)


def of_copies(rows: Sequence[Row]) -> tuple[str, str]:
    """Mean and max guess in every fold, and the sum does far better."""
    found = {
        readout: [copies.per_fold(rows, data, readout, "accuracy") for data in present(rows, "data")]
        for readout in copies.READOUTS
    }
    good = [
        mean(counted) >= BETTER_THAN_GUESSING and {*proportions, *kinds} == {0.5}
        for counted, proportions, kinds in zip(*found.values(), strict=True)
    ]
    told = [f"{readout} {span(100 * mean(f) for f in folds)} %" for readout, folds in found.items()]
    return held(good), f"held-out accuracy: {', '.join(told)}"


def of_counting(rows: Sequence[Row]) -> tuple[str, str]:
    """Each readout gives what it is said to hold of atoms and nothing else, and the most of it of states."""
    sets, good = present(rows, "data"), []
    for data in sets:
        for states in present(rows, "states", data=data):
            judged = counting.of_atoms if states == counting.ATOMS else counting.of_states
            good.append(claimed(judged(partial(counting.over_folds, rows, data, states))))
    exact = {
        readout: span(
            100 * counting.over_folds(rows, data, counting.ATOMS, readout, counting.EXACT) for data in sets
        )
        for readout in counting.READOUTS
    }
    told = ", ".join(f"{readout} {share} %" for readout, share in exact.items())
    return held(good), f"graphs with all atoms counted right: {told}"


def of_propositions(rows: Sequence[Row]) -> tuple[str, str]:
    """All ten hold."""
    numbers = range(1, len(propositions.PROPOSITIONS) + 1)
    kept = []
    for data in present(rows, "data"):
        at = partial(propositions.numbers, rows, data)
        said = [
            propositions.judged({dtype: at(number, dtype) for dtype in propositions.DTYPES}, number)
            for number in numbers
        ]
        kept.append(sum(not words.startswith("fails") for words in said))
    return held([count == len(numbers) for count in kept]), f"{span(kept, 'd')} of {len(numbers)}"


def of_accuracy(rows: Sequence[Row]) -> tuple[str, str]:
    """The sum beats the mean, in each pair of set and network."""
    found = []
    for data in present(rows, "data"):
        for network in accuracies.networks(rows, data):
            reference, compared = accuracies.comparisons_of(rows, data, network)
            found += [one for one in compared if (reference, one.method) == ("mean", "sum")]
    points = span((100 * one.difference for one in found), "+.1f") if found else "no"
    return held([better(one) for one in found]), f"sum minus mean: {points} points"


def better(one: Comparison) -> bool | None:
    """Whether a method is better than its reference; None is undecided."""
    return None if one.verdict == "undecided" else one.verdict.startswith("better")


def of_extrapolation(rows: Sequence[Row]) -> tuple[str, str]:
    """The mean is ahead on large graphs; with copies the sum's logits alone grow, and its errors."""
    judges = (extrapolation.of_sizes, extrapolation.of_logits, extrapolation.of_calibration)
    said = [claimed(judged(rows, data)) for data in present(rows, "data") for judged in judges]
    of_large = partial(extrapolation.found, rows, part=LARGE, metric="MCC")
    ahead = [
        mean(of_large(data=data, readout="mean")) - mean(of_large(data=data, readout="sum"))
        for data in present(rows, "data")
    ]
    slopes = span((extrapolation.slope(rows, data, "sum") for data in present(rows, "data")), ".2f")
    return held(said), f"MCC of mean minus sum {span(ahead, '+.2f')}; logits of sum grow as k^a, a {slopes}"


def of_robustness(rows: Sequence[Row]) -> tuple[str, str]:
    """Every readout breaks where theory says, and behind trained networks the robust ones alone do not."""
    good, lost = [], {readout: list[float]() for readout in robustness.READOUTS}
    place = robustness.STATES
    for data in present(rows, "data"):
        points = [
            average(rows, data=data, readout=readout, metric="as predicted") == 1
            for readout in robustness.READOUTS
        ]
        if place in present(rows, "place", data=data):
            points.append(claimed(robustness.of_trained(rows, data, place)) is True)
            for readout, drops in lost.items():
                drops.append(100 * robustness.drop(rows, data, place, readout))
        good.append(all(points))
    told = ", ".join(f"{readout} {span(drops, '.0f')}" for readout, drops in lost.items() if drops)
    part = f"{100 * robustness.ASKED:.0f} %"
    return held(good), f"points lost with {part} of the states corrupted: {told or 'no network trained'}"


def of_gradients(rows: Sequence[Row]) -> tuple[str, str]:
    """The mean is democratic, the max winner-take-all, and labels meet so, in each set behind either head."""
    cases: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if "head" in row:
            cases.setdefault((row["data"], row["head"]), []).append(row)
    last = max(row["epoch"] for row in rows if "head" in row)
    at_last = partial(average, metric="gini", epoch=last)
    gini = {
        name: span((at_last(found, readout=name) for found in cases.values()), ".2f")
        for name in ("mean", "max")
    }
    told = ", ".join(f"{name} {value}" for name, value in gini.items())
    said = [gradients.of_spread(found) for found in cases.values()]
    said += [gradients.of_labels(found, head) for (_, head), found in cases.items()]
    return held([claimed(sentence) for sentence in said]), f"Gini coefficient after training: {told}"


def of_heads(rows: Sequence[Row]) -> tuple[str, str]:
    """Readouts keep every bit under shuffles, and flattened heads lose accuracy."""
    asked = heads.trained(rows)
    lost = span((100 * heads.lost(rows, data, FLATTEN) for data in asked), ".1f") if asked else "no"
    said = [claimed(heads.of_orders(rows, data)) for data in asked]
    same = partial(average, rows, metric="same bits")
    kept = [same(data=data, readout=name) for data in asked for name in POOLED]
    told = f"; graphs whose bits readouts keep: {100 * min(kept):.0f} %" if kept else ""
    return held(said), f"points that a flattened head loses when nodes are shuffled: {lost}{told}"


def of_activation_maps(rows: Sequence[Row]) -> tuple[str, str]:
    """Behind a mean, nitro groups carry more than their share of the positive score in nearly all folds."""
    good, told = [], []
    for data in present(rows, "data"):
        atoms, score = (maps.per_fold(rows, data, "mean", name) for name in ("atoms", "score"))
        good.append(mean(s > a for s, a in zip(score, atoms, strict=True)) >= maps.NEARLY_ALL)
        told.append(f"{data}: {100 * mean(atoms):.0f} % of the atoms, {100 * mean(score):.0f} % of the score")
    return held(good), "; ".join(told)


def of_excitation(rows: Sequence[Row]) -> tuple[str, str]:
    """Networks with gates are more accurate, for each squeeze."""
    found = [one for data in present(rows, "data") for one in excitation.comparisons(rows, data)]
    gained: dict[str, list[float]] = {}
    for one in found:
        gained.setdefault(one.method, []).append(100 * one.difference)
    told = ", ".join(f"{method} {span(points, '+.1f')}" for method, points in gained.items())
    return held([better(one) for one in found]), f"points gained by squeeze: {told}"


def of_speed(rows: Sequence[Row]) -> tuple[str, str]:
    """All limits are met; the numbers are those of small batches against PyG, and of large ones."""
    cells = gather(rows)
    told = [f"{name} {span(ratios)}" for name, ratios in main_ratios(cells).items() if ratios]
    return held([outcome.met for outcome in evaluate(cells)]), ", ".join(told) or "not timed"


def of_scaling(rows: Sequence[Row]) -> tuple[str, str]:
    """The bits of one process on any number of them, and messages that do not grow with them."""
    exact = all(row["value"] for row in rows if row["metric"] == "same bits")
    sent = {name: scaling.sent(rows, name) for name in scaling.READOUTS}
    level = all(len(set(sizes)) == 1 for sizes in sent.values())
    told = ", ".join(f"{name} {span((size / 1000 for size in sizes), '.0f')}" for name, sizes in sent.items())
    return held([exact, level]), f"kB sent by each process: {told}"


HEADLINES: dict[str, Callable[[Sequence[Row]], tuple[str, str]]] = {
    "collisions": of_collisions,
    "tower": of_tower,
    "copies": of_copies,
    "counting": of_counting,
    "propositions": of_propositions,
    "accuracy": of_accuracy,
    "extrapolation": of_extrapolation,
    "robustness": of_robustness,
    "gradients": of_gradients,
    "heads": of_heads,
    "activation-maps": of_activation_maps,
    "excitation": of_excitation,
    "speed": of_speed,
    "scaling": of_scaling,
}
