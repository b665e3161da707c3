"""Networks with two logits, and how the gradients of both spread over the nodes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch_geometric.data import Batch, Data

from experiments.models import GIN, on_grid
from readouts import Segments
from readouts import readout as pool
from readouts.nn import MaxReadout, MeanReadout, MedianReadout, SoftmaxReadout, SumReadout

READOUTS: dict[str, Callable[[], nn.Module]] = {
    "sum": SumReadout,
    "mean": MeanReadout,
    "softmax": SoftmaxReadout,
    "median": MedianReadout,
    "max": MaxReadout,
}
VECTOR, MAPS = "one vector", "label maps"
SPREAD = ("nodes", "nodes a channel", "gini")
LABELS = ("met", "opposed", "strength", "divided")
LAYERS, WIDTH = 2, 16


class Network(GIN):
    """A GIN with two logits, without a ReLU in front of the readout, or of the head where that makes maps."""

    def __init__(self, features: int, readout: str, head: str) -> None:
        """Draw the weights from torch's generator."""
        super().__init__(features, 2, "mean", WIDTH, LAYERS)
        self.readout = READOUTS[readout]()
        self.maps = head == MAPS

    def nodes(self, data: Data) -> Tensor:
        """Node states, float [N, width], of either sign."""
        x = data.x
        for convolution in self.convolutions[:-1]:
            x = convolution(x, data.edge_index).relu()
        states: Tensor = self.convolutions[-1](x, data.edge_index)
        return states

    def logits(self, states: Tensor, data: Data) -> Tensor:
        """Logits of the two labels, float [B, 2]."""
        read = partial(self.readout, index=data.batch, dim_size=data.num_graphs)
        return read(self.head(states)) if self.maps else self.head(read(states))

    def forward(self, data: Data) -> Tensor:
        """Logits of the two labels of the graphs of a batch, float [B, 2]."""
        return self.logits(self.nodes(data), data)


def losses(logits: Tensor, batch: Batch) -> Tensor:
    """The cross entropy of both labels, [B, 2]; in this form no gradient of a sure answer rounds to 0."""
    return softplus(logits * (1 - 2 * batch.y))


def gradients(network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
    """The gradient of the loss of each label with respect to the node states, each float64 [N, width].

    States and weights of the head are on a grid on which products and sums are exact, so that nodes that are
    alike tie to the bit, and no noise picks a winner.
    """
    network, batch = copy.deepcopy(network).double(), batch.clone()
    batch.x = batch.x.double()
    with torch.no_grad():
        states = on_grid(network.eval().nodes(batch)).requires_grad_()
        network.head.weight.copy_(on_grid(network.head.weight))
    first, second = losses(network.train().logits(states, batch), batch).sum(dim=0)
    (of_first,) = torch.autograd.grad(first, states, retain_graph=True)
    (of_second,) = torch.autograd.grad(second, states)
    return of_first, of_second


def spread(first: Tensor, second: Tensor, batch: Batch) -> dict[str, float]:
    """How two gradients [N, F] spread over the nodes of graphs: the means over the graphs.

    Of the gradient of both labels: "nodes", the share of nodes that have any; "nodes a channel", the share
    that has it in one channel; "gini" of the norms. Of the nodes that either label speaks to: "met", the
    share that both do; "opposed", the share where their cosine is negative. Where they meet: "strength", the
    mean of |cosine|. "divided": the share of graphs where they oppose on some nodes and agree on others.
    """
    graphs = Segments.from_batch(batch.batch, batch.num_graphs)
    count = lambda nodes: pool(nodes.double(), graphs, "sum")  # noqa: E731
    total = first + second
    spoken = (first != 0).any(dim=1), (second != 0).any(dim=1)
    either, both = spoken[0] | spoken[1], spoken[0] & spoken[1]
    cosine = (unit(first) * unit(second)).sum(dim=1) * both
    per_graph = {
        "nodes": count((total != 0).any(dim=1)) / graphs.count,
        "nodes a channel": count((total != 0).double().mean(dim=1)) / graphs.count,
        "gini": gini(total.norm(dim=1), graphs),
        "met": count(both) / count(either).clamp(min=1),
        "opposed": count(cosine < 0) / count(either).clamp(min=1),
        "strength": count(cosine.abs()) / count(both).clamp(min=1),
        "divided": (count(cosine < 0) > 0) & (count(cosine > 0) > 0),
    }
    return {name: values.double().mean().item() for name, values in per_graph.items()}


def unit(gradient: Tensor) -> Tensor:
    """Every row at norm 1, or 0 where it is 0."""
    norm = gradient.norm(dim=1, keepdim=True)
    return gradient / torch.where(norm > 0, norm, 1)


def gini(values: Tensor, graphs: Segments) -> Tensor:
    """The Gini coefficient of the values of every graph of sorted nodes: 0 all equal, 1 one has all; [B]."""
    order = values.argsort()
    order = order[graphs.index[order].argsort(stable=True)]
    rank = torch.arange(1, len(values) + 1, device=values.device) - graphs.ptr[graphs.index]
    weighted, total = pool(torch.stack([rank * values[order], values[order]], dim=1), graphs, "sum").T
    n = graphs.count
    excess = 2 * weighted - (n + 1) * total
    return (excess / (total * (n - 1)).where(total > 0, 1)).clamp(min=0)
