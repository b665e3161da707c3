"""What experiments share that train small networks node by node: tasks, folds, training, and the gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import Any, NamedTuple

import torch
from sklearn.model_selection import KFold
from torch import Tensor
from torch_geometric.data import Batch as PyGBatch
from torch_geometric.data import Data

from datasets import GraphSet
from experiments.accuracy import gate
from experiments.console import UserError
from experiments.experiment import Finding
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
FEW = 2.5  # graphs: two, and rounding
TRAINED = ("train accuracy", "accuracy", "largest class", "late change")
EPOCHS: Option = number(150, 1, "Epochs of training.")

Rows = list[tuple[Row, Sequence[str]]]
Values = list[dict[str, float]]
Score = Callable[[Tensor, Tensor], Tensor]  # outputs [K, B, O] and y to a number for each copy, [K]


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
        said = f"{self.data}: {len(self.graphs)} graphs with at most {self.largest} nodes"
        return f"{said}{sampled(len(self.graphs), self.available)}{untrained(self.classes)}."

    def work(self, readout: str, seed: int, fold: int | None = None, **more: Any) -> Row:
        """What every row of this task says."""
        work = {"data": self.data, "readout": readout, "seed": seed, "fold": fold}
        return work | {"graphs": len(self.graphs), "rounds": ROUNDS, "width": WIDTH} | more


@dataclass(frozen=True)
class Fold:
    """A fold of a task, of `folds` in all: which graphs to train on and to hold out, and how to train."""

    task: Task
    number: int
    folds: int
    known: Sequence[int]
    held_out: Sequence[int]
    seed: int
    epochs: int
    device: str

    def work(self, readout: str, **more: Any) -> Row:
        """What every row of a network that is trained on this fold says."""
        settings: Row = {"folds": self.folds, "epochs": self.epochs, "batch size": BATCH_SIZE}
        settings |= {"learning rate": LEARNING_RATE, "halvings": HALVINGS}
        return self.task.work(readout, self.seed, self.number, **settings | more)

    def begin(self) -> None:
        """Set the seed of this fold."""
        torch.manual_seed(self.seed + self.number)

    def side(self, positions: Sequence[int]) -> list[Data]:
        """The graphs at these positions."""
        return [self.task.graphs[position] for position in positions]


def sample(graphs: GraphSet, seed: int, least: int = 1) -> list[Data]:
    """Draw at most `SAMPLE` graphs, and keep those of `least` nodes or more."""
    kept = [graph for graph in drawn(graphs, SAMPLE, seed) if graph.num_nodes >= least]
    if not kept:
        nodes = {1: "with nodes", 2: "of two nodes or more"}[least]
        raise UserError(f"{graphs.name}: expected graphs {nodes}, got none.")
    return kept


def task_of(graphs: GraphSet, seed: int) -> Task:
    """Make a task of a sample: to name the family of a graph, or its class where it has none."""
    kept, classes = labelled(sample(graphs, seed))
    return Task(graphs.name, kept, len(graphs), classes)


def folds_of(task: Task, folds: int, seed: int, epochs: int, device: str) -> list[Fold]:
    """Cut a task into folds; none where there is nothing to train on."""
    if task.classes < 2:
        return []
    if folds > len(task.graphs):
        raise UserError(f"--folds {folds}: {task.data} has only {len(task.graphs)} graphs.")
    return [
        Fold(task, number, folds, known.tolist(), held_out.tolist(), seed, epochs, device)
        for number, (known, held_out) in enumerate(
            KFold(folds, shuffle=True, random_state=seed).split(task.graphs)
        )
    ]


def form_of(network: Network) -> Callable[[PyGBatch], Batch]:
    """What makes of PyG's batches those of a network."""
    return partial(node_by_node, rounds=len(network.rounds), copies=network.copies)


def together(network: Network, graphs: Sequence[Data]) -> Batch:
    """Return graphs as one batch of this network, on its device."""
    return form_of(network)(PyGBatch.from_data_list(list(graphs)).to(next(network.parameters()).device))


def right(outputs: Tensor, y: Tensor) -> Tensor:
    """The share of graphs whose greatest logit is that of their class."""
    return (outputs.argmax(dim=2) == y).double().mean(dim=1)


class Aim(NamedTuple):
    """The loss of each copy, the share of right answers, and the outputs [O] of who knows `y` alone."""

    losses: Score
    score: Score
    blind: Callable[[Tensor], Tensor]


CLASSES = Aim(Classes().losses, right, Tensor.bincount)


@torch.no_grad()
def scores(network: Network, batch: Batch, score: Score = right) -> Tensor:
    """The score of every copy, in evaluation, [K]."""
    return score(network.eval()(batch), batch.y)


def train(
    network: Network, fold: Fold, aim: Aim = CLASSES, look: Callable[[int], object] | None = None
) -> Values:
    """Train all copies of a network; returns the metrics `TRAINED` of each.

    The learning rate halves `HALVINGS` times. "late change" is how far the score in training moved in the
    last fifth of the epochs. `look` is called with the number of epochs, 0 before the first.
    """
    known, held_out = (together(network, fold.side(side)) for side in (fold.known, fold.held_out))
    batches = shuffled(
        fold.side(fold.known), BATCH_SIZE, fold.seed + fold.number, fold.device, form=form_of(network)
    )
    loss = lambda outputs, batch: aim.losses(outputs, batch.y).sum()  # noqa: E731
    late, before = int(LATE * fold.epochs), scores(network, known, aim.score)
    if look:
        look(0)
    for epoch in fit(network, batches, loss, LEARNING_RATE, fold.epochs, -(-fold.epochs // (HALVINGS + 1))):
        if epoch == late:
            before = scores(network, known, aim.score)
        if look:
            look(epoch)
    now, held = (scores(network, batch, aim.score) for batch in (known, held_out))
    guess = aim.score(aim.blind(known.y).expand(1, len(held_out.y), -1), held_out.y)
    found = torch.stack([now, held, guess.expand_as(now), now - before], dim=1)
    return [dict(zip(TRAINED, of_copy, strict=True)) for of_copy in found.tolist()]


def objections(
    rows: Sequence[Row],
    data: str,
    of: str = "readout",
    baselines: Mapping[str, Sequence[float]] | None = None,
    **wanted: object,
) -> list[str]:
    """What speaks against comparing the networks of a set, which differ in the field `of`.

    A training had converged where the score changed little late, if by no more than two graphs, or was nearly
    1. The best network has to be ahead of the `baselines`, the largest class unless others are given.
    """
    at = partial(values, rows, data=data, **wanted)
    converged, networks = {}, {}
    for name in present(rows, of, data=data, metric="late change", **wanted):
        known, late = (at(metric=metric, **{of: name}) for metric in ("train accuracy", "late change"))
        trained = min(present(rows, "graphs", data=data)) * (1 - 1 / min(present(rows, "folds", data=data)))
        little = max(gate.STILL, FEW / trained)
        still = [abs(b) <= little or a >= 1 - gate.NEAR for a, b in zip(known, late, strict=True)]
        converged[name], networks[name] = mean(still), at(metric="accuracy", **{of: name})
    if not networks:
        return ["no network was trained"]
    largest = {"largest class": at(metric="largest class")}
    return gate.objections_to(converged, networks, baselines or largest)


def compared(
    claim: str, against: Sequence[str], found: tuple[bool | None, str], main: bool = True
) -> Finding:
    """A finding on trained networks; undecided, with the reasons, where these are not to be compared."""
    if against:
        return Finding(claim, None, f"not compared, for {' and '.join(against)}", main=main)
    return Finding(claim, *found, main=main)
