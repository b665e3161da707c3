"""Tables and verdicts; all from rows.

What a verdict says of a readout holds where it does in nine of ten folds or more, does not where it does in
one of ten or fewer, and else holds in some folds only. The two readouts are compared fold by fold, with the
intervals of `experiments.accuracy.statistics`, and differ where p is below .05.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import mean

import numpy as np
from rich.table import Table

from experiments.accuracy.statistics import LEVEL, interval
from experiments.activation_maps import worth
from experiments.activation_maps.maps import READOUTS
from experiments.activation_maps.measure import COUNTS, GROUPS, SHARES
from experiments.console import share, table
from experiments.rows import Row, pick, present

NEARLY_ALL = 0.9
HIT = ("is in it more often than by chance", "is in it no more often than by chance")
GOES = ("goes sooner than at random", "goes no sooner than at random")
COMES = ("comes back sooner", "comes back no sooner")
COMPARED = {
    "accuracy": "held-out accuracy",
    "half": "share of the atoms that carries half of the positive score",
    "deletion": "deletion below random by",
    "insertion": "insertion above random by",
}


def tables(rows: Sequence[Row]) -> list[Table]:
    """What was learned, where the maps have their score, what they hit, areas: averages over the folds."""
    learned = ("set", "readout", "held out", "size only", "majority", "in training", "with NO2", "without")
    mapped = ("set", "readout", "network", "NO2", "score", "ranked", "fused", "score", "half")
    drops = ("set", "readout", "network", "without best", "without NO2", "without random")
    groups = (f"{group}: {what}" for group in GROUPS for what in ("hit", "chance", "of"))
    hits = ("set", "readout", *groups)
    areas = ("set", "readout", "deleted best first", "at random", "deleted worst (inserted best) first")
    return [
        table(
            "Networks that know mutagens: accuracy; mutagens among molecules with NO2, and without",
            learned,
            learned_lines(rows),
            2,
        ),
        table(
            "NO2, where rings fuse: share of atoms, of positive score; atoms that carry half of it",
            mapped,
            mapped_lines(rows, (*SHARES, "half"), share),
            3,
        ),
        table(
            "Fall of the logit without atoms",
            drops,
            mapped_lines(rows, ("drop top", "drop nitro", "drop random"), "{:.2f}".format),
            3,
        ),
        table("Mutagens with a group: is the best scored atom in it?", hits, hit_lines(rows), 2),
        table("Probability of the predicted class: area under the curve", areas, area_lines(rows), 2),
    ]


def learned_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and readout."""
    for data in present(rows, "data"):
        with_, others_with, without_, others_without = (pick(rows, data=data, metric=name) for name in COUNTS)
        for readout in READOUTS:
            order = ("accuracy", "size only", "majority", "train accuracy")
            yield [
                data,
                readout,
                *(share(mean(per_fold(rows, data, readout, name))) for name in order),
                f"{with_}/{with_ + others_with}",
                f"{without_}/{without_ + others_without}",
            ]


def mapped_lines(
    rows: Sequence[Row], metrics: Sequence[str], form: Callable[[float], str]
) -> Iterator[list[str]]:
    """One line for each set, readout and network."""
    for data in present(rows, "data"):
        for readout in READOUTS:
            for trained in (True, False):
                values = [mean(per_fold(rows, data, readout, name, trained)) for name in metrics]
                yield [data, readout, "trained" if trained else "untrained", *map(form, values)]


def hit_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and readout: rates over all folds, and of how many molecules."""
    for data in present(rows, "data"):
        for readout in READOUTS:
            line = [data, readout]
            for group in GROUPS:
                number, hit, chance = (
                    sum(per_fold(rows, data, readout, f"{group} {what}"))
                    for what in ("molecules", "hits", "expected")
                )
                line += [share(hit / number), share(chance / number)] if number else ["", ""]
                line.append(f"{number:.0f}")
            yield line


def area_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and readout."""
    for data in present(rows, "data"):
        for readout in READOUTS:
            order = (worth.BEST, worth.RANDOM, worth.WORST)
            yield [data, readout, *(share(mean(areas(rows, data, readout, name))) for name in order)]


def per_fold(rows: Sequence[Row], data: str, readout: str, metric: str, trained: bool = True) -> list[float]:
    """The values of one metric, one a fold."""
    return [
        row["value"]
        for row in rows
        if (row["data"], row["readout"], row["metric"]) == (data, readout, metric)
        and (row["steps"] > 0) == trained
    ]


def areas(rows: Sequence[Row], data: str, readout: str, order: str) -> list[float]:
    """The area under the deletion curve of one order, one a fold."""
    curves = [per_fold(rows, data, readout, worth.point(order, part)) for part in worth.REMOVED]
    return [worth.area(curve) for curve in zip(*curves, strict=True)]


def verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """What the rows of each set amount to."""
    for data in present(rows, "data"):
        if not any(pick(rows, data=data, metric=name) for name in COUNTS[2:]):
            yield f"{data}: every molecule has a nitro group, so that it cannot tell the classes apart."
        for readout in READOUTS:
            yield of_nitro(rows, data, readout)
            yield of_rings(rows, data, readout)
            yield from of_hits(rows, data, readout)
            yield of_removal(rows, data, readout)
            yield of_curves(rows, data, readout)
        yield of_both(rows, data)


def of_nitro(rows: Sequence[Row], data: str, readout: str) -> str:
    """Whether nitro groups light up."""
    atoms, score = (per_fold(rows, data, readout, name) for name in ("atoms", "score"))
    more = [s > a for s, a in zip(score, atoms, strict=True)]
    return (
        f"{data}, {readout}: nitro groups {told(more, 'light up', 'do not light up')}: they are "
        f"{share(mean(atoms))} of the atoms and carry {share(mean(score))} of the positive score, more than "
        f"their share in {sum(more)} of {len(more)} folds."
    )


def of_rings(rows: Sequence[Row], data: str, readout: str) -> str:
    """Where else the score is."""
    atoms, score = (mean(per_fold(rows, data, readout, name)) for name in ("fused atoms", "fused score"))
    return (
        f"{data}, {readout}: atoms where rings are fused are {share(atoms)} of the atoms and carry "
        f"{share(score)} of the positive score."
    )


def of_hits(rows: Sequence[Row], data: str, readout: str) -> Iterator[str]:
    """Whether the best scored atom of a mutagen lies in its group, of folds that have such mutagens."""
    for group in GROUPS:
        what = ("molecules", "hits", "expected")
        found = zip(*(per_fold(rows, data, readout, f"{group} {name}") for name in what), strict=True)
        folds = [fold for fold in found if fold[0]]
        if folds:
            number, hit, chance = (sum(values) for values in zip(*folds, strict=True))
            more = [hits > expected for _, hits, expected in folds]
            yield (
                f"{data}, {readout}: of {number:.0f} mutagens with {group} the best scored atom "
                f"{told(more, *HIT)}: {share(hit / number)} against {share(chance / number)}, more in "
                f"{sum(more)} of {len(more)} folds."
            )


def of_removal(rows: Sequence[Row], data: str, readout: str) -> str:
    """Whether molecules with a nitro group need the atoms that the map points at."""
    top, at_random = (per_fold(rows, data, readout, name) for name in ("drop top", "drop random"))
    lower = [t > r for t, r in zip(top, at_random, strict=True)]
    return (
        f"{data}, {readout}: without its best scored atoms a molecule's logit falls by {mean(top):.2f}, "
        f"without as many at random by {mean(at_random):.2f}; further in {sum(lower)} of {len(lower)} folds."
    )


def of_curves(rows: Sequence[Row], data: str, readout: str) -> str:
    """Whether the probability of the predicted class falls sooner, and comes back sooner, than at random."""
    best, at_random, worst = (
        areas(rows, data, readout, order) for order in (worth.BEST, worth.RANDOM, worth.WORST)
    )
    sooner = [b < r for b, r in zip(best, at_random, strict=True)]
    back = [w > r for w, r in zip(worst, at_random, strict=True)]
    return (
        f"{data}, {readout}: when atoms are deleted best first, the predicted class {told(sooner, *GOES)} "
        f"(area {share(mean(best))} against {share(mean(at_random))}); when they are inserted "
        f"best first, it {told(back, *COMES)} ({share(mean(worst))})."
    )


def told(holds: Sequence[bool], yes: str, no: str) -> str:
    """The words for what holds in these folds."""
    if mean(holds) >= NEARLY_ALL:
        return yes
    return no if mean(holds) <= 1 - NEARLY_ALL else f"{yes} in some folds only"


def of_both(rows: Sequence[Row], data: str) -> str:
    """Mean against max, fold by fold."""
    parts = []
    for metric, words in COMPARED.items():
        first, second = (compared(rows, data, readout, metric) for readout in READOUTS)
        *_, p = interval(np.array(first) - np.array(second), 1 / (len(first) - 1))
        sign = "undecided" if p > 1 - LEVEL else "more" if mean(first) > mean(second) else "less"
        parts.append(f"{words} {share(mean(first))} and {share(mean(second))} ({sign})")
    return f"{data}, {' against '.join(READOUTS)}: {'; '.join(parts)}."


def compared(rows: Sequence[Row], data: str, readout: str, metric: str) -> list[float]:
    """One value a fold; deletion and insertion are gains in area over the random order."""
    if metric not in ("deletion", "insertion"):
        return per_fold(rows, data, readout, metric)
    order, sign = (worth.BEST, -1) if metric == "deletion" else (worth.WORST, 1)
    both = (areas(rows, data, readout, name) for name in (order, worth.RANDOM))
    return [sign * (chosen - at_random) for chosen, at_random in zip(*both, strict=True)]
