"""`DistributedReadout`: readouts of `readouts.nn` for nodes of many processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import Module
from torch_geometric.nn.aggr import Aggregation
from torch_geometric.nn.inits import reset

from readouts.distributed import average, elementary, order
from readouts.distributed.shard import Shard, meet
from readouts.functional import check_x
from readouts.nn import (
    AttentionReadout,
    DeepSetsReadout,
    LogSumExpReadout,
    MaxReadout,
    MeanReadout,
    MedianReadout,
    MinReadout,
    MultiReadout,
    QuantileReadout,
    SizeAwareMeanReadout,
    SoftmaxReadout,
    StdReadout,
    SumReadout,
    TrimmedMeanReadout,
    VarReadout,
    WeightedMeanReadout,
    readout_resolver,
)
from readouts.nn.base import apply
from readouts.segments import Segments
from readouts.weighted import check_features, computed, fill_empty, per_graph, rounded

ELEMENTARY = (SumReadout, MeanReadout, MaxReadout, MinReadout, VarReadout, StdReadout)
SUPPORTED = (
    *ELEMENTARY,
    MedianReadout,
    QuantileReadout,
    TrimmedMeanReadout,
    SoftmaxReadout,
    LogSumExpReadout,
    WeightedMeanReadout,
    AttentionReadout,
    DeepSetsReadout,
    SizeAwareMeanReadout,
    MultiReadout,
)


class DistributedReadout(Module):
    """A readout of graphs whose nodes are spread over the ranks of a process group: [N, F] -> [B, F'].

    Every rank gives its own nodes, and gets the value that the readout has of all of them. Networks inside,
    such as gates, are applied to the nodes of each rank: they have to treat every node by itself. A learned
    number, as of `SoftmaxReadout`, makes backward send two messages; nothing else does.

    Args:
        reduce: a name that `readouts.nn.readout_resolver` takes, a readout, or several of them.
        group: process group; None for the default one.
        ddp: whether networks before and inside the readout are under DistributedDataParallel; see
            `readouts.distributed.readout`.

    Raises:
        ValueError: the readout has no distributed form, or is a weighted mean without a gate.
    """

    def __init__(
        self,
        reduce: str | Aggregation | Sequence[str | Aggregation],
        group: ProcessGroup | None = None,
        *,
        ddp: bool = False,
    ) -> None:
        """Set the readout, the processes, and who adds up gradients of parameters."""
        super().__init__()
        self.readout = MultiReadout(reduce) if isinstance(reduce, list | tuple) else readout_resolver(reduce)
        self.group, self.ddp = group, ddp
        for module in _members(self.readout):
            if not isinstance(module, SUPPORTED):
                names = ", ".join(kind.__name__ for kind in SUPPORTED)
                raise ValueError(f"reduce: expected one of {names}, got {module}")
            if isinstance(module, WeightedMeanReadout) and module.gate is None:
                raise ValueError(f"reduce: expected a weighted mean with a gate, got {module}")

    def reset_parameters(self) -> None:
        """Reset the readout."""
        reset(self.readout)

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
            ptr: offsets of sorted graphs [B + 1]; not needed where `index` is given.
            dim_size: number of graphs B, the same on all ranks; None for the greatest that any rank sees.
        """

        def check() -> str:
            check_x(x)
            return repr(self.readout)

        ptr = ptr if index is None else None
        shard = meet(check, (x,), index, ptr, dim_size, self.group, self.ddp, tuple(self.parameters()))
        return _read(self.readout, x, shard)

    def __repr__(self) -> str:
        """Show the readout."""
        return f"DistributedReadout({self.readout}{', ddp=True' if self.ddp else ''})"


def _members(readout: Aggregation) -> list[Aggregation]:
    """Return a readout, or the readouts that stand side by side in it."""
    if isinstance(readout, MultiReadout):
        return [inner for member in readout.readouts for inner in _members(member)]
    return [readout]


def _read(module: Aggregation, x: Tensor, shard: Shard) -> Tensor:
    """Return what the readout has of the nodes of all ranks; their gradients are scaled where sums begin."""
    segments, empty = shard.segments, module.empty
    match module:
        case MultiReadout():
            return _side_by_side(module, x, shard)
        case AttentionReadout():
            scores = shard.enter(apply(module.gate_nn, x, segments))
            return average.softmax_mean(shard.enter(apply(module.nn, x, segments)), scores, shard, empty)
        case WeightedMeanReadout():
            weight = shard.enter(apply(module.gate, x, segments))
            return average.weighted_mean(shard.enter(x), weight, shard, empty)
        case DeepSetsReadout():
            nodes = shard.enter(apply(module.local_nn, x, segments))
            out = elementary.read(nodes, shard, module.reduce, empty)
            return out if module.global_nn is None else module.global_nn(out)
    x = shard.enter(x)
    match module:
        case MedianReadout():
            return order.median(x, shard, module.interpolation, empty)
        case QuantileReadout():
            q = module.logit.sigmoid() if module.learnable else module.q
            return order.quantile(x, shard, q, module.interpolation, empty)
        case TrimmedMeanReadout():
            return order.trimmed_mean(x, shard, module.proportion, empty)
        case LogSumExpReadout():
            return average.logsumexp(x, shard, empty)
        case SoftmaxReadout():
            t: Tensor | float = module.number_for(x)
            t = shard.expand(per_graph(t, x, segments)) if isinstance(t, Tensor) else t
            return average.softmax_mean(x, computed(x) * t, shard, empty)
        case SizeAwareMeanReadout():
            return _with_size(x, shard, empty)
    return elementary.read(x, shard, module.reduce, empty)


def _side_by_side(module: MultiReadout, x: Tensor, shard: Shard) -> Tensor:
    """Read out every member; sums, means and extremes with one value of empty graphs together."""
    members: list[Any] = list(module.readouts)
    parts: dict[int, Tensor] = {}
    fused: dict[float, list[int]] = {}
    for place, member in enumerate(members):
        if type(member) in ELEMENTARY:
            fused.setdefault(member.empty, []).append(place)
    for empty, places in fused.items():
        out = elementary.read(shard.enter(x), shard, [members[place].reduce for place in places], empty)
        parts.update(zip(places, out.chunk(len(places), dim=-1), strict=True))
    for place, member in enumerate(members):
        if place not in parts:
            parts[place] = _read(member, x, shard)
    return torch.cat([parts[place] for place in range(len(members))], dim=-1)


def _with_size(x: Tensor, shard: Shard, empty: float) -> Tensor:
    """Return the means, and the logarithm of the number of nodes beside them."""
    check_features(x)
    mean = computed(elementary.read(x, shard, "mean"))
    size = shard.count.clamp(min=1).to(mean.dtype).log()
    column = size.view(-1, *[1] * (x.dim() - 1)).expand(*mean.shape[:-1], 1)
    return rounded(fill_empty(torch.cat([mean, column], dim=-1), shard.everywhere, empty), x)
