"""Everything that a user could call to reduce the nodes of every graph.

A builder gets a batch and the names of the reductions, and returns a function of the features alone, from
[N, F] to [B, R * F]. Three kinds differ in what they start from:

- *index*: the batch vector and the number of graphs: `readout`, PyG, `index_add_`, `scatter_reduce`;
- *prepared*: offsets, order of the nodes or a CSR matrix, made before the clock starts: `readout` with
  `Segments`, `segment_reduce`, `embedding_bag`, `sparse.mm`;
- *baselines*: what memory allows, see `baselines`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import util

import torch
from torch import Tensor
from torch.nn import Linear
from torch_geometric.nn import aggr, global_add_pool, global_max_pool, global_mean_pool

import readouts
from experiments.speed.cases import Batch
from readouts import Segments, readout
from readouts.nn import AttentionReadout, SoftmaxReadout

Call = Callable[[Tensor], Tensor]
Builder = Callable[[Batch, Sequence[str]], Call]

OURS, GROUPED, PYG, MULTI = "ours", "ours, Segments", "PyG", "MultiAggregation"
OF_US = (OURS, GROUPED)
SEGMENT_REDUCE, EMBEDDING_BAG = "segment_reduce", "embedding_bag"
SPARSE, SPARSE_REDUCE = "sparse.mm", "sparse reduce"
INDEX_ADD, SCATTER_REDUCE = "index_add_", "scatter_reduce"
SCATTER, PYG_LIB = "torch-scatter", "pyg-lib"
LOADER, RESIDENT = "DataLoader", "resident"
FROM_INDEX = (PYG, MULTI, INDEX_ADD, SCATTER_REDUCE, SCATTER, PYG_LIB)
PREPARED = (SEGMENT_REDUCE, EMBEDDING_BAG, SPARSE, SPARSE_REDUCE)
PEERS = (*FROM_INDEX, *PREPARED)
LARGEST_MEDIAN = 2**23  # numbers; PyG sorts all of them twice

AMAX = {"sum": "sum", "mean": "mean", "max": "amax", "min": "amin"}
POOLS = {"sum": global_add_pool, "mean": global_mean_pool, "max": global_max_pool}
AGGREGATIONS = {"min": aggr.MinAggregation, "var": aggr.VarAggregation, "std": aggr.StdAggregation}
AGGREGATIONS |= {"median": aggr.MedianAggregation, "softmax": aggr.SoftmaxAggregation}


def ours(batch: Batch, reduce: Sequence[str]) -> Call:
    """Read out by a batch vector whose number of graphs is known."""
    index, size = batch.index, batch.size
    if reduce[0] == "median":
        return lambda x: readouts.median(x, index, size=size, interpolation="lower")
    if reduce[0] in ("softmax", "attention"):
        module = SoftmaxReadout() if reduce[0] == "softmax" else AttentionReadout(gate_of(batch))
        return lambda x: module(x, index, dim_size=size)
    names = reduce[0] if len(reduce) == 1 else tuple(reduce)
    return lambda x: readout(x, index, names, size=size)


def ours_grouped(batch: Batch, reduce: Sequence[str]) -> Call:
    """Read out by `Segments` that were built before."""
    segments = Segments.from_batch(batch.index, batch.size)
    if reduce[0] == "median":
        return lambda x: readouts.median(x, segments, interpolation="lower")
    if reduce[0] == "softmax":
        return lambda x: readouts.softmax_mean(x, x, segments)
    if reduce[0] == "attention":
        scores = gate_of(batch)
        return lambda x: readouts.softmax_mean(x, scores(x), segments)
    names = reduce[0] if len(reduce) == 1 else tuple(reduce)
    return lambda x: readout(x, segments, names)


def gate_of(batch: Batch) -> Linear:
    """The gate of all attentions on this batch."""
    return gate(batch.x.shape[1], batch.x.dtype, batch.x.device)


@cache
def gate(features: int, dtype: torch.dtype, device: torch.device) -> Linear:
    """A linear gate with frozen weights of size 1 / sqrt(F)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Linear(features, 1).to(device, dtype).requires_grad_(False)


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
    (name,) = reduce
    attention = partial(aggr.AttentionalAggregation, gate_of(batch))
    aggregation = (AGGREGATIONS | {"attention": attention})[name]()
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
    offsets = batch.ptr
    return side_by_side(lambda name, x: torch.segment_reduce(x, name, offsets=offsets, axis=0), reduce)


def embedding_bag(batch: Batch, reduce: Sequence[str]) -> Call:
    """`torch.nn.functional.embedding_bag`: a graph is a bag of nodes, in the order given."""
    order, bags = batch.order, batch.ptr[:-1].contiguous()
    bag = torch.nn.functional.embedding_bag
    return side_by_side(lambda name, x: bag(order, x, bags, mode=name), reduce)


def sparse_mm(batch: Batch, reduce: Sequence[str]) -> Call:
    """`torch.sparse.mm` of the graphs' CSR matrix of ones, or of 1 / n for the mean."""
    ones = torch.ones(len(batch.index), dtype=batch.x.dtype, device=batch.x.device)
    weights = {"sum": ones, "mean": ones / batch.count.repeat_interleave(batch.count)}
    matrices = {name: membership(batch, weights[name]) for name in reduce}
    return side_by_side(lambda name, x: torch.sparse.mm(matrices[name], x), reduce)


def sparse_reduce(batch: Batch, reduce: Sequence[str]) -> Call:
    """`torch.sparse.mm` with a reduction, of the graphs' CSR matrix of ones."""
    matrix = membership(batch, torch.ones(len(batch.index), dtype=batch.x.dtype, device=batch.x.device))
    return side_by_side(lambda name, x: torch.sparse.mm(matrix, x, AMAX[name]), reduce)


def membership(batch: Batch, weights: Tensor) -> Tensor:
    """The CSR matrix [B, N] of which node is in which graph."""
    return torch.sparse_csr_tensor(batch.ptr, batch.order, weights, (batch.size, len(batch.index)))


@dataclass(frozen=True)
class Implementation:
    """A contender: how it is built, which reductions it has, and whether it needs sorted nodes."""

    build: Builder
    reductions: frozenset[str]
    sorted_only: bool = False
    several_only: bool = False
    package: str | None = None

    def takes_part(self, batch: Batch, reduce: Sequence[str]) -> bool:
        """Return whether this contender can be timed on these reductions of a batch."""
        if self.build is pyg and reduce[0] == "median" and batch.x.numel() > LARGEST_MEDIAN:
            return False
        return (
            self.reductions.issuperset(reduce)
            and not (self.sorted_only and batch.unsorted)
            and not (self.several_only and len(reduce) == 1)
            and (self.package is None or util.find_spec(self.package) is not None)
        )


LINEAR = frozenset(("sum", "mean"))
BASIC = LINEAR | {"max", "min"}
SPREAD = BASIC | {"var", "std"}
ALL = SPREAD | {"median", "softmax", "attention"}
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
    return [
        one.package for one in IMPLEMENTATIONS.values() if one.package and not util.find_spec(one.package)
    ]
