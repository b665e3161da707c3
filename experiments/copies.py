"""Can a trained network tell a molecule from its k copies?

Claim: with a mean or max readout it cannot, however long it trains: both get the same logits, bit for bit, so
one of each pair is right and the other wrong, 50.0 %. With a sum readout it can. The task is one of size
alone, and the table says how far a single threshold on the number of nodes gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean

import torch
from rich.table import Table
from torch import Tensor
from torch_geometric.data import Batch, Data

from datasets import GraphSet, covers
from experiments import figures
from experiments.console import UserError, table, tracked
from experiments.models import GIN
from experiments.rows import Row, RowLog

READOUTS = ("sum", "mean", "max")
BASELINE = "size only"
METRICS = ("train accuracy", "accuracy", "pairs ranked")
MOST_COPIES = 12
SAMPLE = 200
LEARNING_RATE = 0.03
LAYERS, WIDTH = 2, 16


@dataclass(frozen=True)
class Task:
    """Molecules, the number of copies to tell them from, and what to keep in proportion in each fold."""

    data: str
    graphs: tuple[Data, ...]
    available: int
    k: int
    strata: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What is asked, and on how many of the molecules."""
        sample = f" (a seeded sample of {self.available})" if len(self.graphs) < self.available else ""
        return (
            f"{self.data}: {len(self.graphs)} graphs{sample}, each against {self.k} copies of it; "
            "the smallest and the largest of each class or family are always trained on."
        )


def choose(graphs: GraphSet, k: int | None, seed: int) -> Task:
    """A task on at most `SAMPLE` graphs; k defaults to `enough_copies`."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(graphs), generator=generator)[:SAMPLE].sort().values.tolist()
    picked = [graphs[position] for position in order if graphs[position].num_nodes > 0]
    return Task(
        data=graphs.name,
        graphs=tuple(Data(x=graph.x, edge_index=graph.edge_index) for graph in picked),
        available=len(graphs),
        k=k or enough_copies([graph.num_nodes for graph in picked]),
        strata=tuple(graph.family if "family" in graph else str(int(graph.y)) for graph in picked),
    )


def enough_copies(sizes: Sequence[int]) -> int:
    """The least k that makes every k copies larger than every molecule, at most `MOST_COPIES`.

    With fewer, copies of a small ring are to a sum what a large ring is: two of cyclopropane and cyclohexane.
    """
    return min(max(sizes) // min(sizes) + 1, MOST_COPIES)


def measure(tasks: Sequence[Task], log: RowLog, device: str, seed: int, folds: int, epochs: int) -> list[Row]:
    """Train and test each readout on each fold, with both forms of a molecule on the same side."""
    rows = []
    for task in tasks:
        splits = split(task, folds, seed)
        runs = [(fold, readout) for fold in range(folds) for readout in (*READOUTS, BASELINE)]
        for fold, readout in tracked(runs, f"training on {task.data}"):
            work = {"data": task.data, "readout": readout, "seed": seed, "fold": fold}
            work |= {"k": task.k, "graphs": len(task.graphs), "folds": folds}
            if readout == BASELINE:
                compute: Callable[[], Mapping[str, float]] = partial(judge_sizes, task, *splits[fold])
            else:
                work |= {"epochs": epochs, "learning rate": LEARNING_RATE, "layers": LAYERS, "width": WIDTH}
                compute = partial(train_and_judge, task, *splits[fold], readout, device, seed + fold, epochs)
            rows += log.measure(work, METRICS, compute)
    return rows


def split(task: Task, folds: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """Positions for training and for testing, stratified.

    The smallest and the largest molecule of each stratum are always trained on, and every other one is tested
    once: the question is what a readout sees, not how far a network extrapolates.
    """
    sizes = [graph.num_nodes for graph in task.graphs]
    order = torch.randperm(len(sizes), generator=torch.Generator().manual_seed(seed)).tolist()
    extremes, others = set(), []
    for stratum in sorted(set(task.strata)):
        members = [position for position in order if task.strata[position] == stratum]
        ends = {min(members, key=sizes.__getitem__), max(members, key=sizes.__getitem__)}
        extremes |= ends
        others += [position for position in members if position not in ends]
    if len(others) < folds:
        raise UserError(f"--folds {folds}: {task.data} has only {len(others)} graphs to test on.")
    tests = [sorted(others[fold::folds]) for fold in range(folds)]
    return [(sorted(extremes | set(others) - set(test)), test) for test in tests]


def train_and_judge(
    task: Task, train: list[int], test: list[int], readout: str, device: str, seed: int, epochs: int
) -> dict[str, float]:
    """Train on one side of the split, judge on both."""
    torch.manual_seed(seed)
    network = GIN(task.graphs[0].x.size(1), 2, readout, WIDTH, LAYERS).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    batch = both_forms(task, train).to(device)
    target = torch.arange(2, device=device).repeat_interleave(len(train))
    for _ in range(epochs):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(batch), target).backward()
        optimiser.step()
    network.eval()
    with torch.no_grad():
        logits = [network(both_forms(task, side).to(device)) for side in (train, test)]
    scores = [(logit[:, 1] - logit[:, 0]).cpu() for logit in logits]
    return judge(*scores)


def both_forms(task: Task, positions: Sequence[int]) -> Batch:
    """The molecules, then the copies of each."""
    molecules = [task.graphs[position] for position in positions]
    return Batch.from_data_list([*molecules, *(covers.copies(molecule, task.k) for molecule in molecules)])


def judge_sizes(task: Task, train: list[int], test: list[int]) -> dict[str, float]:
    """The baseline: the one threshold on the number of nodes that is best in training."""

    def sizes(positions: list[int]) -> Tensor:
        nodes = torch.tensor([float(task.graphs[position].num_nodes) for position in positions])
        return torch.cat([nodes, nodes * task.k])

    seen = sizes(train)
    thresholds = seen.unique() + 0.5
    best = max(thresholds.tolist(), key=lambda threshold: accuracy(seen - threshold))
    return judge(seen - best, sizes(test) - best)


def judge(train_scores: Tensor, test_scores: Tensor) -> dict[str, float]:
    """Accuracy in training and on held-out molecules, and the share of pairs whose copies score higher."""
    single, copied = test_scores.chunk(2)
    ranked = (copied > single).double() + 0.5 * (copied == single).double()
    return {
        "train accuracy": accuracy(train_scores),
        "accuracy": accuracy(test_scores),
        "pairs ranked": ranked.mean().item(),
    }


def accuracy(scores: Tensor) -> float:
    """The share of right answers, where the first half are molecules and the second half copies."""
    single, copied = scores.chunk(2)
    right = int((single <= 0).sum()) + int((copied > 0).sum())
    return right / len(scores)


def tables(rows: Sequence[Row]) -> list[Table]:
    """Accuracies in percent, averaged over folds, with the worst and best fold."""
    columns = ("set", "readout", "train", "held out", "folds from - to", "copies score higher")
    return [table("A molecule or its copies? Accuracy [%]", columns, table_lines(rows), text_columns=2)]


def table_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and readout."""
    for data in dict.fromkeys(row["data"] for row in rows):
        for readout in (*READOUTS, BASELINE):
            held_out = per_fold(rows, data, readout, "accuracy")
            yield [
                data,
                readout,
                percent(mean(per_fold(rows, data, readout, "train accuracy"))),
                percent(mean(held_out)),
                f"{percent(min(held_out))} - {percent(max(held_out))}",
                percent(mean(per_fold(rows, data, readout, "pairs ranked"))),
            ]


