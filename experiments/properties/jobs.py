"""What there is to do on a set of molecules: networks and baselines on every fold and target.

The networks of a readout, one for each target, are one stack that is trained at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from importlib import metadata
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch_geometric.data import Data

from datasets import GraphSet
from datasets.splits import Split
from experiments.accuracy.baselines import OF_CLASSES, OF_NUMBERS
from experiments.console import UserError
from experiments.jobs import Job
from experiments.learning.batches import VIEWS, Resident, reside
from experiments.learning.goals import Goal, Integers
from experiments.learning.networks import Network, StackedNorm
from experiments.learning.training import Settings, Stack, new_network
from experiments.properties.targets import TARGETS, Molecules, Target, describe
from experiments.samples import cut, drawn, sampled

NETWORKS = ("sum", "mean", "max", "size-aware mean", "sum+mean+max")
CONSTANT, SIZE, COUNTS, LINEAR = "constant", "size only", "counts only", "linear in counts"
BASELINES = (CONSTANT, SIZE, COUNTS, LINEAR)
RANDOM, BY_SIZE = "random", "by size"
SPLITS = (RANDOM, BY_SIZE)
SMALL, LARGE = 0.5, 0.25
ROUNDS, BATCH, RATE, PHASES = 2, 128, 0.01, 6
COMMONEST = 0.95
ERRORS = ("error", "train error")


@dataclass(frozen=True)
class Task:
    """The molecules of a set, `y` their sizes, and the values [G, T] of the targets that vary."""

    graphs: GraphSet
    targets: tuple[Target, ...]
    values: NDArray[np.float64]
    sentence: str


@dataclass(frozen=True)
class Properties:
    """A set on its device, whose `y` are the values [G, T] of all targets, and which of these are classes."""

    resident: Resident
    classes: tuple[bool, ...]


def choose(graphs: GraphSet, seed: int, molecules: int) -> Task:
    """Compute the targets of a sample, and leave out those with one value nearly everywhere."""
    sample = replace(graphs, graphs=tuple(drawn(graphs, molecules, seed)))
    found = describe(sample)
    values = np.array(list(found.values.values())).reshape(-1, len(TARGETS))
    if len(values) < 10:
        raise UserError(f"{graphs.name}: expected ten molecules or more, got {len(values)} that RDKit reads.")
    commonest = [np.unique(column, return_counts=True)[1].max() / len(values) for column in values.T]
    kept = [place for place, share in enumerate(commonest) if share <= COMMONEST]
    left = [f"{TARGETS[at].name} ({share:.0%})" for at, share in enumerate(commonest) if at not in kept]
    described = replace(sample, graphs=tuple(sized(sample[position]) for position in found.values), classes=0)
    targets = tuple(TARGETS[place] for place in kept)
    return Task(described, targets, values[:, kept], said_of(graphs, sample, found, left))


def said_of(graphs: GraphSet, sample: GraphSet, found: Molecules, left: Sequence[str]) -> str:
    """Say what became of the molecules and the targets of a set."""
    problems = sorted(set(found.failures.values()))
    failed = f" ({'; '.join(problems[:2])}{'; ...' if len(problems) > 2 else ''})" if problems else ""
    return (
        f"{graphs.name}: {len(sample)} molecules{sampled(len(sample), len(graphs))}, of which RDKit cannot "
        f"sanitise {len(found.failures)}{failed}; targets left out because so many molecules have one value: "
        f"{', '.join(left) or 'none'}."
    )


def sized(graph: Data) -> Data:
    """Return a graph whose target is its number of nodes."""
    size = torch.tensor([float(graph.num_nodes)])
    return Data(x=graph.x, node_label=graph.node_label, edge_index=graph.edge_index, y=size)


def splits_of(task: Task, folds: int, seed: int) -> Iterator[tuple[str, int, Split]]:
    """Yield both splits of every fold; half of the molecules are small, and a quarter is large."""
    sizes = task.graphs.targets.numpy()
    order = np.lexsort((np.random.default_rng(seed).permutation(len(sizes)), sizes)).tolist()
    small, large = set(order[: int(SMALL * len(order))]), set(order[-int(LARGE * len(order)) :])
    for fold, split in enumerate(cut("properties", task.graphs, folds, seed)):
        yield RANDOM, fold, split
        known, asked = (
            tuple(filter(part.__contains__, of)) for part, of in ((small, split.train), (large, split.test))
        )
        if not (known and asked):
            said = f"{len(sizes)} molecules are too few for {folds} folds by size"
            raise UserError(f"{task.graphs.name}: {said}.")
        yield BY_SIZE, fold, Split(known, (), asked)


@dataclass(frozen=True, eq=False)
class Several(Goal):
    """One of several targets for each network: copy t of a stack learns target t, by its output t.

    Squared error in standard deviations; for classes 0 and 1 cross-entropy. Errors are mean absolute errors,
    so for classes shares of wrong answers.
    """

    classes: Tensor
    mean: Tensor
    deviation: Tensor
    score = "error"
    metrics = ("error",)

    @classmethod
    def of(cls, classes: Sequence[bool], y: Tensor) -> Several:
        """Take the scales of training targets [G, T]."""
        spread = y.std(dim=0, correction=0)
        are_classes = torch.tensor(classes, device=y.device)
        return cls(are_classes, y.mean(dim=0), spread.where(spread > 0, 1))

    @cached_property
    def constant(self) -> Tensor:
        """The mean, or the majority class [T]."""
        return torch.where(self.classes, (self.mean > 0.5).to(self.mean.dtype), self.mean)

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of each copy, each on its own target."""
        own = outputs.diagonal(dim1=0, dim2=2)
        entropy = binary_cross_entropy_with_logits(own, y, reduction="none")
        squared = (own - (y - self.mean) / self.deviation).square()
        return torch.where(self.classes, entropy, squared).mean(dim=0)

    def predict(self, outputs: Tensor) -> Tensor:
        """Return numbers in the unit of the targets, and classes."""
        return torch.where(self.classes, (outputs > 0).float(), outputs * self.deviation + self.mean)

    def judge(self, predicted: Tensor, y: Tensor) -> dict[str, float]:
        """Return the error, averaged over all outputs."""
        return {"error": float(self.errors(predicted, y).mean())}

    def errors(self, predicted: Tensor, y: Tensor) -> Tensor:
        """Return the error of each target, float64 [T]."""
        return (predicted - y).double().abs().mean(dim=0)

    def ceiling(self, seen: Integers, y: Tensor) -> float:
        """Return the share of the constant's error that the median of all that look the same removes."""
        order = np.argsort(seen, kind="stable")
        parts = np.split(y.double().numpy()[order], np.flatnonzero(np.diff(seen[order])) + 1)
        least = sum(np.abs(part - np.median(part, axis=0)).sum(axis=0) for part in parts)
        return float((1 - least / (self.constant - y).double().abs().sum(dim=0).numpy()).mean())


