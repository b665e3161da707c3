"""Everything that a user could call to reduce the nodes of every graph, and what memory allows.

A builder gets a batch and the names of the reductions, and returns a function of the features alone, from
[N, F] to [B, R * F]. Contenders differ in what they start from: those in `FROM_INDEX` from the batch vector
and the number of graphs, `PREPARED` from offsets, order of the nodes or a CSR matrix, which are made before
the clock starts. Baselines are a plain read; two reads and a write to fresh memory, as a gradient is written,
whose pages the operating system has to find and clear; and on a GPU a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import util

import torch
from torch import Tensor
from torch_geometric.nn import aggr, global_add_pool, global_max_pool, global_mean_pool

import readouts
from experiments.speed.batches import Batch
from experiments.speed.grid import FORWARD, WEIGHTED, Case
from experiments.speed.timing import Thunk
from readouts import Segments, readout
from readouts.nn import AttentionReadout, SoftmaxReadout

Call = Callable[[Tensor], Tensor]
Builder = Callable[[Batch, Sequence[str]], Call]

OURS, GROUPED, PYG, MULTI = "ours", "ours, Segments", "PyG", "MultiAggregation"
SEGMENT_REDUCE, EMBEDDING_BAG = "segment_reduce", "embedding_bag"
SPARSE, SPARSE_REDUCE = "sparse.mm", "sparse reduce"
INDEX_ADD, SCATTER_REDUCE = "index_add_", "scatter_reduce"
SCATTER, PYG_LIB = "torch-scatter", "pyg-lib"
OF_US = (OURS, GROUPED)
FROM_INDEX = (PYG, MULTI, INDEX_ADD, SCATTER_REDUCE, SCATTER, PYG_LIB)
PREPARED = (SEGMENT_REDUCE, EMBEDDING_BAG, SPARSE, SPARSE_REDUCE)
PEERS = (*FROM_INDEX, *PREPARED)
LOADER, RESIDENT = "DataLoader", "resident"
READ, FRESH, COPY = "plain read", "two reads, fresh write", "device copy"
LARGEST_MEDIAN = 2**23  # numbers; PyG sorts all of them twice

AMAX = {"sum": "sum", "mean": "mean", "max": "amax", "min": "amin"}
POOLS = {"sum": global_add_pool, "mean": global_mean_pool, "max": global_max_pool}
AGGREGATIONS = {"min": aggr.MinAggregation, "var": aggr.VarAggregation, "std": aggr.StdAggregation}
AGGREGATIONS |= {"median": aggr.MedianAggregation, "softmax": aggr.SoftmaxAggregation}
AGGREGATIONS |= {"attention": aggr.AttentionalAggregation}


def ours(batch: Batch, reduce: Sequence[str]) -> Call:
    """Read out by a batch vector whose number of graphs is known."""
    index, size = batch.index, batch.size
    if reduce[0] in WEIGHTED:
        module = SoftmaxReadout() if reduce[0] == "softmax" else AttentionReadout(batch.gate)
        return lambda x: module(x, index, dim_size=size)
    if reduce[0] == "median":
        return lambda x: readouts.median(x, index, size=size, interpolation="lower")
    names = reduce[0] if len(reduce) == 1 else tuple(reduce)
    return lambda x: readout(x, index, names, size=size)


def ours_grouped(batch: Batch, reduce: Sequence[str]) -> Call:
    """Read out by `Segments` that were built before."""
    segments = Segments.from_batch(batch.index, batch.size)
    if reduce[0] == "softmax":
        return lambda x: readouts.softmax_mean(x, x, segments)
    if reduce[0] == "attention":
        gate = batch.gate
        return lambda x: readouts.softmax_mean(x, gate(x), segments)
    if reduce[0] == "median":
        return lambda x: readouts.median(x, segments, interpolation="lower")
    names = reduce[0] if len(reduce) == 1 else tuple(reduce)
    return lambda x: readout(x, segments, names)


def side_by_side(one: Callable[[str, Tensor], Tensor], reduce: Sequence[str]) -> Call:
    """Concatenate the results of several reductions."""
    if len(reduce) == 1:
        return partial(one, reduce[0])
    return lambda x: torch.cat([one(name, x) for name in reduce], dim=-1)


def pyg(batch: Batch, reduce: Sequence[str]) -> Call:
    """PyG's `global_*_pool`, and its aggregations where it has no such function."""
    index, size = batch.index, batch.size
    if set(reduce) <= set(POOLS):
        return side_by_side(lambda name, x: POOLS[name](x, index, size), reduce)
    arguments = [batch.gate] if reduce[0] == "attention" else []
    aggregation = AGGREGATIONS[reduce[0]](*arguments)
    return lambda x: aggregation(x, index, dim_size=size)