def per_fold(rows: Sequence[Row], data: str, readout: str, metric: str) -> list[float]:
    """The values of one metric, one a fold."""
    wanted = {"data": data, "readout": readout, "metric": metric}
    return [row["value"] for row in rows if wanted.items() <= row.items()]


def percent(value: float) -> str:
    """A share in percent with one decimal."""
    return f"{100 * value:.1f}"


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """Held-out accuracy of each readout: a dot a fold and a bar for their mean."""
    names = list(dict.fromkeys(row["data"] for row in rows))
    drawing, panels = figures.panels(len(names), width=3.4, height=2.0)
    lines = (*READOUTS, BASELINE)
    for panel, data in zip(panels, names, strict=True):
        panel.axvline(50, color=figures.GREY, linewidth=1, linestyle=":", zorder=0)
        for height, readout in enumerate(reversed(lines)):
            values = [100 * value for value in per_fold(rows, data, readout, "accuracy")]
            colour = figures.COLOURS.get(readout, figures.GREY)
            panel.plot(
                values,
                [height] * len(values),
                "o",
                color=colour,
                alpha=0.35,
                markersize=8,
                mew=0,
                clip_on=False,
            )
            panel.plot([mean(values)], [height], "|", color=colour, markersize=18, mew=3, clip_on=False)
            panel.annotate(f"{mean(values):.1f} %", (104, height), va="center", annotation_clip=False)
        panel.set(title=data, xlim=(30, 101), ylim=(-0.6, len(lines) - 0.4), xlabel="held-out accuracy [%]")
        panel.set_yticks(range(len(lines)), list(reversed(lines)))
    return figures.save(drawing, out, "copies")
