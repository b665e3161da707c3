"""The logits of a trained network for k disjoint copies of held-out graphs, and what they are made of.

With a linear head, the sum h of the node states and a bias b, the logits of k copies are k W h + b, and those
of a mean over n nodes W h / n + b. So to a sum k copies are softmax at temperature 1 / k, and mean pooling is
sum pooling at temperature n: on images, n = height x width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from datasets import covers
from experiments.models import GIN
from readouts.nn import MeanReadout

COPIES = (1, 2, 4, 8, 16)
MOVED = "other bits"
IDENTITIES = ("k times", "temperature n")


def copied(graphs: Sequence[Data], device: str) -> dict[int, Batch]:
    """For every k, k disjoint copies of each graph."""
    return {k: Batch.from_data_list([covers.copies(graph, k) for graph in graphs]).to(device) for k in COPIES}


@torch.no_grad()
def logits_of(network: GIN, batches: dict[int, Batch]) -> dict[int, Tensor]:
    """For every k, the logits of k copies of each graph, float32 [B, C]."""
    return {k: network(batch) for k, batch in batches.items()}


def moved(logits: Tensor, first: Tensor) -> float:
    """The share of graphs whose logits do not have the bits of those of one copy."""
    return float((logits != first).any(dim=1).double().mean())


@torch.no_grad()
def identities(network: GIN, logits: dict[int, Tensor], batch: Batch) -> dict[str, float]:
    """How far the logits of a sum network are from what they are said to be, all less the bias of the head.

    Those of k copies from k times those of one, and those of one from n times those of the same network with
    a mean; relative to the largest.
    """
    without_bias = {k: found.double() - network.head.bias.double() for k, found in logits.items()}
    means = MeanReadout()(network.nodes(batch), batch.batch, dim_size=batch.num_graphs)
    averaged = network.head(means).double() - network.head.bias.double()
    nodes = batch.ptr.diff().unsqueeze(1)
    apart = [deviation(found, k * without_bias[1]) for k, found in without_bias.items()]
    return dict(zip(IDENTITIES, (max(apart), deviation(nodes * averaged, without_bias[1])), strict=True))


def deviation(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest entry; 0 where all is 0."""
    largest = float(expected.abs().max())
    return float((found - expected).abs().max()) / (largest or 1.0)
