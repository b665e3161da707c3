"""A network of the nodes, an elementary readout, a network of the graphs."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Module
from torch_geometric.nn.inits import reset

from readouts.functional import readout, reduce_names
from readouts.nn.base import Readout, apply
from readouts.segments import Segments


class DeepSetsReadout(Readout):
    """global_nn(sum_i local_nn(x_i)): [N, F] -> [B, F']. Empty graph: global_nn of a row of `empty`.

    With networks wide enough it can learn every continuous function of bounded sets. The sum keeps its bits
    under every order of the nodes; a local network may change a row's last bits with its place, as matrix
    products do.

    Args:
        local_nn: network of the nodes, [N, F] -> [N, H]; None for x itself.
        global_nn: network of the graphs, [B, H] -> [B, F']; None for the sums themselves.
        reduce: ``"sum"``, or another name that `readouts.readout` takes.
        empty: value of the sum of an empty graph.

    Source: Zaheer et al., "Deep sets" (arXiv 1703.06114); on graphs Buterez et al., arXiv 2211.04952.
    """

    def __init__(
        self,
        local_nn: Module | None = None,
        global_nn: Module | None = None,
        reduce: str = "sum",
        *,
        empty: float = 0,
    ) -> None:
        """Set the networks, the readout between them and its value of an empty graph."""
        super().__init__(empty=empty)
        (self.reduce,) = reduce_names((reduce,))
        self.local_nn = local_nn
        self.global_nn = global_nn

    def reset_parameters(self) -> None:
        """Reset the networks."""
        reset(self.local_nn)
        reset(self.global_nn)

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        out = readout(apply(self.local_nn, x, segments), segments, self.reduce, empty=self.empty)
        if self.global_nn is None:
            return out
        return self.global_nn(out)

    def _settings(self) -> list[str]:
        settings = [f"local_nn={self.local_nn}", f"global_nn={self.global_nn}"]
        settings += [] if self.reduce == "sum" else [f"reduce={self.reduce!r}"]
        return [*settings, *super()._settings()]
