"""What experiments share that train small networks node by node: tasks, folds, training, and the gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import Any

import torch
from sklearn.model_selection import KFold
from torch import Tensor
from torch_geometric.data import Batch as PyGBatch
from torch_geometric.data import Data

from datasets import GraphSet
from experiments.accuracy import gate
from experiments.console import UserError
from experiments.experiment import Finding
from experiments.jobs import Job
from experiments.learning.batches import Batch, node_by_node
from experiments.learning.goals import Classes
from experiments.learning.loop import fit, shuffled
from experiments.learning.networks import Network
from experiments.learning.training import LATE
from experiments.options import Option, number
from experiments.records import Row, present, values
from experiments.samples import drawn, labelled, sampled, untrained

SAMPLE, WIDTH, ROUNDS = 300, 16, 2
BATCH_SIZE, LEARNING_RATE, HALVINGS = 32, 0.01, 5
SETTINGS = {"batch size": BATCH_SIZE, "learning rate": LEARNING_RATE, "halvings": HALVINGS}
TRAINED = ("train accuracy", "late change")
EPOCHS: Option = number(100, 1, "Epochs of training.")

Score = Callable[[Tensor, Tensor], Tensor]  # outputs [K, B, O] and y to a number for each copy, [K]
Side = list[int]
Rows = list[tuple[Row, tuple[str, ...]]]
cross_entropy: Score = Classes().losses


@dataclass(frozen=True)
class Task:
    """Graphs of a set, perhaps a sample, and how many classes their `y` names."""

    data: str
    graphs: tuple[Data, ...]
    available: int
    classes: int

    @property
    def largest(self) -> int:
        """The number of nodes of the largest graph."""
        return max(graph.num_nodes for graph in self.graphs)

    @property
    def features(self) -> int:
        """How many features a node has."""
        return int(self.graphs[0].x.size(1))

    @property
    def sentence(self) -> str:
        """On how many graphs, and what was left out."""
        sample = sampled(len(self.graphs), self.available)
        alone = untrained(self.classes)
        return f"{self.data}: {len(self.graphs)} graphs with at most {self.largest} nodes{sample}{alone}."

    def at(self, positions: Sequence[int]) -> list[Data]:
        """The graphs at these positions."""
        return [self.graphs[position] for position in positions]

    def work(self, readout: str | None, seed: int, fold: int | None = None, **more: Any) -> Row:
        """What every row of this task says."""
        work = {"data": self.data, "readout": readout, "seed": seed, "fold": fold}
        return work | {"graphs": len(self.graphs)} | more


def sample(graphs: GraphSet, seed: int, least: int = 1) -> list[Data]:
    """Draw at most `SAMPLE` graphs, and keep those of `least` nodes or more."""
    kept = [graph for graph in drawn(graphs, SAMPLE, seed) if graph.num_nodes >= least]
    if not kept:
        nodes = {1: "nodes", 2: "two nodes or more"}[least]
        expected = f"expected graphs {'with' if least == 1 else 'of'} {nodes}, got none"
        raise UserError(f"{graphs.name}: {expected}.")
    return kept


def task_of(graphs: GraphSet, seed: int) -> Task:
    """Make a task of a sample: to name the family of a graph, or its class where it has none."""
    kept, classes = labelled(sample(graphs, seed))
    return Task(graphs.name, kept, len(graphs), classes)


def sides(task: Task, folds: int, seed: int) -> list[tuple[int, Side, Side]]:
    """Return the number of each fold, and the positions to train and to test on."""
    if folds > len(task.graphs):
        raise UserError(f"--folds {folds}: {task.data} has only {len(task.graphs)} graphs.")
    parts = KFold(folds, shuffle=True, random_state=seed).split(task.graphs)
    return [(fold, train.tolist(), test.tolist()) for fold, (train, test) in enumerate(parts)]


def job_of_majority(task: Task, seed: int) -> Job:
    """The share of the largest class, which networks have to beat."""
    return Job([(task.work(None, seed), ("majority",))], partial(majority, task))


def majority(task: Task) -> list[dict[str, float]]:
    """The share of the largest class."""
    counts = torch.cat([graph.y for graph in task.graphs]).bincount()
    return [{"majority": float(counts.max()) / len(task.graphs)}]


def together(network: Network, graphs: Sequence[Data]) -> Batch:
    """Return graphs as one batch of this network, on its device."""
    return form_of(network)(PyGBatch.from_data_list(list(graphs)).to(next(network.parameters()).device))


def form_of(network: Network) -> Callable[[PyGBatch], Batch]:
    """What makes of PyG's batches those of a network."""
    return partial(node_by_node, rounds=len(network.rounds), copies=network.copies)


def right(outputs: Tensor, y: Tensor) -> Tensor:
    """The share of graphs whose greatest logit is that of their class."""
    return (outputs.argmax(dim=2) == y).double().mean(dim=1)


@torch.no_grad()
def scores(network: Network, batch: Batch, score: Score = right) -> list[float]:
    """The score of every copy, in evaluation."""
    found: list[float] = score(network.eval()(batch), batch.y).tolist()
    return found


def train(
    network: Network,
    graphs: Sequence[Data],
    seed: int,
    epochs: int,
    losses: Score = cross_entropy,
    score: Score = right,
    look: Callable[[int], object] | None = None,
) -> list[dict[str, float]]:
    """Train all copies of a network; returns of each `TRAINED`: the score, and by how much it changed late.

    That is in the last fifth of the epochs. The learning rate halves `HALVINGS` times. `look` is called with
    the number of epochs, 0 before the first.
    """
    known = together(network, graphs)
    device = known.x.device
    batches = shuffled(graphs, BATCH_SIZE, seed, device, form=form_of(network))
    loss = lambda outputs, batch: losses(outputs, batch.y).sum()  # noqa: E731
    before = scores(network, known, score)
    late = int(LATE * epochs)
    if look:
        look(0)
    for epoch in fit(network, batches, loss, LEARNING_RATE, epochs, -(-epochs // (HALVINGS + 1))):
        if epoch == late:
            before = scores(network, known, score)
        if look:
            look(epoch)
    now = scores(network, known, score)
    return [
        dict(zip(TRAINED, (after, after - early), strict=True))
        for after, early in zip(now, before, strict=True)
    ]


def objections_to(
    rows: Sequence[Row],
    data: str,
    of: str = "readout",
    metric: str = "accuracy",
    baselines: Mapping[str, Sequence[float]] | None = None,
    **wanted: object,
) -> list[str]:
    """What speaks against comparing the networks of a set, which differ in the field `of`.

    A training had converged where the score changed little late, or was nearly 1.
    """
    converged, networks = {}, {}
    for name in present(rows, of, data=data, metric=TRAINED[1], **wanted):
        at = partial(values, rows, data=data, **{of: name}, **wanted)
        known, late = (at(metric=metric) for metric in TRAINED)
        still = [abs(b) <= gate.STILL or a >= 1 - gate.NEAR for a, b in zip(known, late, strict=True)]
        converged[name], networks[name] = mean(still), at(metric=metric)
    largest = {"largest class": values(rows, data=data, metric="majority")}
    return gate.objections_to(converged, networks, baselines or largest)


def compared(
    claim: str, against: Sequence[str], found: tuple[bool | None, str], main: bool = True
) -> Finding:
    """A finding on trained networks; undecided, with the reasons, where these are not to be compared."""
    if against:
        return Finding(claim, None, f"not compared, for {' and '.join(against)}", main=main)
    return Finding(claim, *found, main=main)
