"""Can a trained network tell a molecule from its k copies?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean

import torch
from matplotlib.axes import Axes
from torch import Tensor
from torch_geometric.data import Data

from datasets import GraphSet, covers
from experiments import figures
from experiments.console import Table, UserError, percent, table
from experiments.experiment import Experiment, Finding, sentences, span
from experiments.jobs import Job, carry_out
from experiments.learning.batches import Resident, reside
from experiments.learning.training import Settings
from experiments.options import FOLDS, number
from experiments.records import Row, RowLog, present, values
from experiments.samples import drawn, label_of, sampled
from experiments.trained import train, twins

READOUTS = ("sum", "mean", "max")
BASELINE = "size only"
METRICS = ("train accuracy", "accuracy", "pairs ranked")
MOST_COPIES = 12
BETTER_THAN_GUESSING = 0.75
SAMPLE = 200
LEARNING_RATE, ROUNDS, WIDTH = 0.01, 2, 16
Sides = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Task:
    """Molecules, the number of copies to tell them from, what folds keep in proportion, and the folds."""

    data: str
    graphs: tuple[Data, ...]
    available: int
    k: int
    strata: tuple[str, ...]
    splits: tuple[Sides, ...]

    @property
    def sentence(self) -> str:
        """What is asked, and on how many of the molecules."""
        sample = sampled(len(self.graphs), self.available)
        return (
            f"{self.data}: {len(self.graphs)} graphs{sample}, each against {self.k} copies of it; "
            "the smallest and the largest of each class or family are always trained on; of those held out "
            f"{twins(self.graphs, self.splits)}."
        )

    def both_forms(self) -> GraphSet:
        """The molecules, then the copies of each, as two classes."""
        copied = [covers.copies(graph, self.k) for graph in self.graphs]
        forms = [*self.graphs, *copied]
        for position, graph in enumerate(forms):
            graph.y = torch.tensor([position // len(self.graphs)])
        return GraphSet(self.data, tuple(forms), 2)


def choose(graphs: GraphSet, k: int | None, seed: int, folds: int) -> Task:
    """A task on at most `SAMPLE` graphs; k defaults to `enough_copies`."""
    picked = [graph for graph in drawn(graphs, SAMPLE, seed) if graph.num_nodes > 0]
    fields = ("x", "node_label", "edge_index")
    kept = tuple(Data(**{field: graph[field] for field in fields}) for graph in picked)
    sizes, strata = [graph.num_nodes for graph in picked], tuple(map(label_of, picked))
    splits = split(graphs.name, sizes, strata, folds, seed)
    return Task(graphs.name, kept, len(graphs), k or enough_copies(sizes), strata, splits)


def enough_copies(sizes: Sequence[int]) -> int:
    """The least k that makes every k copies larger than every molecule, at most `MOST_COPIES`.

    With fewer, copies of a small ring are to a sum what a large ring is: two of cyclopropane and cyclohexane.
    """
    return min(max(sizes) // min(sizes) + 1, MOST_COPIES)


def measure(tasks: Sequence[Task], log: RowLog, device: str, seed: int, epochs: int) -> list[Row]:
    """Train and test each readout on each fold, with both forms of a molecule on the same side."""
    settings = Settings(ROUNDS, WIDTH, learning_rates=(LEARNING_RATE,), epochs=epochs)
    rows = []
    for task in tasks:
        resident = reside(task.both_forms(), "gin", ROUNDS).to(device)
        jobs = []
        for fold, sides in enumerate(task.splits):
            work = {"data": task.data, "seed": seed, "fold": fold, "k": task.k}
            work |= {"graphs": len(task.graphs), "folds": len(task.splits)}
            for readout in READOUTS:
                here = work | {"readout": readout, "settings": asdict(settings)}
                compute = partial(train_and_judge, resident, sides, readout, settings, seed + fold)
                jobs.append(Job([(here, METRICS)], compute))
            jobs.append(Job([(work | {"readout": BASELINE}, METRICS)], partial(judge_sizes, task, sides)))
        rows += carry_out(jobs, log, f"training on {task.data}")
    return rows


def split(data: str, sizes: Sequence[int], strata: Sequence[str], folds: int, seed: int) -> tuple[Sides, ...]:
    """Positions for training and for testing, stratified.

    The smallest and the largest molecule of each stratum are always trained on, and every other one is tested
    once: the question is what a readout sees, not how far a network extrapolates.
    """
    order = torch.randperm(len(sizes), generator=torch.Generator().manual_seed(seed)).tolist()
    extremes, others = set(), []
    for stratum in sorted(set(strata)):
        members = [position for position in order if strata[position] == stratum]
        ends = {min(members, key=sizes.__getitem__), max(members, key=sizes.__getitem__)}
        extremes |= ends
        others += [position for position in members if position not in ends]
    if len(others) < folds:
        raise UserError(f"--folds {folds}: {data} has only {len(others)} graphs to test on.")
    tests = [sorted(others[fold::folds]) for fold in range(folds)]
    return tuple((sorted(extremes | set(others) - set(test)), test) for test in tests)


def train_and_judge(
    resident: Resident, sides: Sides, readout: str, settings: Settings, seed: int
) -> list[dict[str, float]]:
    """Train on both forms of one side of the split, judge on both sides."""
    half = len(resident) // 2
    train_on, test = ([*side, *(half + position for position in side)] for side in sides)
    network = train(resident, train_on, readout, settings, seed).network
    with torch.no_grad():
        logits = [network(resident.batch(side))[0] for side in (train_on, test)]
    return [judge(*((logit[:, 1] - logit[:, 0]).cpu() for logit in logits))]


def judge_sizes(task: Task, sides: Sides) -> list[dict[str, float]]:
    """The baseline: the one threshold on the number of nodes that is best in training."""
    sizes = torch.tensor([float(graph.num_nodes) for graph in task.graphs])
    seen, asked = (torch.cat([sizes[side], sizes[side] * task.k]) for side in sides)
    thresholds = seen.unique() + 0.5
    best = max(thresholds.tolist(), key=lambda threshold: accuracy(seen - threshold))
    return [judge(seen - best, asked - best)]


def judge(train_scores: Tensor, test_scores: Tensor) -> dict[str, float]:
    """Accuracy in training and on held-out molecules, and the share of pairs whose copies score higher."""
    single, copied = test_scores.chunk(2)
    ranked = (copied > single).double() + 0.5 * (copied == single).double()
    found = accuracy(train_scores), accuracy(test_scores), ranked.mean().item()
    return dict(zip(METRICS, found, strict=True))


def accuracy(scores: Tensor) -> float:
    """The share of right answers, where the first half are molecules and the second half copies."""
    single, copied = scores.chunk(2)
    right = int((single <= 0).sum()) + int((copied > 0).sum())
    return right / len(scores)


def tables(rows: Sequence[Row]) -> list[Table]:
    """Accuracies in percent, averaged over folds, with the worst and best fold."""
    columns, lines = ("set", "readout", "train", "held out", "folds from - to", "copies score higher"), []
    for data in present(rows, "data"):
        for readout in (*READOUTS, BASELINE):
            folds = [of(rows, data, readout, metric) for metric in METRICS]
            training, held_out, ranked = (percent(mean(found)) for found in folds)
            ends = f"{percent(min(folds[1]))} - {percent(max(folds[1]))}"
            lines.append([data, readout, training, held_out, ends, ranked])
    return [table("A molecule or its copies? Accuracy [%]", columns, lines, text_columns=2)]


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """Held-out accuracy of each readout, a panel a set."""
    draws = [partial(draw, rows, data) for data in present(rows, "data")]
    return figures.draw(out, "copies", draws, width=3.4, height=2.0)


def draw(rows: Sequence[Row], data: str, panel: Axes) -> None:
    """A dot a fold and a bar for their mean."""
    lines = (BASELINE, *reversed(READOUTS))
    panel.axvline(50, color=figures.GREY, linewidth=1, linestyle=":", zorder=0)
    for height, readout in enumerate(lines):
        found = [100 * value for value in of(rows, data, readout, "accuracy")]
        colour = figures.COLOURS.get(readout, figures.GREY)
        figures.dots(panel, height, found, colour, (18, 3), clip_on=False, alpha=0.35, markersize=8)
        panel.annotate(f"{mean(found):.1f} %", (104, height), va="center", annotation_clip=False)
    panel.set(title=data, xlim=(30, 101), ylim=(-0.6, len(lines) - 0.4), xlabel="held-out accuracy [%]")
    panel.set_yticks(range(len(lines)), lines)


def of(rows: Sequence[Row], data: str, readout: str, metric: str) -> list[float]:
    """The values of one metric, one a fold."""
    return values(rows, data=data, readout=readout, metric=metric)


def told(accuracies: Sequence[float]) -> str:
    """What the accuracies of all folds amount to; 50 % is what guessing gets."""
    if all(accuracy == 0.5 for accuracy in accuracies):
        return "cannot tell a held-out molecule from its copies: as good as guessing, in every fold"
    if all(accuracy == 1 for accuracy in accuracies):
        return "tells every held-out molecule from its copies"
    return f"tells {'nearly all' if mean(accuracies) > 0.95 else 'some'} molecules from their copies"


def headline(rows: Sequence[Row]) -> Iterator[str]:
    """One line a readout: how often it tells held-out molecules from copies, on average over the sets."""
    for readout in READOUTS:
        per_set = [of(rows, data, readout, "accuracy") for data in present(rows, "data")]
        found = told([accuracy for folds in per_set for accuracy in folds])
        yield f"{readout.capitalize():<5}{percent(mean(map(mean, per_set))):>6} %  {found}"


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """Mean and max guess in every fold, and the sum does far better."""
    for data in present(rows, "data"):
        folds = {readout: of(rows, data, readout, "accuracy") for readout in READOUTS}
        good = mean(folds["sum"]) >= BETTER_THAN_GUESSING and {*folds["mean"], *folds["max"]} == {0.5}
        parts = [f"{readout} {told(found)} ({percent(mean(found))} %)" for readout, found in folds.items()]
        yield Finding(data, good, "; ".join(parts), "check")


def numbers(rows: Sequence[Row]) -> str:
    """The accuracies of all sets."""
    told = []
    for readout in (*READOUTS, BASELINE):
        found = (100 * mean(of(rows, data, readout, "accuracy")) for data in present(rows, "data"))
        told.append(f"{readout} {span(found)} %")
    return f"held-out accuracy: {', '.join(told)}"


EXPERIMENT = Experiment(
    name="copies",
    title="Copies",
    question="Can a trained network distinguish a molecule from its copies?",
    claim="""A trained network with a mean or max readout cannot tell a molecule from its copies; with a sum
    it can""",
    theory="""With a mean or max readout a molecule and k disjoint copies of it have the same logits, bit for
    bit, however long one trains: one answer of each pair is right and the other wrong, 50.0 %. With a sum
    readout a network learns it. That is a theorem, and this is its check.""",
    setup="""Each network is trained to say whether it sees a molecule or k copies of it, and asked about
    molecules that were held out; both forms of a molecule are on the same side of a fold. k outgrows the
    largest molecule, at most 12. GIN of two rounds with batch norm, batches of 32, a learning rate of .01
    that halves every 50 epochs, the last epoch. A single threshold on the number of nodes stands beside.""",
    source="[Xu et al. 2019](https://arxiv.org/abs/1810.00826), corollary 8: a mean sees proportions.",
    caveats=(
        """The task is one of size alone, which the threshold shows: it tells what a readout can see, not that
        counting is useful.""",
        """Every network sees the smallest and the largest molecule of each class in training, so that none
        has to extrapolate.""",
    ),
    alt="""Held-out accuracy of sum, mean and max readouts and of a threshold on size: a dot a fold, and a bar
    for the mean.""",
    caption="Held-out accuracy: a dot a fold, a bar for their mean; dotted is guessing.",
    prepare=choose,
    measure=measure,
    parallel=True,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=sentences,
    options={
        "k": number(None, 2, "How many copies.", show_default="enough to outgrow every molecule, at most 12"),
        "folds": FOLDS,
        "epochs": number(100, 1, "Epochs of training, in batches of 32."),
    },
)
