"""Maps of the score of every node, and what they are worth: measures that know nothing of rows.

The map of a molecule of n atoms has one score an atom, and the mean of the scores is the logit of the class
against all others. After a mean that is the class activation map of Zhou et al. (arXiv 1512.04150), with
w x_i + b. After a max it is n w p_i + b, where p_i is what atom i gave to the max: the channels that it won,
shared with those that tie.

Deletion removes the atoms of a molecule one after the other, those that speak most for the predicted class
first, and asks how soon the network's probability of that class falls; insertion begins without atoms and
puts them back in the same order (Petsiuk et al., RISE, arXiv 1806.07421). An atom takes its bonds along.
What is inserted in one order is what is left when the reverse order is deleted, so three kinds of deletion
give all curves: best first, worst first, and at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
import torch
from scipy.integrate import trapezoid
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import subgraph

from datasets import GraphSet
from datasets.splits import Split
from experiments.learning.batches import Batch, node_by_node
from experiments.learning.networks import Network
from experiments.trained import together, twins
from readouts.attribution import class_activation


@dataclass(frozen=True)
class Task:
    """Graphs with y = 1 for the class whose score is mapped, and which nodes are in each pattern."""

    graphs: GraphSet
    label: str
    patterns: Mapping[str, tuple[Tensor, ...]]
    splits: tuple[Split, ...]

    @property
    def sentence(self) -> str:
        """What is mapped, and twins in the folds."""
        sides = [(split.train, split.test) for split in self.splits]
        told = f"maps of the score of {self.label}; patterns {', '.join(self.patterns)}"
        return f"{self.graphs.name}: {told}; of graphs held out in turns {twins(self.graphs.graphs, sides)}."


READOUTS = ("mean", "max")
ROUNDS = 2


def linear(network: Network) -> nn.Linear:
    """The head as one layer whose output is the logit of class 1 against class 0."""
    head = nn.Linear(network.pooled, 1).to(device_of(network))
    with torch.no_grad():
        for name, weight in head.named_parameters():
            both = network.head.get_parameter(name)[0]
            weight.copy_((both[1] - both[0]).view_as(weight))
    return head


def device_of(network: Network) -> torch.device:
    """Where a network is."""
    return next(network.parameters()).device


@torch.no_grad()
def scored(network: Network, batch: Batch) -> Tensor:
    """The logit of every graph of a batch [B], on the CPU."""
    out = network.head(network.readout(network.nodes(batch), batch.graphs))
    return (out[:, 1] - out[:, 0]).cpu()


def logits(network: Network, graphs: Sequence[Data]) -> Tensor:
    """The logit of every graph [B], on the CPU."""
    return scored(network, together(graphs, ROUNDS, device_of(network)))


def activation_maps(network: Network, graphs: Sequence[Data], readout: str) -> list[Tensor]:
    """The scores of the nodes of every graph [n], which have the logit as their mean; on the CPU."""
    batch = together(graphs, ROUNDS, device_of(network))
    with torch.no_grad():
        states = network.nodes(batch)
    scores = class_activation(linear(network), states, batch.graphs, readout, target=0).detach()
    if readout == "max":
        scores = scores * batch.graphs.count[batch.graphs.index]
    return list(scores.cpu().split([graph.num_nodes for graph in graphs]))


ORDERS = BEST, WORST, RANDOM = ("best first", "worst first", "at random")
REMOVED = tuple(tenth / 10 for tenth in range(11))
DRAWS = 10


def shares(scores: Tensor, group: Tensor) -> tuple[float, float]:
    """The share of nodes that are in a group, and the share of the positive score that these carry."""
    positive = scores.double().clamp(min=0)
    total = positive.sum().item()
    return group.double().mean().item(), positive[group].sum().item() / total if total else 0.0


def ranked(scores: Tensor, group: Tensor) -> float:
    """How often a node of the group scores above one outside it; equal scores, or none, count one half."""
    above = scores[group].unsqueeze(1) - scores[~group]
    if not above.numel():
        return 0.5
    return ((above > 0).double() + 0.5 * (above == 0).double()).mean().item()


def half(scores: Tensor) -> float:
    """The least share of the nodes that carries half of the positive score; 0 where there is none."""
    positive = scores.double().clamp(min=0).sort(descending=True).values.cumsum(0)
    if not len(scores) or positive[-1] == 0:
        return 0.0
    return (int((positive < positive[-1] / 2).sum()) + 1) / len(scores)


def hit(scores: Tensor, group: Tensor) -> float:
    """Whether the best scored node lies in a group; of several best, the share that does."""
    return group[scores == scores.max()].double().mean().item()


def drops(
    network: Network, graphs: Sequence[Data], maps: Sequence[Tensor], groups: Sequence[Tensor], seed: int
) -> tuple[float, float, float]:
    """How far the logit falls, on average, without the k best scored nodes, k of the group, k at random."""
    generator = torch.Generator().manual_seed(seed)
    rests = []
    for graph, scores, group in zip(graphs, maps, groups, strict=True):
        k = int(group.sum())
        rests += [without(graph, scores.argsort(descending=True, stable=True)[:k])]
        rests += [without(graph, group.nonzero().flatten())]
        shuffles = (torch.randperm(len(group), generator=generator) for _ in range(DRAWS))
        rests += [without(graph, shuffle[:k]) for shuffle in shuffles]
    fallen = logits(network, graphs).double().unsqueeze(1) - logits(network, rests).view(-1, 2 + DRAWS)
    top, of_group, *at_random = fallen.mean(dim=0).tolist()
    return top, of_group, mean(at_random)


def without(graph: Data, nodes: Tensor) -> Data:
    """The graph with these nodes and their edges removed."""
    kept = torch.ones(graph.num_nodes, dtype=torch.bool)
    kept[nodes] = False
    edge_index, _ = subgraph(kept, graph.edge_index, relabel_nodes=True, num_nodes=len(kept))
    return Data(x=graph.x[kept], edge_index=edge_index)


def deletions(
    network: Network, graphs: Sequence[Data], maps: Sequence[Tensor], seed: int
) -> dict[str, list[float]]:
    """For each order, the mean probability of the predicted class with each share of `REMOVED` gone."""
    signs = torch.where(logits(network, graphs) > 0, 1.0, -1.0)
    counts = torch.tensor([graph.num_nodes for graph in graphs])
    owner = torch.arange(len(graphs)).repeat_interleave(counts)
    n = counts[owner]
    generator = torch.Generator().manual_seed(seed)
    ties, *draws = (torch.rand(len(n), generator=generator) for _ in range(1 + DRAWS))
    best = places(owner, -torch.cat(list(maps)) * signs[owner], ties)
    orders = {BEST: [best], WORST: [n - 1 - best], RANDOM: [places(owner, draw) for draw in draws]}
    x = torch.cat([graph.x for graph in graphs])
    starts = (counts.cumsum(0) - counts).tolist()
    edges = torch.cat([graph.edge_index + at for graph, at in zip(graphs, starts, strict=True)], dim=1)

    def probability(place: Tensor, part: float) -> float:
        kept = place >= (part * n).round()
        edge_index, _ = subgraph(kept, edges, relabel_nodes=True, num_nodes=len(kept))
        left = owner[kept]
        ptr = nn.functional.pad(left.bincount(minlength=len(graphs)).cumsum(0), (1, 0))
        rest: Any = Data(x=x[kept], edge_index=edge_index, batch=left, ptr=ptr)
        logit = scored(network, node_by_node(rest.to(device_of(network)), ROUNDS))
        return (signs * logit).sigmoid().double().mean().item()

    return {
        order: [mean(probability(place, part) for place in found) for part in REMOVED]
        for order, found in orders.items()
    }


def places(owner: Tensor, *keys: Tensor) -> Tensor:
    """The place 0, 1, ... of every node of its graph when sorted by the first key, then the next: [N]."""
    order = torch.from_numpy(np.lexsort([key.numpy() for key in (*keys[::-1], owner)]))
    start = torch.bincount(owner).cumsum(0) - torch.bincount(owner)
    result = torch.empty_like(order)
    result[order] = torch.arange(len(order)) - start[owner[order]]
    return result


def point(order: str, part: float) -> str:
    """The name of a point of a deletion curve."""
    return f"{order}, {part:.0%} removed"


def area(curve: Sequence[float]) -> float:
    """The area under a curve over `REMOVED`, by trapezoids."""
    return float(trapezoid(curve, REMOVED))
