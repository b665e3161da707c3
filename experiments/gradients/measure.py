"""Two labels for every graph, and training with a look at the gradients now and then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from sklearn.model_selection import KFold
from torch import Tensor
from torch_geometric.data import Batch, Data

from datasets import GraphSet
from experiments.console import UserError, tracked
from experiments.gradients.networks import (
    LABELS,
    LAYERS,
    MAPS,
    READOUTS,
    SPREAD,
    VECTOR,
    WIDTH,
    Network,
    gradients,
    losses,
    spread,
)
from experiments.rows import Row, RowLog

SAMPLE, LEARNING_RATE = 300, 0.01


@dataclass(frozen=True)
class Task:
    """Graphs of two nodes or more with two yes-or-no labels each: y float [1, 2]."""

    data: str
    graphs: tuple[Data, ...]
    available: int
    labels: tuple[str, ...]

    @property
    def answers(self) -> Tensor:
        """Both labels of all graphs, [B, 2]."""
        return torch.cat([graph.y for graph in self.graphs])

    @property
    def sentence(self) -> str:
        """On how many graphs, which labels, and for how many of the graphs these are equal."""
        sample = f" (a seeded sample of {self.available})" if len(self.graphs) < self.available else ""
        equal = 100 * (self.answers[:, 0] == self.answers[:, 1]).double().mean().item()
        return (
            f"{self.data}: {len(self.graphs)} graphs of two nodes or more{sample}; the labels are "
            f"{' and '.join(self.labels)}, each cut in two as evenly as may be, equal for {equal:.0f} %."
        )


def choose(graphs: GraphSet, seed: int) -> Task:
    """A task on at most `SAMPLE` graphs."""
    order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(seed))[:SAMPLE].sort().values
    picked = [graphs[position] for position in order.tolist() if graphs[position].num_nodes > 1]
    if not picked:
        raise UserError(f"{graphs.name}: expected graphs of two nodes or more, got none.")
    asked = {name: above for name, above in questions(picked, graphs.node_names).items() if above.any()}
    if len(asked) < 2:
        raise UserError(
            f"{graphs.name}: expected graphs that differ in two of class, proportions and size, "
            f"got {' and '.join(asked) or 'none'}."
        )
    labels = tuple(asked)[:2]
    y = torch.stack([asked[label] for label in labels], dim=1).float()
    kept = tuple(
        Data(x=graph.x, edge_index=graph.edge_index, y=row[None])
        for graph, row in zip(picked, y, strict=True)
    )
    return Task(graphs.name, kept, len(graphs), labels)


def questions(graphs: Sequence[Data], names: Sequence[str] | None) -> dict[str, Tensor]:
    """Class or family, proportion of the kind of node that is cut most evenly, and size: each bool [B]."""
    field = "family" if "family" in graphs[0] else "class"
    classes = [str(graph.family) if field == "family" else str(int(graph.y)) for graph in graphs]
    distinct = sorted(set(classes))
    sizes = torch.tensor([graph.num_nodes for graph in graphs])
    proportions = torch.stack([graph.x.double().sum(dim=0) for graph in graphs]) / sizes[:, None]
    cuts = torch.stack([upper(column) for column in proportions.T])
    kind = int((cuts.double().mean(dim=1) - 0.5).abs().argmin())
    named = names[kind] if names else f"of kind {kind}"
    return {
        field: upper(torch.tensor([*map(distinct.index, classes)])),
        f"share of nodes {named}": cuts[kind],
        "size": upper(sizes),
    }


def upper(values: Tensor) -> Tensor:
    """Which values are above the border that comes nearest to halving them; none where all are equal."""
    borders = values.unique()
    shares = (values > borders[:, None]).double().mean(dim=1)
    return values > borders[(shares - 0.5).abs().argmin()]


def measure(tasks: Sequence[Task], log: RowLog, device: str, seed: int, folds: int, epochs: int) -> list[Row]:
    """How gradients spread in every network at every logged epoch, and its accuracy on held-out graphs."""
    rows = []
    for task in tasks:
        if folds > len(task.graphs):
            raise UserError(f"--folds {folds}: {task.data} has only {len(task.graphs)} graphs to train on.")
        share = task.answers.mean(dim=0)
        common = {"data": task.data, "seed": seed, "graphs": len(task.graphs)}
        majority = torch.maximum(share, 1 - share).mean().item()
        work = common | {"readout": None, "fold": None}
        rows += log.measure(work, ("majority",), partial(dict, majority=majority))
        sides = KFold(folds, shuffle=True, random_state=seed).split(task.graphs)
        runs = [
            (*fold, head, name) for fold in enumerate(sides) for head in (VECTOR, MAPS) for name in READOUTS
        ]
        for fold, (train, test), head, readout in tracked(runs, f"training on {task.data}"):
            history = cache(partial(trained, task, train, test, readout, head, device, seed + fold, epochs))
            work = common | {"readout": readout, "fold": fold, "folds": folds, "head": head}
            work |= {"layers": LAYERS, "width": WIDTH, "learning rate": LEARNING_RATE}
            for epoch in logged(epochs):
                compute = partial(at_epoch, history, epoch)
                rows += log.measure(work | {"epoch": epoch}, (*SPREAD, *LABELS, "accuracy"), compute)
    return rows


def logged(epochs: int) -> list[int]:
    """The epochs after which gradients are looked at: 0, 1, 3, 10, 30, ... and the last."""
    early = [factor * 10**power for power in range(len(str(epochs))) for factor in (1, 3)]
    return [0, *(epoch for epoch in early if epoch < epochs), epochs]


def at_epoch(history: Callable[[], Mapping[int, dict[str, float]]], epoch: int) -> dict[str, float]:
    """What was found at an epoch."""
    return history()[epoch]


def trained(
    task: Task,
    train: Sequence[int],
    test: Sequence[int],
    readout: str,
    head: str,
    device: str,
    seed: int,
    epochs: int,
) -> dict[int, dict[str, float]]:
    """What is found at each logged epoch of training, each epoch one step on all graphs to train on."""
    torch.manual_seed(seed)
    network = Network(task.graphs[0].x.size(1), readout, head).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    batch, held_out = (Batch.from_data_list([task.graphs[place] for place in side]) for side in (train, test))
    batch, held_out = batch.to(device), held_out.to(device)
    found = {}
    for epoch in range(epochs + 1):
        if epoch in logged(epochs):
            found[epoch] = spread(*gradients(network, batch), batch) | {
                "accuracy": accuracy(network, held_out)
            }
        optimiser.zero_grad()
        losses(network(batch), batch).mean().backward()
        optimiser.step()
    return found


def accuracy(network: Network, batch: Batch) -> float:
    """The share of right answers, of both labels together."""
    network.eval()
    with torch.no_grad():
        right = (network(batch) > 0) == (batch.y > 0)
    network.train()
    return right.double().mean().item()
