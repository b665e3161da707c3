"""Rows: accuracies, gates and copies of every squeeze on every fold, beside baselines and ceilings.

Between two convolutions a gate rescales the channels of all nodes by what a readout, the squeeze, sees of the
graph. Claim: it helps (Hu et al., arXiv 1709.01507, for images, squeezed by the mean), and the squeeze
decides what it lets in. Gates by mean and max are the same for a graph and its copies, bit for bit. Those by
sum follow the size, are driven towards 0 and 1 by copies, and show the size to a network that ends in a mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch_geometric.data import Data

from datasets import GraphSet, covers
from datasets.splits import Split, stratified_folds
from experiments.accuracy import baselines
from experiments.accuracy.jobs import FOLDS, digest, smallest_class
from experiments.accuracy.resident import Resident, reside
from experiments.console import UserError, tracked
from experiments.excitation import networks
from experiments.excitation.networks import NONE, VIEWS, run, trained
from experiments.models import GIN
from experiments.rows import Row, RowLog

SAMPLE = 1000
COPIES = (1, 2, 4, 8, 16)
CLOSE = 0.01
BASELINES = ("majority class", "size only")
ACCURACY = ("accuracy", "train accuracy", "parameters")
SPREAD = ("gate", "over graphs", "over channels", "with size")
CHANNELS = tuple(f"channel {c} {what}" for c in range(networks.WIDTH) for what in ("mean", "sd"))
COPIED = ("moved", "moved at most", "saturated", "answers changed")


@dataclass(frozen=True)
class Task:
    """Graphs of two classes or more, and the same in the form that baselines and ceilings are taken from."""

    graphs: GraphSet
    available: int
    resident: Resident

    @property
    def sentence(self) -> str:
        """On how many graphs."""
        sample = f" (a seeded sample of {self.available})" if len(self.graphs) < self.available else ""
        return f"{self.graphs.name}: {len(self.graphs)} graphs{sample}, held out in turns."


def choose(graphs: GraphSet, seed: int) -> Task:
    """A task on at most `SAMPLE` graphs."""
    order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(seed))[:SAMPLE].sort().values
    picked = tuple(
        Data(x=graph.x, node_label=graph.node_label, edge_index=graph.edge_index, y=graph.y)
        for graph in (graphs[position] for position in order.tolist())
    )
    if len({int(graph.y) for graph in picked}) < 2:
        raise UserError(f"{graphs.name}: all {len(picked)} graphs are of one class; excitation needs two.")
    sample = GraphSet(graphs.name, picked, graphs.classes)
    return Task(sample, len(graphs), reside(sample, "gin", networks.ROUNDS))


def measure(
    tasks: Sequence[Task], log: RowLog, device: str, seed: int, folds: int | None, epochs: int
) -> list[Row]:
    """The rows of all sets; without `folds`, ten, or as many as the smallest class has graphs."""
    rows = []
    for task in tasks:
        count = folds or min(FOLDS, smallest_class(task.graphs))
        try:
            splits = stratified_folds(task.graphs, count, 0.0, seed).splits
        except ValueError as problem:
            raise UserError(f"excitation: {problem}.") from problem
        work: Row = {"data": task.graphs.name, "readout": networks.READOUT, "seed": seed, "fold": None}
        work |= {"graphs": len(task.graphs), "rounds": networks.ROUNDS, "method": digest()}
        for squeeze in VIEWS:
            rows += log.measure(work | {"squeeze": squeeze}, ("ceiling",), partial(ceiling, task, squeeze))
        runs = [(fold, name) for fold in range(count) for name in (*BASELINES, *VIEWS)]
        for fold, name in tracked(runs, f"training on {task.graphs.name}"):
            here = work | {"fold": fold, "folds": count, "squeeze": name}
            if name in BASELINES:
                fit = partial(baselines.fit_and_judge, task.resident, splits[fold], name, seed)
                rows += log.measure(here, baselines.METRICS, fit)
            else:
                rows += measure_network(task, splits[fold], log, here, device, seed + fold, epochs)
    return rows


def measure_network(
    task: Task, split: Split, log: RowLog, work: Row, device: str, seed: int, epochs: int
) -> list[Row]:
    """One network on one fold: what it learned, its gates before and after training, and copies."""
    squeeze = work["squeeze"]
    work = work | {"width": networks.WIDTH, "reduction": networks.REDUCTION, "epochs": epochs}
    work |= {"batch size": networks.BATCH_SIZE, "learning rate": networks.LEARNING_RATE}
    train = [task.graphs[position] for position in split.train]
    network, drawn = (
        cache(partial(trained, train, task.graphs.classes, squeeze, device, seed, length))
        for length in (epochs, 0)
    )
    rows = log.measure(work, ACCURACY, partial(judge, task, split, squeeze, network))
    for k in COPIES:
        metrics = COPIED[-1:] if squeeze == NONE else COPIED
        rows += log.measure(work | {"copies": k}, metrics, partial(copied, task, split, network, k))
    for learned, length in ((network, epochs), (drawn, 0)) if squeeze != NONE else ():
        gates = cache(partial(gates_of_all, task, learned))
        for block in range(networks.ROUNDS - 1):
            here = work | {"epochs": length, "block": block}
            rows += log.measure(here, SPREAD, partial(spread, task, gates, block))
            if length and work["fold"] == 0:
                rows += log.measure(here, CHANNELS, partial(per_channel, gates, block))
    return rows


def ceiling(task: Task, squeeze: str) -> dict[str, float]:
    """The best accuracy of any classifier that sees no more than these networks can."""
    return {"ceiling": task.resident.ceiling(VIEWS[squeeze], range(len(task.graphs)))}


def judge(task: Task, split: Split, squeeze: str, network: Callable[[], GIN]) -> dict[str, float]:
    """Accuracies on both sides of a split, and the number of parameters.

    Raises `RuntimeError` where a network is more often right in training than it can be, which is a bug.
    """
    learned = network()
    right = {
        side: (run(learned, [task.graphs[i] for i in positions])[0] == task.resident.y[list(positions)])
        for side, positions in (("accuracy", split.test), ("train accuracy", split.train))
    }
    found = {side: answers.double().mean().item() for side, answers in right.items()}
    limit = task.resident.ceiling(VIEWS[squeeze], split.train)
    if found["train accuracy"] > limit:
        raise RuntimeError(
            f"{task.graphs.name}, squeeze {squeeze}: train accuracy {found['train accuracy']} is above "
            f"{limit}, the ceiling of what the network can tell apart"
        )
    return found | {"parameters": sum(parameter.numel() for parameter in learned.parameters())}


def copied(task: Task, split: Split, network: Callable[[], GIN], k: int) -> dict[str, float]:
    """What k copies of the held-out graphs do to gates and answers.

    How far the gates move, on average and at most, the share of them within `CLOSE` of 0 or 1, and the share
    of graphs that are taken for another class.
    """
    graphs = [task.graphs[position] for position in split.test]
    (answers, gates), (others, moved) = (
        run(network(), chosen) for chosen in (graphs, [covers.copies(graph, k) for graph in graphs])
    )
    result = {"answers changed": (answers != others).double().mean().item()}
    if len(gates):
        away = (moved - gates).abs()
        saturated = ((moved < CLOSE) | (moved > 1 - CLOSE)).double().mean().item()
        result |= {"moved": away.mean().item(), "moved at most": away.max().item(), "saturated": saturated}
    return result


def gates_of_all(task: Task, network: Callable[[], GIN]) -> Tensor:
    """The gates of all graphs, those trained on too: [blocks, B, width]."""
    return run(network(), list(task.graphs))[1]


def spread(task: Task, gates: Callable[[], Tensor], block: int) -> dict[str, float]:
    """The mean gate; its standard deviation over graphs, channel by channel, and over channels; and size.

    *With size* is the mean over the channels of the magnitude of Spearman's correlation with the number of
    nodes, 0 for a channel that is the same for all graphs.
    """
    found = gates()[block]
    per_graph, per_channel = found.std(dim=0, correction=0), found.mean(dim=0).std(correction=0)
    sizes = np.array([graph.num_nodes for graph in task.graphs])
    values = [value.item() for value in (found.mean(), per_graph.mean(), per_channel)]
    return dict(zip(SPREAD, (*values, correlation(found.numpy(), sizes)), strict=True))


def correlation(gates: np.ndarray, sizes: np.ndarray) -> float:
    """The mean over columns [B, C] of the magnitude of the rank correlation with sizes [B]."""
    ranks, against = (rankdata(values, axis=0) - (len(sizes) + 1) / 2 for values in (gates, sizes[:, None]))
    scale = np.linalg.norm(ranks, axis=0) * np.linalg.norm(against)
    return float(np.mean(np.abs((ranks * against).sum(axis=0)) / np.where(scale > 0, scale, 1)))


def per_channel(gates: Callable[[], Tensor], block: int) -> dict[str, float]:
    """Mean and standard deviation of every channel over the graphs."""
    found = gates()[block]
    both = torch.stack([found.mean(dim=0), found.std(dim=0, correction=0)], dim=1)
    return dict(zip(CHANNELS, both.flatten().tolist(), strict=True))
