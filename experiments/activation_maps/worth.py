"""What maps are worth: where they have their score, and what removing the atoms they point at does.

Deletion removes the atoms of a molecule one after the other, those that speak most for the predicted class
first, and asks how soon the network's probability of that class falls; insertion begins without atoms and
puts them back in the same order (Petsiuk et al., RISE, arXiv 1806.07421). An atom takes its bonds along.
What is inserted in one order is what is left when the reverse order is deleted, so three kinds of deletion
give all curves: best first, worst first, and at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import numpy as np
import torch
from scipy.integrate import trapezoid
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import subgraph

from experiments.activation_maps.maps import logits, together
from experiments.models import GIN

ORDERS = BEST, WORST, RANDOM = ("best first", "worst first", "at random")
REMOVED = tuple(tenth / 10 for tenth in range(11))
DRAWS = 10


def shares(scores: Tensor, group: Tensor) -> tuple[float, float]:
    """The share of atoms that are in a group, and the share of the positive score that these carry."""
    positive = scores.double().clamp(min=0)
    total = positive.sum().item()
    return group.double().mean().item(), positive[group].sum().item() / total if total else 0.0


def ranked(scores: Tensor, group: Tensor) -> float:
    """How often an atom of the group scores above one outside it; equal scores count one half."""
    above = scores[group].unsqueeze(1) - scores[~group]
    return ((above > 0).double() + 0.5 * (above == 0).double()).mean().item()


def half(scores: Tensor) -> float:
    """The least share of the atoms that carries half of the positive score; 0 where there is none."""
    positive = scores.double().clamp(min=0).sort(descending=True).values.cumsum(0)
    if not len(scores) or positive[-1] == 0:
        return 0.0
    return (int((positive < positive[-1] / 2).sum()) + 1) / len(scores)


def hit(scores: Tensor, group: Tensor) -> float:
    """Whether the best scored atom lies in a group; of several best, the share that does."""
    return group[scores == scores.max()].double().mean().item()


def drops(
    network: GIN, molecules: Sequence[Data], maps: Sequence[Tensor], nitro: Sequence[Tensor], seed: int
) -> tuple[float, float, float]:
    """How far the logit falls, on average, without the k best scored atoms, the k of NO2, k at random."""
    generator = torch.Generator().manual_seed(seed)
    rests = []
    for molecule, scores, group in zip(molecules, maps, nitro, strict=True):
        k = int(group.sum())
        rests += [without(molecule, scores.argsort(descending=True, stable=True)[:k])]
        rests += [without(molecule, group.nonzero().flatten())]
        shuffles = (torch.randperm(len(group), generator=generator) for _ in range(DRAWS))
        rests += [without(molecule, shuffle[:k]) for shuffle in shuffles]
    fallen = logits(network, molecules).double().unsqueeze(1) - logits(network, rests).view(-1, 2 + DRAWS)
    top, group_drop, *at_random = fallen.mean(dim=0).tolist()
    return top, group_drop, mean(at_random)


def without(molecule: Data, atoms: Tensor) -> Data:
    """The molecule with these atoms and their bonds removed."""
    kept = torch.ones(molecule.num_nodes, dtype=torch.bool)
    kept[atoms] = False
    edge_index, _ = subgraph(kept, molecule.edge_index, relabel_nodes=True)
    return Data(x=molecule.x[kept], edge_index=edge_index)


@torch.no_grad()
def deletions(
    network: GIN, molecules: Sequence[Data], maps: Sequence[Tensor], seed: int
) -> dict[str, list[float]]:
    """For each order, the mean probability of the predicted class with each share of `REMOVED` gone."""
    batch = together(molecules, network)
    predicted = torch.where(network(batch)[:, 0] > 0, 1.0, -1.0)
    n = batch.ptr.diff()[batch.batch].cpu()
    evidence = torch.cat(list(maps)) * predicted[batch.batch].cpu()
    generator = torch.Generator().manual_seed(seed)
    ties, *draws = (torch.rand(len(n), generator=generator) for _ in range(1 + DRAWS))
    best = places(batch.batch.cpu(), -evidence, ties)
    orders = {
        BEST: [best],
        WORST: [n - 1 - best],
        RANDOM: [places(batch.batch.cpu(), draw) for draw in draws],
    }

    def probability(place: Tensor, part: float) -> float:
        kept = (place >= (part * n).round()).to(batch.batch.device)
        edge_index, _ = subgraph(kept, batch.edge_index, relabel_nodes=True, num_nodes=len(kept))
        states = network.nodes(Data(x=batch.x[kept], edge_index=edge_index))
        logit = network.head(network.readout(states, batch.batch[kept], dim_size=len(molecules)))[:, 0]
        return (predicted * logit).sigmoid().double().mean().item()

    return {
        order: [mean(probability(place, part) for place in found) for part in REMOVED]
        for order, found in orders.items()
    }


def places(batch: Tensor, *keys: Tensor) -> Tensor:
    """The place 0, 1, ... of every atom of its molecule when sorted by the first key, then the next: [N]."""
    order = torch.from_numpy(np.lexsort([key.numpy() for key in (*keys[::-1], batch)]))
    start = torch.bincount(batch).cumsum(0) - torch.bincount(batch)
    result = torch.empty_like(order)
    result[order] = torch.arange(len(order)) - start[batch[order]]
    return result


def point(order: str, part: float) -> str:
    """The name of a point of a deletion curve."""
    return f"{order}, {part:.0%} removed"


def area(curve: Sequence[float]) -> float:
    """The area under a curve over `REMOVED`, by trapezoids."""
    return float(trapezoid(curve, REMOVED))