def multi_aggregation(batch: Batch, reduce: Sequence[str]) -> Call:
    """PyG's `MultiAggregation`."""
    aggregation = aggr.MultiAggregation(list(reduce))
    return lambda x: aggregation(x, batch.index, dim_size=batch.size)


def index_add(batch: Batch, reduce: Sequence[str]) -> Call:
    """`index_add_`, `index_reduce_` for extremes, and two passes for var and std."""
    index = batch.index
    count = batch.count.clamp(min=1).unsqueeze(1).to(batch.x.dtype)
    tiny = torch.finfo(batch.x.dtype).tiny  # the slope of a root at 0 is infinite

    def total(x: Tensor) -> Tensor:
        return x.new_zeros(batch.size, x.shape[1]).index_add_(0, index, x)

    def one(name: str, x: Tensor) -> Tensor:
        if name in ("max", "min"):
            zeros = x.new_zeros(batch.size, x.shape[1])
            return zeros.index_reduce_(0, index, x, AMAX[name], include_self=False)
        if name in ("sum", "mean"):
            return total(x) if name == "sum" else total(x) / count
        variance = total((x - (total(x) / count)[index]).square()) / count
        return variance if name == "var" else variance.clamp(min=tiny).sqrt()

    return side_by_side(one, reduce)


def scatter_reduce(batch: Batch, reduce: Sequence[str]) -> Call:
    """`scatter_reduce` over an expanded index."""
    index = batch.index.unsqueeze(1).expand(-1, batch.x.shape[1])

    def one(name: str, x: Tensor) -> Tensor:
        zeros = x.new_zeros(batch.size, x.shape[1])
        return zeros.scatter_reduce(0, index, x, AMAX[name], include_self=False)

    return side_by_side(one, reduce)


def torch_scatter(batch: Batch, reduce: Sequence[str]) -> Call:
    """`segment_csr` of torch-scatter, and `scatter` where nodes are unsorted."""
    import torch_scatter as package  # type: ignore[import-not-found,unused-ignore]

    def one(name: str, x: Tensor) -> Tensor:
        if batch.unsorted:
            return package.scatter(x, batch.index, dim=0, dim_size=batch.size, reduce=name)
        return package.segment_csr(x, batch.ptr, reduce=name)

    return side_by_side(one, reduce)


def pyg_lib(batch: Batch, reduce: Sequence[str]) -> Call:
    """The fused reduction of pyg-lib: on a GPU, without gradient."""
    from pyg_lib.ops import fused_scatter_reduce  # type: ignore[import-not-found,unused-ignore]

    return lambda x: fused_scatter_reduce(x, batch.index, batch.size, list(reduce))


def segment_reduce(batch: Batch, reduce: Sequence[str]) -> Call:
    """`torch.segment_reduce` of sorted nodes by offsets."""
    return side_by_side(lambda name, x: torch.segment_reduce(x, name, offsets=batch.ptr, axis=0), reduce)


def embedding_bag(batch: Batch, reduce: Sequence[str]) -> Call:
    """`torch.nn.functional.embedding_bag`: a graph is a bag of nodes, in the order given."""
    order, bags = batch.order, batch.ptr[:-1].contiguous()
    bag = torch.nn.functional.embedding_bag
    return side_by_side(lambda name, x: bag(order, x, bags, mode=name), reduce)


