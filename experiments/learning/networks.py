"""GIN, GraphSAGE with means, and GCN, each with any readout (arXiv 1810.00826, 1706.02216, 1609.02907).

A network is a stack of `copies`, say one for each learning rate and seed, that are trained at once: their
weights have a first dimension for the copies, and their batch is that many times the same graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from datasets.collisions import View
from experiments.learning.batches import Batch, Round
from experiments.models import on_grid
from readouts import nn as ours


class StackedLinear(nn.Module):
    """A linear layer for each copy: [K * R, in_features] -> [K * R, out_features].

    In evaluation an output row is a function of the bits of its input row alone, as of `RowLinear`.
    """

    def __init__(self, in_features: int, out_features: int, copies: int = 1, bias: bool = True) -> None:
        """Draw the weights of each copy as `nn.Linear` does."""
        super().__init__()
        layers = [nn.Linear(in_features, out_features, bias) for _ in range(copies)]
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers])) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map the rows of every copy by its weights."""
        copies, outputs, _ = self.weight.shape
        rows = x.view(copies, -1, x.shape[-1])
        if self.training:
            weight = self.weight.transpose(1, 2)
            out = rows @ weight if self.bias is None else torch.baddbmm(self.bias[:, None], rows, weight)
        else:
            out = (on_grid(rows) @ on_grid(self.weight).transpose(1, 2)).to(x.dtype)
            out = out if self.bias is None else out + self.bias[:, None]
        return out.reshape(-1, outputs)


