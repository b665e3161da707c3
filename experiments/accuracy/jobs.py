"""What there is to do on a set: which method on which fold, with which seed, and the rows that come of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets import GraphSet
from datasets.splits import Split, strata, stratified_folds
from experiments.accuracy import baselines
from experiments.accuracy.baselines import BASELINES, OF_CLASSES, OF_NUMBERS
from experiments.console import UserError
from experiments.jobs import Job
from experiments.learning import training
from experiments.learning.batches import Resident
from experiments.learning.goals import Classes, Goal, Numbers
from experiments.learning.networks import READOUTS
from experiments.learning.training import Settings

FOLDS = 10
VALIDATION = 0.1


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


@dataclass(frozen=True)
class Fit:
    """One method on one fold; a baseline has no network, and borrows the resident of any."""

    data: str
    network: str
    method: str
    split: Split
    seed: int
    work: Mapping[str, Any]
    goal: type[Goal]

    def job(self, resident: Resident, settings: Settings, device: str) -> Job:
        """What there is to do, and the rows that come of it."""
        metrics = (baselines if self.method in BASELINES else training).metrics_of(self.goal)
        return Job([(self.work, metrics)], partial(run, resident, self, settings, device))


def run(resident: Resident, fit: Fit, settings: Settings, device: str) -> list[dict[str, float]]:
    """Train and judge, or fit and judge."""
    resident = resident.to(device)
    if fit.method in BASELINES:
        return [baselines.fit_and_judge(resident, fit.split, fit.method, fit.seed)]
    return [training.train_and_judge(resident, fit.split, fit.method, settings, fit.seed)]


def ceiling(resident: Resident, readout: str, plan: Plan) -> Job:
    """The ceiling of a readout on the whole set, after this kind of network."""
    work: dict[str, Any] = {"data": resident.data, "readout": readout, "seed": None, "fold": None}
    work |= {"network": resident.network, "rounds": plan.settings.rounds}
    work |= {"attributes": resident.labels < resident.x.shape[1]}
    return Job([(work, ("ceiling",))], partial(ceiling_of, resident, readout))


def ceiling_of(resident: Resident, readout: str) -> list[dict[str, float]]:
    """Its value."""
    return [{"ceiling": resident.ceiling(READOUTS[readout].view, range(len(resident)))}]


def list_fits(graphs: GraphSet, plan: Plan) -> Iterator[Fit]:
    """All methods of a set, a fold at a time, with the same folds and seeds for every method."""
    check(graphs, plan)
    folds = plan.folds or most_folds(graphs)
    share = hold_out(graphs, folds)
    groups = graphs.groups() if plan.group else None
    methods: list[tuple[str | None, str]] = [(None, name) for name in baselines_of(graphs)]
    methods += [(network, readout) for network in plan.networks for readout in plan.readouts]
    for seed in range(plan.seed, plan.seed + plan.repeats):
        for fold, split in enumerate(cut("accuracy", graphs, folds, seed, groups)):
            for network, method in methods:
                work: dict[str, Any] = {"data": graphs.name, "readout": method, "seed": seed, "fold": fold}
                work |= {"network": network, "folds": folds, "attributes": reads_attributes(graphs, plan)}
                work |= {"group": True} if plan.group else {}
                if network is None:
                    work |= {"libraries": {"scikit-learn": metadata.version("scikit-learn")}}
                else:
                    work |= {"settings": asdict(plan.settings) | {"validation": share}}
                key = network or plan.networks[0]
                yield Fit(graphs.name, key, method, split, seed + fold, work, goal_type(graphs))


def hold_out(graphs: GraphSet, folds: int) -> float:
    """The share of a fold that is held out for choosing: a tenth, or as much as has all strata."""
    known = len(graphs) - -(-len(graphs) // folds)
    return max(VALIDATION, (int(strata(graphs, folds).max()) + 1) / known)


def cut(
    experiment: str, graphs: GraphSet, folds: int, seed: int, groups: NDArray[np.int64] | None = None
) -> tuple[Split, ...]:
    """Stratified folds with a hold-out each; raises `UserError` where a class is too small."""
    try:
        return stratified_folds(graphs, folds, hold_out(graphs, folds), seed, groups).splits
    except ValueError as problem:
        raise UserError(f"{experiment}: {problem}.") from problem


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
