"""The variance of the mean of m nodes, measured by drawing them, and by formula."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from experiments.models import GIN
from readouts import Segments, readout
from readouts.nn import PartialReadout

ATOMS, RANDOM = "atoms", "random network"
LAW = ("measured", "predicted", "plain", "standard error")
BETWEEN = ("between graphs", "independent nodes")
DRAWS = 200


def features(kind: str, graphs: Sequence[Data], network: GIN, device: str) -> tuple[Tensor, Segments]:
    """Labels of the nodes or states of an untrained network, float64 [N, F], and their graphs."""
    batch = Batch.from_data_list(list(graphs)).to(device)
    x = batch.x
    if kind == RANDOM:
        with torch.no_grad():
            x = network.to(device).eval().nodes(batch)
    return x.double(), Segments.from_batch(batch.batch, batch.num_graphs)


def numbers(graphs: Sequence[Data]) -> list[int]:
    """How many nodes to draw: 1, 2, 4, ..., less than the largest graph has."""
    largest = max(graph.num_nodes for graph in graphs)
    return [2**power for power in range(largest.bit_length()) if 2**power < largest]


def draw(x: Tensor, graphs: Segments, m: int, seed: int) -> dict[str, float]:
    """Variances of the mean of m nodes about that of all, averaged over features and graphs of more than m.

    "measured" with `DRAWS` draws, with its "standard error"; "predicted" with the correction for finite
    graphs; "plain" without, variance / m.
    """
    large = graphs.count > m
    n = graphs.count[large, None]
    center = readout(x, graphs, "mean")
    variance = readout(x, graphs, "var")[large]
    some = PartialReadout("mean", count=m).train()
    torch.manual_seed(seed + m)
    squares = torch.stack([(some(x, graphs) - center)[large].square().mean() for _ in range(DRAWS)])
    return {
        "measured": squares.mean().item(),
        "predicted": (variance * (n - m) / (n - 1) / m).mean().item(),
        "plain": variance.mean().item() / m,
        "standard error": squares.std().item() / DRAWS**0.5,
    }


def between(x: Tensor, graphs: Segments) -> dict[str, float]:
    """The variance of the means of all graphs, and what it were if their nodes were drawn from all nodes."""
    independent = x.var(dim=0, correction=0) / graphs.count[:, None]
    return {
        "between graphs": readout(x, graphs, "mean").var(dim=0).mean().item(),
        "independent nodes": independent.mean().item(),
    }