def sparse_mm(batch: Batch, reduce: Sequence[str]) -> Call:
    """`torch.sparse.mm` of the graphs' CSR matrix of ones, or of 1 / n for the mean."""
    matrix = {"sum": membership(batch), "mean": membership(batch, batch.count.repeat_interleave(batch.count))}
    return side_by_side(lambda name, x: torch.sparse.mm(matrix[name], x), reduce)


def sparse_reduce(batch: Batch, reduce: Sequence[str]) -> Call:
    """`torch.sparse.mm` with a reduction, of the graphs' CSR matrix of ones."""
    matrix = membership(batch)
    return side_by_side(lambda name, x: torch.sparse.mm(matrix, x, AMAX[name]), reduce)


def membership(batch: Batch, divisor: Tensor | int = 1) -> Tensor:
    """The CSR matrix [B, N] of which node is in which graph, divided."""
    weights = torch.ones(len(batch.index), dtype=batch.x.dtype, device=batch.x.device) / divisor
    return torch.sparse_csr_tensor(batch.ptr, batch.order, weights, (batch.size, len(batch.index)))


@dataclass(frozen=True)
class Implementation:
    """A contender: how it is built, which reductions it has, and whether it needs sorted nodes."""

    build: Builder
    reductions: frozenset[str]
    sorted_only: bool = False
    several_only: bool = False
    package: str | None = None

    @property
    def installed(self) -> bool:
        """Whether the package that it is from is here."""
        return self.package is None or util.find_spec(self.package) is not None

    def takes_part(self, batch: Batch, reduce: Sequence[str]) -> bool:
        """Return whether this contender can be timed on these reductions of a batch."""
        return (
            self.installed
            and self.reductions.issuperset(reduce)
            and not (self.sorted_only and batch.unsorted)
            and not (self.several_only and len(reduce) == 1)
            and not (self.build is pyg and reduce[0] == "median" and batch.x.numel() > LARGEST_MEDIAN)
        )


LINEAR = frozenset(("sum", "mean"))
BASIC = LINEAR | {"max", "min"}
SPREAD = BASIC | {"var", "std"}
ALL = SPREAD | {"median", *WEIGHTED}
IMPLEMENTATIONS: Mapping[str, Implementation] = {
    OURS: Implementation(ours, ALL),
    GROUPED: Implementation(ours_grouped, ALL),
    PYG: Implementation(pyg, ALL),
    MULTI: Implementation(multi_aggregation, SPREAD, several_only=True),
    INDEX_ADD: Implementation(index_add, SPREAD),
    SCATTER_REDUCE: Implementation(scatter_reduce, BASIC),
    SEGMENT_REDUCE: Implementation(segment_reduce, BASIC, sorted_only=True),
    EMBEDDING_BAG: Implementation(embedding_bag, LINEAR | {"max"}),
    SPARSE: Implementation(sparse_mm, LINEAR),
    SPARSE_REDUCE: Implementation(sparse_reduce, BASIC),
    SCATTER: Implementation(torch_scatter, BASIC, package="torch_scatter"),
    PYG_LIB: Implementation(pyg_lib, BASIC, package="pyg_lib"),
}


def contenders(batch: Batch, reduce: Sequence[str]) -> dict[str, Builder]:
    """All implementations that can be had here, by name."""
    return {name: one.build for name, one in IMPLEMENTATIONS.items() if one.takes_part(batch, reduce)}


def missing_packages() -> list[str]:
    """Optional packages that are not installed here."""
    return [str(one.package) for one in IMPLEMENTATIONS.values() if not one.installed]


def baselines(case: Case, x: Tensor) -> dict[str, Thunk]:
    """What memory allows in a case."""
    x = x.detach()
    found: dict[str, Thunk] = {READ: x.sum}
    if case.direction != FORWARD:
        found[FRESH] = lambda: (x.sum(), x.sum(), torch.empty_like(x).fill_(1))
    if x.is_cuda:
        found[COPY] = partial(torch.empty_like(x).copy_, x)
    return found
