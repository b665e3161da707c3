"""What there is to do on a set: which method on which fold, with which seed, and the rows that come of it.

One job is one method on one fold, and the same for whoever runs it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from typing import Any

import numpy as np

from datasets import GraphSet
from datasets.splits import Split, stratified_folds
from experiments.accuracy import baselines
from experiments.accuracy.baselines import BASELINES, OF_CLASSES, OF_NUMBERS
from experiments.console import UserError
from experiments.learning import training
from experiments.learning.batches import Resident
from experiments.learning.goals import Classes, Goal, Numbers
from experiments.learning.networks import READOUTS
from experiments.learning.training import Settings

FOLDS = 10
VALIDATION = 0.1
QUICK = ("sum", "mean", "max")

Key = tuple[str, str]
Residents = Mapping[Key, Resident]
Done = Generator[tuple["Job", dict[str, float]]]


@dataclass(frozen=True)
class Plan:
    """What is asked for: networks, readouts, folds (None: as many as the classes allow, up to ten)."""

    networks: tuple[str, ...]
    readouts: tuple[str, ...]
    folds: int | None = None
    repeats: int = 1
    seed: int = 0
    attributes: bool = False
    group: bool = False
    settings: Settings = field(default_factory=Settings)


def plan(
    network: Sequence[str],
    readout: Sequence[str],
    folds: int | None,
    repeats: int,
    seed: int,
    attributes: bool,
    group: bool,
    epochs: int,
    seeds: int,
    quick: bool,
) -> Plan:
    """A plan from the command line; with `quick`, one for a first look."""
    settings = Settings(epochs=epochs, seeds=seeds)
    if quick:
        settings = replace(settings, epochs=min(epochs, 50), learning_rates=settings.learning_rates[:1])
    chosen = tuple(dict.fromkeys(readout)) or (QUICK if quick else tuple(READOUTS))
    return Plan(tuple(dict.fromkeys(network)), chosen, folds, repeats, seed, attributes, group, settings)


@dataclass(frozen=True)
class Job:
    """One method on one fold; a baseline has no network, and borrows the resident of any."""

    data: str
    network: str
    method: str
    split: Split
    seed: int
    work: Mapping[str, Any]
    goal: type[Goal]

    @property
    def metrics(self) -> tuple[str, ...]:
        """What it measures."""
        return (baselines if self.method in BASELINES else training).metrics_of(self.goal)

    @property
    def key(self) -> Key:
        """Which resident it runs on."""
        return self.data, self.network

    def run(self, resident: Resident, settings: Settings) -> dict[str, float]:
        """Train and judge, or fit and judge."""
        if self.method in BASELINES:
            return baselines.fit_and_judge(resident, self.split, self.method, self.seed)
        return training.train_and_judge(resident, self.split, self.method, settings, self.seed)


def list_jobs(graphs: GraphSet, plan: Plan) -> Iterator[Job]:
    """All jobs of a set, a fold at a time; every method gets the same folds and seeds."""
    check(graphs, plan)
    folds = plan.folds or most_folds(graphs)
    share = max(VALIDATION, graphs.classes / (len(graphs) - -(-len(graphs) // folds)))
    groups = graphs.groups() if plan.group else None
    methods: list[tuple[str | None, str]] = [(None, name) for name in baselines_of(graphs)]
    methods += [(network, readout) for network in plan.networks for readout in plan.readouts]
    for seed in range(plan.seed, plan.seed + plan.repeats):
        try:
            splits = stratified_folds(graphs, folds, share, seed, groups).splits
        except ValueError as problem:
            raise UserError(f"accuracy: {problem}.") from problem
        for fold, split in enumerate(splits):
            for network, method in methods:
                work: dict[str, Any] = {"data": graphs.name, "readout": method, "seed": seed, "fold": fold}
                work |= {"network": network, "folds": folds, "attributes": reads_attributes(graphs, plan)}
                work |= {"group": True} if plan.group else {}
                if network is None:
                    work |= {"libraries": {"scikit-learn": metadata.version("scikit-learn")}}
                else:
                    work |= {"settings": asdict(plan.settings) | {"validation": share}}
                key = network or plan.networks[0]
                yield Job(graphs.name, key, method, split, seed + fold, work, goal_type(graphs))


def reads_attributes(graphs: GraphSet, plan: Plan) -> bool:
    """Whether networks read attributes of nodes: where asked to, and in own data always."""
    return plan.attributes or (graphs.own and graphs.features in ("numeric", "both"))


def goal_type(graphs: GraphSet) -> type[Goal]:
    """What is learned from a set."""
    return Classes if graphs.classes else Numbers


def baselines_of(graphs: GraphSet) -> list[str]:
    """The baselines of a set."""
    return list(OF_CLASSES if graphs.classes else OF_NUMBERS)


def most_folds(graphs: GraphSet) -> int:
    """Ten folds, or as many as the smallest class has graphs; for numbers, as there are pairs of graphs."""
    if not graphs.classes:
        return min(FOLDS, len(graphs) // 2)
    return min(FOLDS, int(np.bincount(graphs.targets.numpy(), minlength=graphs.classes).min()))


def check(graphs: GraphSet, plan: Plan) -> None:
    """Refuse what has no answer, in one sentence."""
    if len({float(graph.y) for graph in graphs}) < 2:
        are = "are of one class" if graphs.classes else "have one number"
        raise UserError(f"{graphs.name}: all {len(graphs)} graphs {are}; accuracy needs two.")
    if not any(graph.num_nodes for graph in graphs):
        raise UserError(f"{graphs.name}: expected graphs with nodes, got none.")
    if plan.attributes and not all("node_attr" in graph for graph in graphs):
        raise UserError(f"--attributes: {graphs.name} has no node attributes.")
