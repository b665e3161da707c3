"""GIN, GraphSAGE with means, and GCN, each with any readout (arXiv 1810.00826, 1706.02216, 1609.02907)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from datasets.collisions import View
from experiments.accuracy.products import SparseMatrix
from experiments.accuracy.resident import Batch
from experiments.models import RowLinear
from readouts import nn as ours


@dataclass(frozen=True)
class Kind:
    """A readout of states of some width, and the strongest of sum, mean and max that sees no less."""

    build: Callable[[int], nn.Module]
    view: View


READOUTS = {
    "sum": Kind(lambda width: ours.SumReadout(), "sum"),
    "mean": Kind(lambda width: ours.MeanReadout(), "mean"),
    "max": Kind(lambda width: ours.MaxReadout(), "max"),
    "median": Kind(lambda width: ours.MedianReadout(), "mean"),
    "std": Kind(lambda width: ours.StdReadout(), "mean"),
    "attention": Kind(lambda width: ours.AttentionReadout(nn.Linear(width, 1)), "mean"),
    "sum+mean+max": Kind(lambda width: ours.MultiReadout(["sum", "mean", "max"]), "sum"),
    "size-aware mean": Kind(lambda width: ours.SizeAwareMeanReadout(), "sum"),
}


class Network(nn.Module):
    """Rounds of message passing, a readout, and a head of two layers, for the batches of a `Resident`.

    Two graphs that the readout cannot tell apart get the same logits in evaluation, for the head is made of
    `RowLinear`.
    """

    def __init__(
        self, network: str, readout: str, features: int, classes: int, width: int = 32, rounds: int = 3
    ) -> None:
        """Draw the weights from torch's generator; those of the rounds are drawn first."""
        super().__init__()
        self.rounds = nn.ModuleList(
            ROUNDS[network](before, after) for before, after in pairwise([features] + [width] * rounds)
        )
        self.readout = READOUTS[readout].build(width)
        with torch.no_grad():
            pooled = self.readout(torch.zeros(1, width)).shape[-1]
        self.head = nn.Sequential(RowLinear(pooled, width), nn.ReLU(), RowLinear(width, classes))

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the graphs of a batch, float [B, classes]."""
        x = batch.x
        for layer, matrices in zip(self.rounds, batch.rounds, strict=True):
            x = layer(x, matrices).relu()
        return self.head(self.readout(batch.nodes @ x, batch.graphs))


class GINRound(nn.Module):
    """MLP(x_v + sum_u x_u)."""

    def __init__(self, before: int, after: int) -> None:
        """Draw the weights."""
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(before, after), nn.ReLU(), nn.Linear(after, after))

    def forward(self, x: Tensor, matrices: tuple[SparseMatrix, ...]) -> Tensor:
        """Map the rows of one depth to those of the next."""
        return self.mlp(matrices[0] @ x)


class SAGERound(nn.Module):
    """W x_v + V mean_u x_u + b."""

    def __init__(self, before: int, after: int) -> None:
        """Draw the weights."""
        super().__init__()
        self.own, self.neighbours = nn.Linear(before, after), nn.Linear(before, after, bias=False)

    def forward(self, x: Tensor, matrices: tuple[SparseMatrix, ...]) -> Tensor:
        """Map the rows of one depth to those of the next."""
        own, mean = matrices
        return self.own(own @ x) + self.neighbours(mean @ x)


class GCNRound(nn.Module):
    """W sum_u x_u / sqrt((1 + d_u) (1 + d_v)) + b, where v itself is among the u."""

    def __init__(self, before: int, after: int) -> None:
        """Draw the weights."""
        super().__init__()
        self.linear = nn.Linear(before, after)

    def forward(self, x: Tensor, matrices: tuple[SparseMatrix, ...]) -> Tensor:
        """Map the rows of one depth to those of the next."""
        return self.linear(matrices[0] @ x)


ROUNDS: dict[str, type[nn.Module]] = {"gin": GINRound, "sage": SAGERound, "gcn": GCNRound}
