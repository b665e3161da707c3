"""Which readout for which kind of target? The record of the experiment, and what comes of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median

import numpy as np
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from experiments import figures
from experiments.console import Table, percent, table
from experiments.experiment import Experiment, Finding, span
from experiments.jobs import carry_out
from experiments.options import names, number
from experiments.properties import jobs
from experiments.properties.jobs import BASELINES, CONSTANT, COUNTS, LINEAR, NETWORKS, SPLITS, Task, choose
from experiments.properties.targets import EXISTENTIAL, EXTENSIVE, INTENSIVE
from experiments.records import Row, RowLog, present
from experiments.statistics import Comparison, holm, interval

CLAIMED = {EXTENSIVE: "sum", INTENSIVE: "mean", EXISTENTIAL: "max"}
GROUPS = tuple((kind, split) for kind in CLAIMED for split in SPLITS)
METHODS = (*NETWORKS, COUNTS, LINEAR)
SHORT = {"size-aware mean": "sized", "sum+mean+max": "all 3", COUNTS: "forest", LINEAR: "linear"}
MARKS = {name: (colour, "o") for name, colour in figures.COLOURS.items()} | {
    "size-aware mean": ("#cc79a7", "s"),
    "sum+mean+max": (figures.INK, "D"),
}
LOW, FLOOR = 0.9, -1.0


def measure(
    tasks: Sequence[Task], log: RowLog, device: str, seed: int, readout: Sequence[str], folds: int, steps: int
) -> list[Row]:
    """Errors of all networks and baselines on all targets, and what each readout could reach."""
    rows, readouts = [], tuple(dict.fromkeys(readout))
    for task in tasks:
        found = list(jobs.list_jobs(task, device, seed, readouts, folds, steps))
        rows += carry_out(found, log, f"training on {task.graphs.name}")
    return rows


@dataclass(frozen=True)
class Cell:
    """One target of a set under one split: the skill of every method, a number a fold.

    Skill is the share of the constant's error that is removed; that error is averaged over the folds first.
    """

    data: str
    split: str
    target: str
    kind: str
    skill: Mapping[str, NDArray[np.float64]]

    def score(self, method: str) -> float:
        """The mean skill of a method."""
        return float(self.skill[method].mean())

    @property
    def best(self) -> str:
        """The network of the best mean."""
        return max((name for name in NETWORKS if name in self.skill), key=self.score)

    @property
    def decided(self) -> bool:
        """Whether that network is ahead of all baselines: without, there is nothing to compare."""
        return self.score(self.best) > max(map(self.score, BASELINES))


def cells(rows: Sequence[Row]) -> list[Cell]:
    """All targets of all sets under both splits."""
    errors: dict[tuple[str, str, str, str], dict[str, dict[int, float]]] = {}
    for row in rows:
        if row["metric"] == "error":
            key = row["data"], row["split"], row["target"], row["kind"]
            errors.setdefault(key, {}).setdefault(row["readout"], {})[row["fold"]] = row["value"]
    found = []
    for key, of_methods in errors.items():
        folds = {name: np.array([part[fold] for fold in sorted(part)]) for name, part in of_methods.items()}
        unit = float(folds[CONSTANT].mean()) or 1.0
        found.append(Cell(*key, {name: (folds[CONSTANT] - part) / unit for name, part in folds.items()}))
    return found


@dataclass(frozen=True)
class Contrast:
    """The readout that is claimed for a kind of target, minus another one: skill over the decided targets."""

    data: str
    kind: str
    split: str
    found: Comparison

    @property
    def said(self) -> str:
        """The difference in points, its interval, and p."""
        one = self.found
        return f"{one.points} ({one.bounds}, p = {one.p:.3f})"


def contrasts(found: Sequence[Cell]) -> list[Contrast]:
    """All planned contrasts; p after Holm, over those of a set."""
    result = []
    for data in dict.fromkeys(cell.data for cell in found):
        family = list(contrasts_of([cell for cell in found if cell.data == data and cell.decided]))
        adjusted = holm([one.found.p for one in family])
        result += [
            replace(one, found=replace(one.found, p=p)) for one, p in zip(family, adjusted, strict=True)
        ]
    return result


def contrasts_of(found: Sequence[Cell]) -> Iterator[Contrast]:
    """The contrasts of one set, each over all targets of a kind."""
    for kind, split in GROUPS:
        of_kind = [cell.skill for cell in found if (cell.kind, cell.split) == (kind, split)]
        for other in CLAIMED.values() if of_kind else ():
            if other != CLAIMED[kind] and {other, CLAIMED[kind]} <= of_kind[0].keys():
                apart = np.mean([skill[CLAIMED[kind]] - skill[other] for skill in of_kind], axis=0)
                compared = Comparison(other, *interval(apart, 1 / (len(apart) - 1)))
                yield Contrast(found[0].data, kind, split, compared)


def tables(rows: Sequence[Row]) -> list[Table]:
    """The answer for each kind of target, the contrasts, and all targets."""
    found = cells(rows)
    methods = [name for name in METHODS if name in found[0].skill]
    shown = [SHORT.get(name, name) for name in methods]
    note = "sized: size-aware mean; all 3: sum+mean+max; forest and linear: counts of atoms alone"
    title = f"Which readout for which kind of target? Median skill [%]; * the best; {note}"
    answers = table(title, ("targets", "split", *shown, "decided"), answer_lines(found, methods), 2)
    columns = ("set", "targets", "split", "contrast", "points of skill (95 % interval, p after Holm)")
    lines = (
        [one.data, one.kind, one.split, f"{CLAIMED[one.kind]} - {one.found.method}", one.said]
        for one in contrasts(found)
    )
    planned = table("Planned contrasts, over the decided targets of a kind", columns, lines, 4)
    title = "Every target: skill [%]; * the best network, where it is ahead of all baselines"
    return [
        answers,
        planned,
        table(title, ("set", "target", "split", *shown), target_lines(found, methods), 3),
    ]


def answer_lines(found: Sequence[Cell], methods: Sequence[str]) -> Iterator[list[str]]:
    """One line for each kind of target and split, over all targets of all sets, decided or not."""
    for kind, split in GROUPS:
        of_kind = [cell for cell in found if (cell.kind, cell.split) == (kind, split)]
        if of_kind:
            scores = {name: median(cell.score(name) for cell in of_kind) for name in methods}
            decided = sum(cell.decided for cell in of_kind)
            yield [kind, split, *marked(scores, max(scores.values())), f"{decided} of {len(of_kind)}"]


def marked(scores: Mapping[str, float], best: float | None) -> list[str]:
    """Scores in percent, with a star at the best."""
    return [f"{100 * score:.1f}{'*' if score == best else ''}" for score in scores.values()]


def target_lines(found: Sequence[Cell], methods: Sequence[str]) -> Iterator[list[str]]:
    """One line for each target and split of every set."""
    for cell in found:
        scores = {name: cell.score(name) for name in methods}
        best = scores[cell.best] if cell.decided else None
        yield [cell.data, cell.target, cell.split, *marked(scores, best)]


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """Whether the claimed readout is ahead of the two others, for each set, kind of target and split."""
    found = cells(rows)
    planned = contrasts(found)
    for data in present(rows, "data"):
        for kind, split in GROUPS:
            of_kind = [cell for cell in found if (cell.data, cell.kind, cell.split) == (data, kind, split)]
            of_contrast = [one for one in planned if (one.data, one.kind, one.split) == (data, kind, split)]
            if of_kind:
                better = [one.found.better for one in of_contrast]
                holds = False if False in better else None if None in better or not better else True
                claim = f"{data}, {kind} targets, {split}, {CLAIMED[kind]} is the best of sum, mean and max"
                yield Finding(claim, holds, said_of_kind(of_kind, of_contrast))


def said_of_kind(of_kind: Sequence[Cell], of_contrast: Sequence[Contrast]) -> str:
    """The differences to the other readouts, on which targets, and which are not decided."""
    decided = [cell.target for cell in of_kind if cell.decided]
    behind = [cell.target for cell in of_kind if not cell.decided]
    claimed = CLAIMED[of_kind[0].kind]
    parts = [f"{claimed} minus {one.found.method} {one.said} points of skill" for one in of_contrast]
    parts += [f"on {', '.join(decided)}"] if decided else []
    parts += [f"left out, as no network is ahead of all baselines: {', '.join(behind)}"] if behind else []
    return "; ".join(parts)


def numbers(rows: Sequence[Row]) -> str:
    """How far the claimed readouts are ahead of the others, over the sets."""
    said = []
    planned = contrasts(cells(rows))
    for kind, split in GROUPS:
        ahead = [one for one in planned if (one.kind, one.split) == (kind, split)]
        least = [
            100 * min(one.found.difference for one in ahead if one.data == data)
            for data in dict.fromkeys(one.data for one in ahead)
        ]
        said.append(f"{kind}, {split}: {span(least, '+.1f') if least else 'not decided'}")
    return f"points of skill by which the claimed readout is ahead of the next: {'; '.join(said)}"


def notes(tasks: Sequence[Task], rows: Sequence[Row]) -> Iterator[str]:
    """What became of each set, what a network costs that is not the best, and which ceilings are low."""
    yield from (task.sentence for task in tasks)
    decided = [cell for cell in cells(rows) if cell.decided]
    if decided:
        tried = [name for name in NETWORKS if name in decided[0].skill]
        lost = {name: mean(cell.score(cell.best) - cell.score(name) for cell in decided) for name in tried}
        ranked = ", ".join(f"{name} {percent(lost[name])}" for name in sorted(lost, key=lost.__getitem__))
        yield f"Points of skill behind the best network, mean over {len(decided)} decided targets: {ranked}."
    low = [row for row in rows if row["metric"] == "ceiling" and row["value"] < LOW]
    if low:
        limits = (f"{row['data']} {row['target']} {row['readout']} {percent(row['value'])}" for row in low)
        of = "Skill that no function of a readout exceeds on a whole set [%]"
        yield f"{of}: {', '.join(limits)}; others 90 or more."


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """One panel for each set and split: the skill of every readout and of counts on every target."""
    found = cells(rows)
    pairs = [(data, split) for data in present(rows, "data") for split in SPLITS]
    most = max(sum((cell.data, cell.split) == pair for cell in found) for pair in pairs)
    drawing, panels = figures.panels(len(pairs), width=4.6, height=0.38 * most + 0.9, columns=2)
    for panel, (data, split) in zip(panels, pairs, strict=True):
        shown = [cell for cell in found if (cell.data, cell.split) == (data, split)][::-1]
        for height, cell in enumerate(shown):
            counts = max(cell.score(COUNTS), cell.score(LINEAR))
            panel.plot([max(counts, FLOOR)], [height], "|", color=figures.GREY, markersize=20, mew=2)
            for place, name in enumerate(name for name in NETWORKS if name in cell.skill):
                colour, mark = MARKS[name]
                fill = colour if cell.decided else "none"
                x, y = max(cell.score(name), FLOOR), height + 0.3 - 0.15 * place
                panel.plot([x], [y], mark, color=colour, markersize=5, markerfacecolor=fill)
        panel.axvline(0, color=figures.PALE, linewidth=1, zorder=0)
        panel.set(title=f"{data}, {split}", xlabel="skill", xlim=(FLOOR - 0.05, 1.05))
        panel.set_yticks(range(len(shown)), [cell.target for cell in shown])
    handles = [Line2D([], [], color=colour, marker=mark, linestyle="") for colour, mark in MARKS.values()]
    handles.append(Line2D([], [], color=figures.GREY, marker="|", markersize=12, mew=2, linestyle=""))
    labels = [*MARKS, "counts of atoms alone"]
    drawing.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figures.save(drawing, out, "properties")


EXPERIMENT = Experiment(
    name="properties",
    title="Kinds of targets",
    question="""Which readout for which kind of target: one that grows with the graph, an average, or whether
    something exists?""",
    claim="Sum is the best readout for extensive targets, mean for intensive ones, max for existential ones",
    theory="""A sum adds what nodes contribute, as extensive properties do; a mean averages it, as intensive
    ones do; a max says whether one node is special, as a question of existence asks. So each should be the
    best readout for its kind of target, and most clearly on graphs larger than those of the training.""",
    setup="""GIN of two rounds, a batch norm between readout and head so that no readout has the advantage of
    its scale, the same steps, rate and first weights for all; nothing is selected, and the last epoch counts.
    Targets are computed by RDKit: molecular weight, heavy atoms, molar refractivity, TPSA (extensive), the
    share of sp3 carbons, mean electronegativity (intensive), nitro group, halogen, size of the largest ring
    (existential). Folds have equal sizes of molecules; by size, networks learn from the smaller half of the
    training part and are asked about the largest quarter of the test part. Skill is the share of the
    constant's error that is removed: mean absolute error, or wrong answers. A target is *decided* if the best
    network is ahead of the constant, of one tree on the size, and of a forest and a linear model on the
    counts of atoms. Contrasts are the claimed readout minus each other one of sum, mean and max, paired by
    fold, over the decided targets of a kind; p after Holm over those of a set.""",
    source="""For the sum: [Xu et al. 2019](https://arxiv.org/abs/1810.00826). Intervals: Nadeau and Bengio,
    *Inference for the generalization error*, Machine Learning 52, 2003. Targets:
    [RDKit](https://www.rdkit.org); molar refractivity: Wildman and Crippen, J. Chem. Inf. Comput. Sci. 39,
    1999.""",
    caveats=(
        """Networks read atoms and which are bonded; they read no bond orders, and no hydrogens where a set
        has none. Charges are in no label: those of nitro groups and their like are added.""",
        """Several targets are nearly functions of the counts of atoms. A network that is behind a linear
        model of counts is not needed there, and such a target decides nothing.""",
        "One rate, width, depth and schedule for all: a readout may gain from settings of its own.",
        """Depth, batch size, the batch norm after the readout and the halogen target were chosen after a
        first look at results.""",
        """By size, questions of existence rest on few molecules: of PTC_MR, 30 have a nitro group, few of
        them are large. Five folds find large differences only.""",
        """Rings are few, and all are rings: the size of the largest ring grows with the molecule there, and
        is an extensive target under another name.""",
    ),
    alt="""Two panels for each data set, random folds and folds by size: the skill of every readout on every
    target, and that of counts of atoms alone.""",
    caption="""Skill of every readout on every target; a grey bar for the better of two models that know the
    counts of atoms alone. Hollow: not decided. Skills below -1 are drawn at -1.""",
    prepare=choose,
    measure=measure,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=notes,
    takes_numbers=True,
    parallel=True,
    options={
        "readout": names("readout", NETWORKS, NETWORKS),
        "folds": number(5, 2, "Folds of the cross-validation."),
        "steps": number(400, 1, "Steps of training, each on 128 molecules at most."),
        "molecules": number(1000, 20, "Molecules of a set at most; more are a seeded sample."),
    },
    quick={"readout": ["sum", "mean", "max"], "folds": 3, "steps": 60},
)
