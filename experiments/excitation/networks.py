"""A GIN with and without gates, how it is trained, and its gates.

All networks have the same weights to begin with, but for the gates, and see the same batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from datasets.collisions import View
from experiments.accuracy.training import Training
from experiments.models import GIN, RowLinear
from readouts.nn import SqueezeExcitation

NONE = "none"
SQUEEZES = ("mean", "max", "sum")
VIEWS: dict[str, View] = {NONE: "mean", "mean": "mean", "max": "mean", "sum": "sum"}  # what a network sees
SHAPE = READOUT, WIDTH, ROUNDS = "mean", 32, 3
REDUCTION = 4
LEARNING_RATE, BATCH_SIZE, REDRAW = 0.005, 128, 10


class Gated(GIN):
    """A GIN with a gate between any two convolutions."""

    def __init__(self, features: int, classes: int, squeeze: str) -> None:
        """Draw the weights, those of the gates last."""
        super().__init__(features, classes, *SHAPE)
        self.gates = nn.ModuleList(new_gate(squeeze) for _ in range(ROUNDS - 1))

    def nodes(self, data: Data) -> Tensor:
        """Node states after the last round, float [N, width]."""
        first, *others = self.convolutions
        x = first(data.x, data.edge_index).relu()
        for gate, convolution in zip(self.gates, others, strict=True):
            x = convolution(gate(x, data.batch, data.num_graphs), data.edge_index).relu()
        return x


def new_gate(squeeze: str) -> SqueezeExcitation:
    """A gate in which graphs that the squeeze cannot tell apart get the same bits, see `RowLinear`."""
    gate = SqueezeExcitation(WIDTH, REDUCTION, squeeze)
    for name in ("lin1", "lin2"):
        layer = getattr(gate, name)
        setattr(gate, name, RowLinear(layer.in_features, layer.out_features))
    return gate


def trained(graphs: Sequence[Data], classes: int, squeeze: str, device: str, seed: int, epochs: int) -> GIN:
    """A network after so many epochs; after none, as it was drawn.

    Batches are drawn anew in every `REDRAW`-th epoch. Raises `FloatingPointError` where weights overflow.
    """
    torch.manual_seed(seed)
    features = graphs[0].x.shape[1]
    network: GIN = Gated(features, classes, squeeze) if squeeze != NONE else GIN(features, classes, *SHAPE)
    network.to(device)
    training = Training(network, LEARNING_RATE)
    generator = torch.Generator().manual_seed(seed)
    pieces = -(-len(graphs) // BATCH_SIZE)
    batches: list[Batch] = []
    for epoch in range(epochs):
        if epoch % REDRAW == 0:
            order = torch.randperm(len(graphs), generator=generator)
            batches = [
                together([graphs[place] for place in piece], device) for piece in order.tensor_split(pieces)
            ]
        for batch in batches:
            training.step(batch)
    if not training.values.isfinite().all():
        raise FloatingPointError(f"squeeze by {squeeze}: weights are not finite after {epochs} epochs")
    return network.eval()


def together(graphs: Sequence[Data], device: str | torch.device) -> Batch:
    """A batch on a device."""
    return Batch.from_data_list(list(graphs)).to(device)


@torch.no_grad()
def run(network: GIN, graphs: Sequence[Data]) -> tuple[Tensor, Tensor]:
    """The class each graph is taken for, int64 [B], and the gates, float64 [blocks, B, width]; on the CPU."""
    seen: list[Tensor] = []
    last = [gate.get_submodule("lin2") for gate in network.gates] if isinstance(network, Gated) else []

    def see(layer: nn.Module, given: Any, out: Tensor) -> None:
        seen.append(out.sigmoid())

    hooks = [layer.register_forward_hook(see) for layer in last]
    try:
        answers = network(together(graphs, network.head.weight.device)).argmax(dim=1)
    finally:
        for hook in hooks:
            hook.remove()
    gates = torch.stack(seen) if seen else torch.empty(0, len(graphs), WIDTH)
    return answers.cpu(), gates.double().cpu()