class StackedNorm(nn.Module):
    """Batch norm over the nodes of each copy, whose states come as one row for all nodes of a colour."""

    EPSILON, MOMENTUM = 1e-5, 0.1
    mean: Tensor
    variance: Tensor

    def __init__(self, features: int, copies: int = 1) -> None:
        """Begin as `nn.BatchNorm1d` does."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(copies, features))
        self.bias = nn.Parameter(torch.zeros(copies, features))
        self.register_buffer("mean", torch.zeros(copies, features))
        self.register_buffer("variance", torch.ones(copies, features))

    def forward(self, x: Tensor, share: Tensor, nodes: int) -> Tensor:
        """Scale x [K * C, F]; `share` [C] are the shares of the nodes that the rows stand for."""
        copies, features = self.weight.shape
        rows = x.view(copies, -1, features)
        if not self.training:
            scale = (self.variance + self.EPSILON).rsqrt() * self.weight
            return ((rows - self.mean[:, None]) * scale[:, None] + self.bias[:, None]).view_as(x)
        out, mean, variance = _Norm.apply(rows, share, self.weight, self.bias, self.EPSILON)
        with torch.no_grad():
            self.mean.lerp_(mean, self.MOMENTUM)
            self.variance.lerp_(variance * (nodes / max(1, nodes - 1)), self.MOMENTUM)
        result: Tensor = out.view_as(x)
        return result


class _Norm(torch.autograd.Function):
    """y = (x - m) / sqrt(v + e) * weight + bias, with m = sum_c s_c x_c and v = sum_c s_c (x_c - m)^2."""

    @staticmethod
    def forward(
        context: Any, x: Tensor, share: Tensor, weight: Tensor, bias: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean = share @ x
        scaled = x - mean[:, None]
        variance = share @ scaled.square()
        slope = (variance + epsilon).rsqrt()
        scaled *= slope[:, None]
        context.save_for_backward(scaled, share, weight, slope)
        context.mark_non_differentiable(mean, variance)
        return torch.addcmul(bias[:, None], scaled, weight[:, None]), mean, variance

    @staticmethod
    @once_differentiable
    def backward(
        context: Any, gradient: Tensor, *others: Tensor
    ) -> tuple[Tensor, None, Tensor, Tensor, None]:
        scaled, share, weight, slope = context.saved_tensors
        of_weight, of_bias = (gradient * scaled).sum(1), gradient.sum(1)
        through = torch.addcmul(of_bias[:, None], scaled, of_weight[:, None])
        of_x = (gradient - share[:, None] * through) * (slope * weight)[:, None]
        return of_x, None, of_weight, of_bias, None


class GINRound(nn.Module):
    """MLP(x_v + sum_u x_u), with batch norm between the two layers of the MLP."""

    def __init__(self, before: int, after: int, copies: int) -> None:
        """Draw the weights."""
        super().__init__()
        self.first, self.second = (StackedLinear(width, after, copies) for width in (before, after))
        self.norm = StackedNorm(after, copies)

    def forward(self, x: Tensor, read: Round) -> Tensor:
        """Map the rows of one depth to those of the next."""
        (closed,) = read.matrices
        return self.second(self.norm(self.first(closed @ x), read.share, read.nodes).relu())


class SAGERound(nn.Module):
    """W x_v + V mean_u x_u + b."""

    def __init__(self, before: int, after: int, copies: int) -> None:
        """Draw the weights."""
        super().__init__()
        self.own = StackedLinear(before, after, copies)
        self.neighbours = StackedLinear(before, after, copies, bias=False)

    def forward(self, x: Tensor, read: Round) -> Tensor:
        """Map the rows of one depth to those of the next."""
        own, mean = read.matrices
        return self.own(own @ x) + self.neighbours(mean @ x)


class GCNRound(nn.Module):
    """W sum_u x_u / sqrt((1 + d_u) (1 + d_v)) + b, where v itself is among the u."""

    def __init__(self, before: int, after: int, copies: int) -> None:
        """Draw the weights."""
        super().__init__()
        self.linear = StackedLinear(before, after, copies)

    def forward(self, x: Tensor, read: Round) -> Tensor:
        """Map the rows of one depth to those of the next."""
        return self.linear(read.matrices[0] @ x)


ROUNDS: dict[str, type[nn.Module]] = {"gin": GINRound, "sage": SAGERound, "gcn": GCNRound}


@dataclass(frozen=True)
class Kind:
    """A readout of states of some width, and the strongest of sum, mean and max that sees no less."""

    build: Callable[[int, int], nn.Module]
    view: View


READOUTS = {
    "sum": Kind(lambda width, copies: ours.SumReadout(), "sum"),
    "mean": Kind(lambda width, copies: ours.MeanReadout(), "mean"),
    "max": Kind(lambda width, copies: ours.MaxReadout(), "max"),
    "median": Kind(lambda width, copies: ours.MedianReadout(), "mean"),
    "std": Kind(lambda width, copies: ours.StdReadout(), "mean"),
    "attention": Kind(lambda width, copies: ours.AttentionReadout(StackedLinear(width, 1, copies)), "mean"),
    "sum+mean+max": Kind(lambda width, copies: ours.MultiReadout(["sum", "mean", "max"]), "sum"),
    "size-aware mean": Kind(lambda width, copies: ours.SizeAwareMeanReadout(), "sum"),
}


class Network(nn.Module):
    """Rounds of message passing with batch norm, a readout, and a head of two layers.

    Two graphs that the readout cannot tell apart get the same logits in evaluation, for all layers keep the
    bits of equal rows equal.
    """

    def __init__(
        self,
        network: str,
        readout: str,
        features: int,
        outputs: int,
        width: int = 32,
        rounds: int = 3,
        copies: int = 1,
    ) -> None:
        """Draw the weights from torch's generator; those of the rounds are drawn first."""
        super().__init__()
        widths = [features] + [width] * rounds
        self.copies = copies
        self.rounds = nn.ModuleList(
            ROUNDS[network](before, after, copies) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(StackedNorm(width, copies) for _ in range(rounds))
        self.readout = READOUTS[readout].build(widths[-1], copies)
        with torch.no_grad():
            pooled = self.readout(torch.zeros(copies, widths[-1])).shape[-1]
        self.pooled = pooled
        self.head: nn.Module = nn.Sequential(
            StackedLinear(pooled, width, copies), nn.ReLU(), StackedLinear(width, outputs, copies)
        )

    def nodes(self, batch: Batch) -> Tensor:
        """Node states after the last round, float [K * N, width]."""
        x = batch.x
        for layer, norm, read in zip(self.rounds, self.norms, batch.rounds, strict=True):
            x = norm(layer(x, read), read.share, read.nodes).relu()
        return batch.nodes @ x

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the graphs of a batch, float [K, B, outputs]."""
        pooled = self.readout(self.nodes(batch), batch.graphs)
        return self.head(pooled).view(self.copies, len(batch.y), -1)