def list_jobs(
    task: Task, device: str, seed: int, readouts: Sequence[str], folds: int, steps: int
) -> Iterator[Job]:
    """All jobs of a set: the networks and baselines of every fold, and what each readout could reach."""
    y = torch.from_numpy(task.values).float()
    resident = replace(reside(task.graphs, "gin", ROUNDS), classes=len(task.targets), y=y)
    classes = tuple(target.classes for target in task.targets)
    data = Properties(resident.to(device), classes)
    name, count = task.graphs.name, len(task.graphs)
    of_targets = [
        {"data": name, "target": target.name, "kind": target.kind, "molecules": count}
        for target in task.targets
    ]
    version = {"libraries": {"scikit-learn": metadata.version("scikit-learn")}}
    for split_name, fold, split in splits_of(task, folds, seed):
        about = {"seed": seed, "fold": fold, "folds": folds, "split": split_name}
        targets = [{**about, **work} for work in of_targets]
        fitted = [(work | version | {"readout": of}, ERRORS[:1]) for work in targets for of in BASELINES]
        yield Job(fitted, partial(fit, data, split, seed + fold))
        settings = settings_of(split, steps)
        for readout in readouts:
            trained = [
                (work | {"readout": readout, "settings": asdict(settings)}, ERRORS) for work in targets
            ]
            yield Job(trained, partial(train, data, split, readout, settings, seed + fold))
    whole = {"seed": None, "fold": None, "rounds": ROUNDS}
    limits = [(whole | work | {"readout": view}, ("ceiling",)) for work in of_targets for view in VIEWS]
    yield Job(limits, partial(ceilings, data))


