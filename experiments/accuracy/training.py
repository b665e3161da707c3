"""Training on one fold: every candidate, every epoch, and the one that does best on the hold-out."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from operator import attrgetter

import torch
from torch import nn

from datasets.splits import Split
from experiments.accuracy.goals import Goal, goal_of, named
from experiments.accuracy.networks import READOUTS, Network
from experiments.accuracy.resident import Batch, Resident


def metrics_of(goal: type[Goal]) -> tuple[str, ...]:
    """Return the names of the numbers of `train_and_judge`."""
    of_parts = [f"{part} {name}" for part in ("train", "validation") for name in goal.metrics]
    return (*goal.metrics, *of_parts, "train ceiling", "learning rate", "best epoch", "epochs trained")


ROUNDING = 1e-4  # of predicted numbers in float32


@dataclass(frozen=True)
class Settings:
    """How networks are made and trained; the learning rates are the candidates of the selection."""

    rounds: int = 3
    width: int = 32
    batch_size: int = 128
    learning_rates: tuple[float, ...] = (0.01, 0.003)
    epochs: int = 200
    patience: int = 50
    redraw: int = 10


@dataclass(frozen=True)
class Candidate:
    """The best epoch of a training run: the best score on the hold-out, then the lowest loss."""

    score: tuple[float, float]
    epoch: int
    learning_rate: float
    network: Network


def train_and_judge(
    resident: Resident, split: Split, readout: str, settings: Settings, seed: int
) -> dict[str, float]:
    """Train each candidate on `split.train`, choose on `split.validation`, judge on `split.test` once.

    All readouts start from the same weights of the rounds and see the same batches. Raises
    `FloatingPointError` where a loss is not finite, and `RuntimeError` where a network does better in
    training than its readout allows, which would be a bug.
    """
    resident = resident.standardised(split.train)
    goal = goal_of(resident.classes, resident.y, split.train)
    validation = resident.batch(split.validation)
    runs = [
        train(resident, split.train, validation, readout, settings, learning_rate, seed)
        for learning_rate in settings.learning_rates
    ]
    best = max((candidate for candidate, _ in runs), key=attrgetter("score"))
    test, training, held_out = (
        judge(best.network, batch, goal)[0]
        for batch in (resident.batch(split.test), resident.batch(split.train), validation)
    )
    ceiling = resident.ceiling(READOUTS[readout].view, split.train)
    if training[goal.score] > ceiling + ROUNDING:
        raise RuntimeError(
            f"{resident.data}, {resident.network}, {readout}: train {goal.score} {training[goal.score]} is "
            f"above {ceiling}, the ceiling of what the readout can tell apart"
        )
    return {
        **test,
        **named("train", training),
        **named("validation", held_out),
        "train ceiling": ceiling,
        "learning rate": best.learning_rate,
        "best epoch": best.epoch,
        "epochs trained": sum(trained for _, trained in runs),
    }


def train(
    resident: Resident,
    positions: Sequence[int],
    validation: Batch,
    readout: str,
    settings: Settings,
    learning_rate: float,
    seed: int,
) -> tuple[Candidate, int]:
    """Train until the hold-out has not improved for `patience` epochs; also returns how many were trained."""
    torch.manual_seed(seed)
    goal = goal_of(resident.classes, resident.y, positions)
    network = new_network(resident, readout, settings)
    training = Training(network, learning_rate, goal)
    best = None
    for epoch, batches in enumerate(epochs(resident, positions, settings, seed), start=1):
        network.train()
        for batch in batches:
            training.step(batch)
        found, loss = judge(network, validation, goal)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"{resident.data}, {resident.network}, {readout}: loss {loss} in epoch {epoch} "
                f"with learning rate {learning_rate}"
            )
        score = found[goal.score], -loss
        if best is None or score > best.score:
            best = Candidate(score, epoch, learning_rate, copy.deepcopy(network))
        if epoch == settings.epochs or epoch - best.epoch >= settings.patience:
            return best, epoch
    raise AssertionError("epochs have no end")


def new_network(resident: Resident, readout: str, settings: Settings) -> Network:
    """A network for a set, on its device."""
    features, outputs = resident.x.shape[1], resident.classes or 1
    network = Network(resident.network, readout, features, outputs, settings.width, settings.rounds)
    return network.to(resident.x.device)


def epochs(
    resident: Resident, positions: Sequence[int], settings: Settings, seed: int
) -> Iterator[list[Batch]]:
    """The batches of every epoch, without end: drawn anew in every `redraw`-th, else in a new order.

    All batches of an epoch have one size, up to one graph.
    """
    generator = torch.Generator().manual_seed(seed)
    batches: list[Batch] = []
    pieces = -(-len(positions) // settings.batch_size)
    for epoch in count():
        if epoch % settings.redraw == 0:
            order = torch.tensor(positions)[torch.randperm(len(positions), generator=generator)]
            batches = [resident.batch(piece.tolist()) for piece in order.tensor_split(pieces)]
        yield [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]


class Training:
    """Adam on one tensor that holds all parameters, and one for their gradients: a step is one operation."""

    def __init__(self, network: nn.Module, learning_rate: float, goal: Goal) -> None:
        """Move the parameters of a network into one tensor, of which they become views."""
        self.network, self.goal = network, goal
        parameters = list(network.parameters())
        sizes = [parameter.numel() for parameter in parameters]
        self.values = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
        self.slopes = self.values.grad = torch.zeros_like(self.values)
        views = zip(self.values.detach().split(sizes), self.slopes.split(sizes), strict=True)
        for parameter, (values, slopes) in zip(parameters, views, strict=True):
            parameter.data, parameter.grad = values.view_as(parameter), slopes.view_as(parameter)
        self.optimiser = torch.optim.Adam([self.values], lr=learning_rate, fused=True)

    def step(self, batch: Batch) -> None:
        """One step of gradient descent on the mean loss of a batch."""
        self.slopes.zero_()
        self.goal.loss(self.network(batch), batch.y).backward()
        self.optimiser.step()


@torch.no_grad()
def judge(network: Network, batch: Batch, goal: Goal) -> tuple[dict[str, float], float]:
    """The value of every metric, and the mean loss."""
    network.eval()
    outputs = network(batch)
    return goal.judge(goal.predict(outputs), batch.y), float(goal.loss(outputs, batch.y))
