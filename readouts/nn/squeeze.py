"""Squeeze and excitation: channels rescaled by what a readout sees of the whole graph."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Linear, Module
from torch_geometric.nn.aggr import Aggregation
from torch_geometric.nn.inits import reset

from readouts.functional import segments_of
from readouts.nn.base import call
from readouts.nn.multi import readout_resolver
from readouts.segments import Segments
from readouts.weighted import check_features, expand


class SqueezeExcitation(Module):
    """x_i * sigmoid(W_2 relu(W_1 z + b_1) + b_2), z the readout of the graph of i: [N, F] -> [N, F].

    It stands between convolutions and lets a node know its whole graph. Matrix products run over graphs only,
    so permuting the nodes permutes the result and its gradients, bit for bit. Nothing is made of an empty
    graph. The result has the dtype of x and the layers.

    Args:
        channels: F.
        reduction: the gate has max(1, F // reduction) hidden units.
        squeeze: a readout or its name, see `readout_resolver`.
        squeeze_channels: width of the readout's output; None for F.

    Raises:
        ValueError: `reduction` is below 1, or there is no readout of that name.

    Source: Hu et al., "Squeeze-and-excitation networks" (arXiv 1709.01507).
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 4,
        squeeze: str | Aggregation = "mean",
        squeeze_channels: int | None = None,
    ) -> None:
        """Set the sizes and the readout."""
        super().__init__()
        if reduction < 1:
            raise ValueError(f"reduction: expected at least 1, got {reduction}")
        hidden = max(1, channels // reduction)
        self.channels, self.reduction = channels, reduction
        self.squeeze = readout_resolver(squeeze)
        self.lin1 = Linear(channels if squeeze_channels is None else squeeze_channels, hidden)
        self.lin2 = Linear(hidden, channels)

    def reset_parameters(self) -> None:
        """Reset the readout and the gate."""
        for layer in self.children():
            reset(layer)

    def forward(
        self, x: Tensor, batch: Tensor | Segments | None = None, batch_size: int | None = None
    ) -> Tensor:
        """Rescale the channels of x.

        Args:
            x: node features [N, F].
            batch: graph of every node, int64 or int32 [N], in any order, `Segments`, or None for one graph.
            batch_size: number of graphs B.
        """
        check_features(x, self.channels)
        segments = segments_of(x, batch, None, batch_size)
        squeezed = call(self.squeeze, x, segments)
        return x * expand(self.lin2(self.lin1(squeezed).relu()).sigmoid(), segments)

    def __repr__(self) -> str:
        return f"SqueezeExcitation({self.channels}, reduction={self.reduction}, squeeze={self.squeeze})"
