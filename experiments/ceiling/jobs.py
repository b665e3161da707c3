"""What is pooled, and what is trained on it: on all graphs up to the ceiling, and on folds.

Without messages, DeepSets read the multiset of node labels. Labels are finitely many, so a sum or a mean of
any states of them is a linear map of the counts or of the proportions, and the part before the readout can be
left to the first layer after it. The pooled vector of a graph is then a constant, computed once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets import GraphSet
from datasets.collisions import View, colours, keys
from datasets.splits import Split
from experiments.accuracy.jobs import cut, most_folds
from experiments.ceiling.learners import Pooled, forests, perceptrons, reach, right
from experiments.console import UserError
from experiments.jobs import Job, carry_out
from experiments.learning.batches import VIEWS, reside
from experiments.learning.training import Settings, stack
from experiments.records import Row, RowLog
from readouts import Segments, readout
from readouts.nn import SizeAwareMeanReadout

LOG, SIZE, TIMES, SHARE, ALONE = "mean + log n", "mean + n", "n * mean", "sum / n", "n alone"
READOUTS: dict[str, View | None] = {  # what each of them sees; None: the size
    "sum": "sum",
    "mean": "mean",
    LOG: "sum",
    SIZE: "sum",
    "max": "max",
    TIMES: "sum",
    SHARE: "mean",
    ALONE: None,
}
CONTROLS = {TIMES: "sum", SHARE: "mean"}  # another scale, the same information
OF_FORESTS = ("sum", "mean", SIZE, "max", ALONE)  # log n and n * mean are new to networks alone
OF_NETWORKS = {"sum": "sum", "mean": "mean", LOG: "size-aware mean", "max": "max"}
ROUNDS_WIDTH, ROUNDS_EPOCHS, ROUNDS_RATE = 64, 20, 0.01
TO_CEILING = "to the ceiling"
OF_TRAINING = ("right", "steps needed", "ceiling", "vectors", "views")
OF_FOLDS = ("right", "confusable right")


@dataclass(frozen=True)
class Task:
    """A set, what its node labels become under each readout, and what the readouts tell apart."""

    graphs: GraphSet

    @property
    def data(self) -> str:
        """The name of the set."""
        return self.graphs.name

    @cached_property
    def y(self) -> Tensor:
        """The class of every graph, [B]."""
        return torch.cat([graph.y for graph in self.graphs])

    @cached_property
    def seen(self) -> dict[str, NDArray[np.int64]]:
        """What each readout sees of every graph, numbered, each [B]."""
        colouring = colours(self.graphs, 0)[0]
        size = np.diff(colouring.ptr)
        return {name: size if view is None else keys(colouring, view) for name, view in READOUTS.items()}

    @cached_property
    def pooled(self) -> dict[str, Pooled]:
        """The vectors of each readout; as many as it can tell apart, for readouts are exact."""
        size = torch.tensor([graph.num_nodes for graph in self.graphs])
        graphs = Segments.from_batch(torch.arange(len(size)).repeat_interleave(size), len(size))
        vectors = pool(torch.cat([graph.x for graph in self.graphs]).double(), graphs)
        return {name: Pooled.of_graphs(of, self.y, self.graphs.classes) for name, of in vectors.items()}

    @cached_property
    def confusable(self) -> NDArray[np.bool_]:
        """Which graphs share their mean with one of another class that the sum tells apart, [B]."""
        others = defaultdict(set)
        seen = (self.seen[name].tolist() for name in ("mean", "sum"))
        members = list(zip(*seen, self.y.tolist(), strict=True))
        for mean, total, label in members:
            others[mean].add((total, label))
        apart = (any(a != total and b != label for a, b in others[mean]) for mean, total, label in members)
        return np.fromiter(apart, bool)


def prepare(graphs: GraphSet) -> Task:
    """Take a set of two classes or more."""
    if len({int(graph.y) for graph in graphs}) < 2:
        raise UserError(f"{graphs.name}: all {len(graphs)} graphs are of one class; ceiling needs two.")
    return Task(graphs)


def pool(x: Tensor, graphs: Segments) -> dict[str, Tensor]:
    """Read out nodes x [N, F] in all ways, each [B, F] or with the size beside it."""
    total, mean, most = (readout(x, graphs, name) for name in ("sum", "mean", "max"))
    n = graphs.count[:, None].double()
    return {
        "sum": total,
        "mean": mean,
        LOG: SizeAwareMeanReadout()(x, graphs),
        SIZE: torch.cat([mean, n], dim=1),
        "max": most,
        TIMES: n * mean,
        SHARE: total / n.clamp(min=1),
        ALONE: n,
    }


def measure(
    tasks: Sequence[Task],
    log: RowLog,
    seed: int,
    folds: int | None,
    repeats: int,
    epochs: int,
    steps: int,
    rounds: int,
) -> list[Row]:
    """What networks reach when they are trained on all graphs, and what they get right on held-out graphs."""
    jobs: list[Job] = []
    for task in tasks:
        jobs += training_jobs(task, seed, steps, rounds)
        jobs += held_out_jobs(task, seed, folds or most_folds(task.graphs), repeats, epochs)
    return carry_out(jobs, log, "training")


def training_jobs(task: Task, seed: int, steps: int, rounds: int) -> Iterator[Job]:
    """Training on all graphs, without messages and after rounds of them."""
    work: dict[str, Any] = {"data": task.data, "readout": None, "seed": None, "fold": None}
    largest, confusable = int(task.y.bincount().max()), int(task.confusable.sum())
    about = {"graphs": len(task.graphs), "majority": largest, "confusable": confusable}
    yield Job([(work, tuple(about))], partial(list, [about]))
    work = work | {"seed": seed, "learner": TO_CEILING, "steps": steps}
    for name in READOUTS:
        yield Job(
            [(work | {"readout": name, "rounds": 0}, OF_TRAINING)], partial(train, task, name, seed, steps)
        )
    for depth in range(1, rounds + 1):
        rows = [(work | {"readout": name, "rounds": depth}, OF_TRAINING) for name in OF_NETWORKS]
        yield Job(rows, partial(train_rounds, task, depth, seed, steps))


def train(task: Task, name: str, seed: int, steps: int) -> list[dict[str, float]]:
    """Train on the pooled node labels."""
    return [to_ceiling(f"{task.data}, {name}", task.pooled[name], task.seen[name], seed, steps)]


def train_rounds(task: Task, rounds: int, seed: int, steps: int) -> list[dict[str, float]]:
    """Train a GraphSAGE with each readout, then another head on its pooled vectors."""
    resident = reside(task.graphs, "sage", rounds)
    settings = Settings(rounds=rounds, width=ROUNDS_WIDTH, batch_size=64, epochs=ROUNDS_EPOCHS)
    everything, found = range(len(resident)), []
    batch = resident.batch(everything)
    for name, known_as in OF_NETWORKS.items():
        trained = stack(resident, known_as, settings, [ROUNDS_RATE], seed)
        trained.train(everything)
        network = trained.network.eval()
        with torch.no_grad():
            vectors = network.readout(network.nodes(batch), batch.graphs)
        pooled = Pooled.of_graphs(vectors.double(), task.y, task.graphs.classes)
        seen = resident.seen[VIEWS.index(READOUTS[name] or "sum")].numpy()
        found.append(to_ceiling(f"{task.data}, sage, {name}", pooled, seen, seed, steps))
    return found


def to_ceiling(what: str, pooled: Pooled, seen: NDArray[np.int64], seed: int, steps: int) -> dict[str, float]:
    """Train until all that the vectors allow is right; `ceiling` is what a readout that sees this allows.

    Raises `RuntimeError` where the vectors tell more graphs apart than the readout can, which would be a bug.
    """
    table = pooled.counts(range(len(pooled.y)))
    goal = int(table.max(dim=1).values.sum())
    views = Pooled.of_graphs(torch.from_numpy(seen)[:, None], pooled.y, pooled.classes)
    ceiling = int(views.counts(range(len(pooled.y))).max(dim=1).values.sum())
    if goal > ceiling or len(pooled.vectors) > len(views.vectors):
        raise RuntimeError(
            f"{what}: {len(pooled.vectors)} pooled vectors allow {goal} right answers, but the readout can "
            f"tell {len(views.vectors)} apart, which allow {ceiling}"
        )
    found = reach(pooled, goal, seed, steps)
    values = found["right"], found["steps"], ceiling, len(pooled.vectors), len(views.vectors)
    return dict(zip(OF_TRAINING, values, strict=True))


def held_out_jobs(task: Task, seed: int, folds: int, repeats: int, epochs: int) -> Iterator[Job]:
    """Both learners on the same folds; the rows of a readout without a name count the graphs of each fold."""
    graphs = task.graphs
    for draw in range(seed, seed + repeats):
        splits = cut("ceiling", graphs, folds, draw)
        work: dict[str, Any] = {"data": task.data, "seed": draw, "rounds": 0, "folds": folds}
        places = [work | {"fold": fold} for fold in range(folds)]
        counted = ("graphs", "confusable")
        sizes = [(len(split.test), int(task.confusable[list(split.test)].sum())) for split in splits]
        found = [dict(zip(counted, both, strict=True)) for both in sizes]
        yield Job([(place | {"readout": None}, counted) for place in places], partial(list, found))
        for learner, names in (("perceptron", READOUTS), ("forest", OF_FORESTS)):
            settings = {"epochs": epochs} if learner == "perceptron" else {}
            for name in names:
                of = {"readout": name, "learner": learner, **settings}
                compute = partial(held_out, task, name, learner, splits, draw, epochs)
                yield Job([(place | of, OF_FOLDS) for place in places], compute)


def held_out(
    task: Task, name: str, learner: str, splits: Sequence[Split], seed: int, epochs: int
) -> list[dict[str, float]]:
    """Count the right answers on the test part of each split, in its confusable part, and in training."""
    pooled, confusable = task.pooled[name], np.flatnonzero(task.confusable)
    of_networks = learner == "perceptron"
    answers = perceptrons(pooled, splits, seed, epochs) if of_networks else forests(pooled, splits, seed)
    found: list[dict[str, float]] = []
    for place, split in enumerate(splits):
        parts = split.test, np.intersect1d(split.test, confusable).tolist()
        counts = (int(right(answers[place][None], pooled.counts(part))[0]) for part in parts)
        found.append(dict(zip(OF_FOLDS, counts, strict=True)))
    return found