def settings_of(split: Split, steps: int) -> Settings:
    """Return settings under which all sets and splits take the same number of steps."""
    epochs = max(1, steps // -(-len(split.train) // BATCH))
    halve = max(1, epochs // PHASES)
    return Settings(ROUNDS, batch_size=BATCH, learning_rates=(RATE,), epochs=epochs, halve=halve)


class Scaled(StackedNorm):
    """Batch norm over the graphs of each copy: no readout is ahead because of its scale."""

    def forward(self, x: Tensor, *_: object) -> Tensor:
        """Scale x [K * B, F]."""
        graphs = len(x) // len(self.weight)
        return super().forward(x, x.new_full((graphs,), 1 / graphs), graphs)


def train(
    data: Properties, split: Split, readout: str, settings: Settings, seed: int
) -> list[dict[str, float]]:
    """Train a network for each target; the last epoch counts."""
    resident, copies = data.resident, len(data.classes)
    network = new_network(resident, readout, settings, copies, seed)
    scaled = Scaled(network.pooled, copies).to(resident.x.device)
    network.head = nn.Sequential(scaled, *network.head.children())
    goal = Several.of(data.classes, resident.y[list(split.train)])
    stack = Stack(resident, network, settings, [RATE] * copies, seed, readout, goal)
    stack.train(split.train)
    test, training = (errors_of(resident, goal, network.eval(), part) for part in (split.test, split.train))
    return [dict(zip(ERRORS, pair, strict=True)) for pair in zip(test, training, strict=True)]


@torch.no_grad()
def errors_of(resident: Resident, goal: Several, network: Network, positions: Sequence[int]) -> list[float]:
    """The error of each copy on its own target."""
    batch = resident.batch(positions, network.copies)
    predicted = goal.predict(network(batch))
    return [float(goal.errors(one, batch.y)[place]) for place, one in enumerate(predicted)]


def fit(data: Properties, split: Split, seed: int) -> list[dict[str, float]]:
    """Fit every baseline to every target, on the graphs that networks are trained on."""
    counts, y = data.resident.counts().cpu().numpy(), data.resident.y.cpu().numpy()
    seen, tested = list(split.train), list(split.test)
    found = []
    for place, classes in enumerate(data.classes):
        known = y[seen, place]
        for method in BASELINES:
            features = counts[:, -1:] if method == SIZE else counts
            model = model_of(method, classes, seed) if len(np.unique(known)) > 1 else constant(False)
            answers = model.fit(features[seen], known).predict(features[tested])
            found.append({"error": float(np.abs(answers - y[tested, place]).mean())})
    return found


def model_of(method: str, classes: bool, seed: int) -> Any:
    """A model that has not seen any data."""
    if method == CONSTANT:
        return constant(classes)
    if method == LINEAR:
        last = LogisticRegression(max_iter=1000) if classes else RidgeCV(np.logspace(-4, 3, 8))
        return make_pipeline(StandardScaler(), last)
    return (OF_CLASSES if classes else OF_NUMBERS)[method](seed)


def constant(classes: bool) -> Any:
    """The mean or the majority class."""
    return OF_CLASSES["majority class"](0) if classes else OF_NUMBERS["mean of training"](0)


def ceilings(data: Properties) -> list[dict[str, float]]:
    """The best skill on the whole set of any function behind each readout, for each target."""
    seen, found = data.resident.seen.cpu().numpy(), []
    for place, classes in enumerate(data.classes):
        y = data.resident.y[:, [place]].cpu()
        goal = Several.of((classes,), y)
        found += [{"ceiling": goal.ceiling(seen[view], y)} for view in range(len(VIEWS))]
    return found
