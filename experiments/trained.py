"""Networks that the stacked engine trains, and that an experiment then asks about graphs node by node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy

import torch
from torch_geometric.data import Batch as PyGBatch
from torch_geometric.data import Data

from datasets.duplicates import same_graphs
from experiments.learning.batches import Batch, Resident, node_by_node
from experiments.learning.goals import ACCURACY
from experiments.learning.networks import READOUTS, Network, StackedLinear
from experiments.learning.training import Settings, Stack, new_network

Positions = Sequence[int]
GATE = ("train accuracy", "train ceiling", "best epoch", "late change")  # what the gate asks for


def train(
    resident: Resident,
    positions: Positions,
    readout: str,
    settings: Settings,
    seed: int,
    hold_out: Positions | None = None,
    linear_head: bool = False,
) -> Stack:
    """Train `settings.seeds` networks at once, with the first learning rate, in their states to keep.

    These are the best on the hold-out, or without one the last; without epochs, as they were drawn. A linear
    head is one layer.
    """
    network = new_network(resident, readout, settings, settings.seeds, seed)
    if linear_head:
        head = StackedLinear(network.pooled, resident.classes or 1, settings.seeds)
        network.head = head.to(resident.x.device)
    rates = settings.learning_rates[:1] * settings.seeds
    stack = Stack(resident, network, settings, rates, seed, readout)
    if settings.epochs:
        stack.train(positions, hold_out)
    else:
        stack.kept = stack.state()
    network.load_state_dict(stack.kept)
    network.eval()
    return stack


def alone(network: Network, place: int = 0) -> Network:
    """Return one network of a stack."""
    found = deepcopy(network)
    found.copies = 1
    for value in (*found.parameters(), *found.buffers()):
        value.data = value.data[place : place + 1].clone()
    return found


def gate_values(stack: Stack, positions: Positions, readout: str) -> list[dict[str, float]]:
    """Return what the gate asks about the training of each network of a stack."""
    ceiling = stack.resident.ceiling(READOUTS[readout].view, positions)
    found = zip(stack.judge(positions), stack.best_epoch, stack.late_change, strict=True)
    return [
        dict(zip(GATE, (judged[ACCURACY], ceiling, float(best), float(late)), strict=True))
        for judged, best, late in found
    ]


def together(graphs: Sequence[Data], rounds: int, device: str | torch.device = "cpu") -> Batch:
    """Return graphs as a batch with one row for each node."""
    names = ("x", "edge_index", "y")
    bare = [Data(**{name: graph[name] for name in names if name in graph}) for graph in graphs]
    return node_by_node(PyGBatch.from_data_list(bare).to(device), rounds)


def twins(graphs: Sequence[Data], splits: Iterable[tuple[Positions, Positions]]) -> str:
    """Return how many of the graphs to judge on are isomorphic to one to learn from, edge labels aside."""
    bare = [Data(node_label=graph.x.argmax(dim=1), edge_index=graph.edge_index) for graph in graphs]
    same = same_graphs(bare).tolist()
    found = [
        [same[place] in learned for place in judged]
        for learned, judged in (({same[place] for place in part}, judged) for part, judged in splits)
    ]
    count, total = sum(map(sum, found)), sum(map(len, found))
    return f"{count} of {total} have an isomorphic twin among those learned from"
