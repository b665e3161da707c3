"""`DistributedReadout`: the modules of `readouts.nn` for nodes that are spread over many processes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import Module
from torch_geometric.nn.aggr import Aggregation
from torch_geometric.nn.inits import reset

from readouts.distributed.shard import agree_on_call
from readouts.functional.checks import check_x
from readouts.keywords import explain_keywords
from readouts.nn import MultiReadout, WeightedMeanReadout, readout_resolver
from readouts.nn.base import Readout
from readouts.segments import Segments


class DistributedReadout(Module):
    """A readout of graphs whose nodes are spread over the ranks of a process group: [N, F] -> [B, F'].

    Example:
        >>> x, batch = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1])  # the nodes of this rank
        >>> DistributedReadout(["mean", "max"])(x, batch, dim_size=2)  # on every rank
        tensor([[1.5000, 2.0000],
                [4.0000, 4.0000]])

    Every rank passes its own nodes and gets the value of the readout over all nodes. Networks inside the
    readout, such as gates, are applied to the nodes of each rank and must process every node independently.
    Backward sends two messages for every value of graphs that is expanded to nodes, such as the learned
    number of `SoftmaxReadout`; otherwise none.

    Args:
        reduce: a name that `readouts.nn.readout_resolver` accepts, a readout, or several of them. All
            readouts of `readouts.nn` are supported except `SortReadout` and `PartialReadout`.
        group: process group; None for the default one.
        ddp: whether networks before and inside the readout are under DistributedDataParallel; see
            `readouts.distributed.readout`.

    Raises:
        ValueError: the readout is not supported, or is a weighted mean without a gate.
    """

    @explain_keywords
    def __init__(
        self,
        reduce: str | Aggregation | Sequence[str | Aggregation],
        group: ProcessGroup | None = None,
        *,
        ddp: bool = False,
    ) -> None:
        """Set the readout, the process group, and whether DistributedDataParallel averages gradients."""
        super().__init__()
        self.readout = MultiReadout(reduce) if isinstance(reduce, list | tuple) else readout_resolver(reduce)
        self.group, self.ddp = group, ddp
        for module in _members(self.readout):
            reason = module.undistributed if isinstance(module, Readout) else "it is none of `readouts.nn`"
            if reason:
                raise ValueError(
                    f"reduce: expected a readout that can be distributed, got {module}: {reason}"
                )
            if isinstance(module, WeightedMeanReadout) and module.gate is None:
                raise ValueError(f"reduce: expected a weighted mean with a gate, got {module}")

    def reset_parameters(self) -> None:
        """Reset the readout."""
        reset(self.readout)

    @explain_keywords
    def forward(
        self,
        x: Tensor,
        index: Tensor | Segments | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
    ) -> Tensor:
        """Read out the nodes of all ranks.

        Args:
            x: features of the nodes of this rank [N, ...].
            index: graph of every node of this rank, int64 or int32 [N], or `Segments`.
            ptr: offsets of sorted graphs (CSR pointer) [B + 1]; ignored if `index` is given.
            dim_size: number of graphs B, the same on all ranks; None on all ranks for the maximum over ranks.
        """

        def check() -> str:
            check_x(x)
            return repr(self.readout)

        ptr = ptr if index is None else None
        shard = agree_on_call(
            check, (x,), index, ptr, dim_size, self.group, self.ddp, tuple(self.parameters())
        )
        return self.readout(x, shard, dim=0)

    def __repr__(self) -> str:
        """Show the readout."""
        return f"DistributedReadout({self.readout}{', ddp=True' if self.ddp else ''})"


def _members(readout: Aggregation) -> list[Aggregation]:
    """Return the readouts that a `MultiReadout` contains, recursively; any other readout alone."""
    if isinstance(readout, MultiReadout):
        return [inner for member in readout.readouts for inner in _members(member)]
    return [readout]
