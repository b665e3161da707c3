"""Training as the field does it: batch norm, batches of 32, Adam with a rate that halves, and several seeds.

The learning rate is chosen for each fold and readout by the loss on the hold-out. With `SETTLES` graphs or
more to learn from, the epoch is, too. Fewer tell nothing of epochs: a fixed schedule then trains once more
with that rate on all of them, and its last epoch counts. All rates and seeds of a fold are one stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor, nn

from datasets.splits import Split
from experiments.learning.batches import Batch, Resident
from experiments.learning.goals import Goal, goal_of, named
from experiments.learning.networks import READOUTS, Network

ROUNDING = 1e-4  # of predicted numbers in float32
SETTLES = 450  # 90 % of 500 graphs
LATE = 0.8  # of the epochs: what is settled by then has converged
State = dict[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """How networks are made and trained; the learning rates are the candidates of the selection."""

    rounds: int = 3
    width: int = 32
    batch_size: int = 32
    learning_rates: tuple[float, ...] = (0.01, 0.003, 0.001)
    epochs: int = 200
    halve: int = 50
    patience: int = 50
    seeds: int = 1
    redraw: int = 10

    @property
    def late(self) -> int:
        """The epoch after which little should change."""
        return max(1, int(LATE * self.epochs))


def metrics_of(goal: type[Goal]) -> tuple[str, ...]:
    """Return the names of the numbers of `train_and_judge`."""
    of_parts = [f"{part} {name}" for part in ("train", "validation") for name in goal.metrics]
    at_work = ("train ceiling", "learning rate", "best epoch", "epochs trained", "late change", "over seeds")
    return (*goal.metrics, *of_parts, *at_work)


def train_and_judge(
    resident: Resident, split: Split, readout: str, settings: Settings, seed: int
) -> dict[str, float]:
    """Train on `split.train`, choose on `split.validation`, judge on `split.test` once; means over seeds.

    All readouts start from the same weights of the rounds and see the same batches. "late change" is how far
    the training score moved in the last fifth of the epochs. Raises `FloatingPointError` where a loss is not
    finite, and `RuntimeError` where a network does better in training than its readout allows, which would be
    a bug.
    """
    resident = resident.standardised(split.train)
    rates, seeds = settings.learning_rates, settings.seeds
    chosen = stack(resident, readout, settings, [rate for rate in rates for _ in range(seeds)], seed)
    chosen.train(split.train, split.validation)
    loss = chosen.loss.view(len(rates), seeds)
    rate = int(loss.mean(dim=1).argmin())
    places = [rate * seeds + place for place in range(seeds)]
    held_out = chosen.judge(split.validation)
    known, trained = split.train, chosen.epoch
    best = chosen
    if len(split.train) + len(split.validation) < SETTLES:
        known = tuple(sorted((*split.train, *split.validation)))
        best = stack(resident, readout, settings, [rates[rate]] * seeds, seed)
        best.train(known)
        places, trained = list(range(seeds)), trained + best.epoch
    test, training = best.judge(split.test), best.judge(known)
    score = best.goal.score
    ceiling = resident.ceiling(READOUTS[readout].view, known)
    highest = max(training[place][score] for place in places)
    if highest > ceiling + ROUNDING:
        raise RuntimeError(
            f"{best.name}: train {score} {highest} is above {ceiling}, the ceiling of what the readout can "
            "tell apart"
        )
    of_seeds = torch.tensor([test[place][score] for place in places], dtype=torch.float64)
    return {
        **averaged(test, places),
        **named("train", averaged(training, places)),
        **named("validation", averaged(held_out, [rate * seeds + place for place in range(seeds)])),
        "train ceiling": ceiling,
        "learning rate": rates[rate],
        "best epoch": float(best.best_epoch[places].double().mean()),
        "epochs trained": trained,
        "late change": float(best.late_change[places].mean()),
        "over seeds": float(of_seeds.std(correction=0)),
    }


def averaged(values: Sequence[Mapping[str, float]], places: Sequence[int]) -> dict[str, float]:
    """The mean of every metric over some copies."""
    return {name: sum(values[place][name] for place in places) / len(places) for name in values[places[0]]}


def new_network(resident: Resident, readout: str, settings: Settings, copies: int, seed: int) -> Network:
    """Copies of a network for a set, on its device; every `seeds` of them have other weights."""
    torch.manual_seed(seed)
    features, outputs = resident.x.shape[1], resident.classes or 1
    network = Network(
        resident.network, readout, features, outputs, settings.width, settings.rounds, copies
    ).to(resident.x.device)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(weight[: settings.seeds].repeat(copies // settings.seeds, *shape_of(weight)))
    return network


def stack(resident: Resident, readout: str, settings: Settings, rates: Sequence[float], seed: int) -> Stack:
    """A stack of new networks."""
    return Stack(
        resident, new_network(resident, readout, settings, len(rates), seed), settings, rates, seed, readout
    )


class Stack:
    """Copies of a network that are trained at once, each with its own learning rate and best state.

    The goal is that of the set, scaled on the graphs that are trained on, unless one is given.
    """

    def __init__(
        self,
        resident: Resident,
        network: Network,
        settings: Settings,
        rates: Sequence[float],
        seed: int,
        readout: str,
        goal: Goal | None = None,
    ) -> None:
        """Start from the weights of the network."""
        self.resident, self.network, self.settings, self.seed = resident, network, settings, seed
        self.name = f"{resident.data}, {resident.network}, {readout}"
        self.values = Values(network, rates)
        self.fixed_goal = goal
        self.goal = goal or goal_of(resident.classes, resident.y, range(len(resident)))
        self.kept: State = {}
        self.loss = torch.full((len(rates),), torch.inf)
        self.best_epoch = torch.zeros(len(rates), dtype=torch.int64)
        self.late_change = torch.zeros(len(rates), dtype=torch.float64)
        self.epoch = 0

    def train(self, positions: Sequence[int], hold_out: Sequence[int] | None = None) -> None:
        """Train until the hold-out has not improved for `patience` epochs, or to the end without one."""
        settings, copies = self.settings, self.network.copies
        self.goal = self.fixed_goal or goal_of(self.resident.classes, self.resident.y, positions)
        watched = None if hold_out is None else self.resident.batch(hold_out, copies)
        late = None
        drawn = epochs(self.resident, positions, settings, self.seed, copies)
        for epoch, batches in enumerate(drawn, start=1):
            self.epoch = epoch
            self.network.train()
            for batch in batches:
                self.step(batch)
            if epoch % settings.halve == 0:
                self.values.halve()
            if epoch == settings.late:
                late = self.scores(positions)
            last = epoch == settings.epochs
            if watched is not None:
                self.keep_best(watched)
                last = last or epoch - int(self.best_epoch.max()) >= settings.patience
            if last:
                break
        if late is not None:
            self.late_change = self.scores(positions) - late
        if watched is None:
            self.kept, self.best_epoch[:] = self.state(), self.epoch
            if not all(value.isfinite().all() for value in self.kept.values()):
                raise FloatingPointError(f"{self.name}: weights are not finite after {self.epoch} epochs")

    def step(self, batch: Batch) -> None:
        """One step of every copy on the mean loss of a batch."""
        self.values.step(self.goal.losses(self.network(batch), batch.y))

    @torch.no_grad()
    def keep_best(self, watched: Batch) -> None:
        """Keep the state of every copy whose loss on the hold-out is its lowest so far."""
        losses = self.goal.losses(self.network.eval()(watched), watched.y).cpu()
        if not losses.isfinite().any():
            raise FloatingPointError(f"{self.name}: loss {float(losses[0])} in epoch {self.epoch}")
        better = losses < self.loss
        state = self.state()
        self.kept = {
            name: torch.where(better.to(value.device).view(-1, *shape_of(value)), value, self.kept[name])
            if self.kept
            else value
            for name, value in state.items()
        }
        self.loss = torch.where(better, losses, self.loss)
        self.best_epoch[better] = self.epoch

    def state(self) -> State:
        """A copy of all weights and averages."""
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    def scores(self, positions: Sequence[int]) -> Tensor:
        """The score of every copy as it is now, float64 [K]."""
        return torch.tensor(
            [values[self.goal.score] for values in self._judge(positions)], dtype=torch.float64
        )

    def judge(self, positions: Sequence[int]) -> list[dict[str, float]]:
        """The value of every metric, for every copy with the state that was kept."""
        self.network.load_state_dict(self.kept)
        return self._judge(positions)

    @torch.no_grad()
    def _judge(self, positions: Sequence[int]) -> list[dict[str, float]]:
        batch = self.resident.batch(positions, self.network.copies)
        outputs = self.network.eval()(batch)
        return [self.goal.judge(self.goal.predict(one), batch.y) for one in outputs]


def shape_of(value: Tensor) -> list[int]:
    """Ones for all dimensions but the first."""
    return [1] * (value.dim() - 1)


def epochs(
    resident: Resident, positions: Sequence[int], settings: Settings, seed: int, copies: int = 1
) -> Iterator[list[Batch]]:
    """The batches of every epoch, without end: drawn again in every `redraw`-th, else in a new order.

    All batches of an epoch have one size, up to one graph.
    """
    generator = torch.Generator().manual_seed(seed)
    batches: list[Batch] = []
    pieces = -(-len(positions) // settings.batch_size)
    for epoch in count():
        if epoch % settings.redraw == 0:
            order = torch.tensor(positions)[torch.randperm(len(positions), generator=generator)]
            batches = [resident.batch(piece.tolist(), copies) for piece in order.tensor_split(pieces)]
        yield [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]


class Values:
    """Adam with a learning rate for each copy; all slopes lie in one tensor, to be zeroed at once."""

    def __init__(self, network: nn.Module, rates: Sequence[float]) -> None:
        """Take over the weights [K, ...] of a network."""
        weights = list(network.parameters())
        self.slopes = torch.zeros(sum(weight.numel() for weight in weights), device=weights[0].device)
        parts = self.slopes.split([weight.numel() for weight in weights])
        for weight, slope in zip(weights, parts, strict=True):
            weight.grad = slope.view_as(weight)
        groups = [
            {"params": [copy_of(weight, place) for weight in weights], "lr": rate}
            for place, rate in enumerate(rates)
        ]
        self.optimiser = torch.optim.Adam(groups, fused=True)

    def step(self, losses: Tensor) -> None:
        """One step of gradient descent on the loss of each copy."""
        self.slopes.zero_()
        losses.sum().backward()
        self.optimiser.step()

    def halve(self) -> None:
        """Halve all learning rates."""
        for group in self.optimiser.param_groups:
            group["lr"] *= 0.5


def copy_of(weight: Tensor, place: int) -> nn.Parameter:
    """One copy of a weight [K, ...] and of its slope, in the same memory."""
    copy = nn.Parameter(weight.detach()[place])
    assert weight.grad is not None
    copy.grad = weight.grad[place]
    return copy
