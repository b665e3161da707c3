"""One network with the heads to compare, and graphs with their nodes in another order."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.utils import to_dense_batch

from experiments.models import GIN, RowLinear

FLATTEN, DROPOUT, SHUFFLED = "flatten", "flatten + dropout", "flatten + shuffles"
FLAT = (FLATTEN, DROPOUT, SHUFFLED)
POOLED = ("sum", "mean", "max")
HEADS = (*FLAT, *POOLED)
LAYERS, WIDTH, DROPPED = 2, 16, 0.5


class Flatten(nn.Module):
    """Node states in their order, padded with zeros to `largest`, and dropout: [N, F] -> [B, largest F]."""

    def __init__(self, largest: int, dropped: float) -> None:
        """Set the number of places, and the share of entries dropped in training."""
        super().__init__()
        self.largest = largest
        self.dropout = nn.Dropout(dropped)

    def forward(self, x: Tensor, index: Tensor, dim_size: int) -> Tensor:
        """Lay out the nodes of sorted graphs."""
        padded, _ = to_dense_batch(x, index, max_num_nodes=self.largest, batch_size=dim_size)
        flat: Tensor = self.dropout(padded.flatten(1))
        return flat


def build(head: str, features: int, classes: int, largest: int) -> GIN:
    """A GIN with a linear layer behind a readout, or behind all node states; the rounds are drawn first."""
    network = GIN(features, classes, "mean" if head in FLAT else head, WIDTH, LAYERS)
    if head in FLAT:
        network.readout = Flatten(largest, DROPPED if head == DROPOUT else 0)
        network.head = RowLinear(largest * WIDTH, classes)
    return network


def parameters(network: GIN) -> int:
    """How many parameters the head has."""
    return sum(weight.numel() for weight in network.head.parameters())


def shuffled(batch: Batch, generator: torch.Generator) -> Batch:
    """The same graphs with the nodes of each in a random order."""
    noise = torch.rand(len(batch.batch), generator=generator, dtype=torch.float64).to(batch.x.device)
    order = (batch.batch + noise).argsort()
    result = batch.clone()
    result.x = batch.x[order]
    result.edge_index = order.argsort()[batch.edge_index]
    return result
