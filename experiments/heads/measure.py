"""Training with every head on the same folds, judging in the order of storage and in others, and the law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean

import torch
from sklearn.model_selection import KFold
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from datasets import GraphSet
from experiments.console import UserError, tracked
from experiments.heads import law
from experiments.heads.networks import DROPPED, HEADS, LAYERS, SHUFFLED, WIDTH, build, parameters, shuffled
from experiments.models import GIN
from experiments.rows import Row, RowLog

METRICS = ("parameters", "train accuracy", "accuracy", "shuffled accuracy", "answers changed", "same bits")
SAMPLE, LEARNING_RATE, ORDERS = 300, 0.01, 10


@dataclass(frozen=True)
class Task:
    """Graphs with nodes, and what a network is trained to tell of them: the family where they have one."""

    data: str
    graphs: tuple[Data, ...]
    available: int
    classes: int

    @property
    def largest(self) -> int:
        """The number of nodes to which a head without a readout pads."""
        return max(graph.num_nodes for graph in self.graphs)

    @property
    def sentence(self) -> str:
        """On how many graphs, and what was left out."""
        sample = f" (a seeded sample of {self.available})" if len(self.graphs) < self.available else ""
        alone = "" if self.classes > 1 else "; all of one class, so no network was trained"
        return f"{self.data}: {len(self.graphs)} graphs with at most {self.largest} nodes{sample}{alone}."


def choose(graphs: GraphSet, seed: int) -> Task:
    """A task on at most `SAMPLE` graphs."""
    order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(seed))[:SAMPLE].sort().values
    picked = [graphs[position] for position in order.tolist() if graphs[position].num_nodes > 0]
    if max((graph.num_nodes for graph in picked), default=0) < 2:
        raise UserError(f"{graphs.name}: expected graphs of two nodes or more, got none.")
    labels = [str(graph.family) if "family" in graph else str(int(graph.y)) for graph in picked]
    distinct = sorted(set(labels))
    kept = tuple(
        Data(x=graph.x, edge_index=graph.edge_index, y=torch.tensor([distinct.index(label)]))
        for graph, label in zip(picked, labels, strict=True)
    )
    return Task(graphs.name, kept, len(graphs), len(distinct))


def measure(
    tasks: Sequence[Task], log: RowLog, device: str, seed: int, folds: int, epochs: int, seeds: int
) -> list[Row]:
    """The law on every set, and every head where there are classes to train on."""
    rows = []
    for task in tasks:
        if task.classes > 1 and folds > len(task.graphs):
            raise UserError(f"--folds {folds}: {task.data} has only {len(task.graphs)} graphs.")
        rows += measure_law(task, log, device, seed)
        if task.classes > 1:
            rows += measure_heads(task, log, device, seed, folds, epochs, seeds)
    return rows


def measure_law(task: Task, log: RowLog, device: str, seed: int) -> list[Row]:
    """Variances of the mean of m nodes, of labels and of states, and between graphs."""
    torch.manual_seed(seed)
    network = build("mean", task.graphs[0].x.size(1), task.classes, task.largest)
    rows = []
    for kind in (law.ATOMS, law.RANDOM):
        x, graphs = law.features(kind, task.graphs, network, device)
        work = {"data": task.data, "readout": "mean", "seed": seed, "fold": None, "graphs": len(task.graphs)}
        work |= {"features": kind, "layers": LAYERS, "width": WIDTH}
        for m in law.numbers(task.graphs):
            compute = partial(law.draw, x, graphs, m, seed)
            rows += log.measure(work | {"nodes": m, "draws": law.DRAWS}, law.LAW, compute)
        if len(task.graphs) > 1:
            rows += log.measure(work, law.BETWEEN, partial(law.between, x, graphs))
    return rows


def measure_heads(
    task: Task, log: RowLog, device: str, seed: int, folds: int, epochs: int, seeds: int
) -> list[Row]:
    """Train and judge every head on every fold, `seeds` times each."""
    common = {"data": task.data, "graphs": len(task.graphs)}
    rows = log.measure(
        common | {"readout": None, "seed": seed, "fold": None}, ("majority",), partial(majority, task)
    )
    sides = KFold(folds, shuffle=True, random_state=seed).split(task.graphs)
    runs = [(*fold, draw, head) for fold in enumerate(sides) for draw in range(seeds) for head in HEADS]
    for fold, (train, test), draw, head in tracked(runs, f"training on {task.data}"):
        work = common | {"readout": head, "seed": seed, "fold": fold, "folds": folds, "draw": draw}
        work |= {"epochs": epochs, "learning rate": LEARNING_RATE, "layers": LAYERS, "width": WIDTH}
        work |= {"dropout": DROPPED, "orders": ORDERS}
        compute = partial(train_and_judge, task, train, test, head, device, seed + draw, epochs)
        rows += log.measure(work, METRICS, compute)
    return rows


def majority(task: Task) -> dict[str, float]:
    """The share of the largest class."""
    counts = torch.cat([graph.y for graph in task.graphs]).bincount()
    return {"majority": float(counts.max()) / len(task.graphs)}


def train_and_judge(
    task: Task, train: Sequence[int], test: Sequence[int], head: str, device: str, seed: int, epochs: int
) -> dict[str, float]:
    """Train on one side, each epoch one step on all of it, and judge on both."""
    torch.manual_seed(seed)
    network = build(head, task.graphs[0].x.size(1), task.classes, task.largest).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    known, held_out = (Batch.from_data_list([task.graphs[place] for place in side]) for side in (train, test))
    known, held_out = known.to(device), held_out.to(device)
    orders = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        batch = shuffled(known, orders) if head == SHUFFLED else known
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(batch), batch.y).backward()
        optimiser.step()
    with torch.no_grad():
        return judge(network.eval(), known, held_out, seed)


def judge(network: GIN, known: Batch, held_out: Batch, seed: int) -> dict[str, float]:
    """Accuracies in the order of storage, and what `ORDERS` others do to held-out graphs."""
    logits = network(held_out)
    answers = logits.argmax(dim=1)
    generator = torch.Generator().manual_seed(seed)
    others = [network(shuffled(held_out, generator)) for _ in range(ORDERS)]
    same = torch.stack([bits(other) == bits(logits) for other in others]).all(dim=2).all(dim=0)
    return {
        "parameters": parameters(network),
        "train accuracy": agreement(network(known).argmax(dim=1), known.y),
        "accuracy": agreement(answers, held_out.y),
        "shuffled accuracy": mean(agreement(other.argmax(dim=1), held_out.y) for other in others),
        "answers changed": 1 - mean(agreement(other.argmax(dim=1), answers) for other in others),
        "same bits": same.double().mean().item(),
    }


def bits(logits: Tensor) -> Tensor:
    """The bits of float32 numbers, as integers."""
    return logits.view(torch.int32)


def agreement(answers: Tensor, right: Tensor) -> float:
    """The share of entries that are equal."""
    return (answers == right).double().mean().item()
