"""Everything that a user could take to reduce the nodes of every graph.

A builder gets a batch and the names of the reductions, and returns a function of the features alone, from
[N, F] to [B, R * F]. The borders of the graphs and the nodes' order are handed to those that want them, at no
cost; ours and PyG start from the batch vector and the number of graphs, "ours, Segments" from its `Segments`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import util
from shutil import which

import torch
from torch import Tensor
from torch_geometric.nn import SimpleConv, global_add_pool, global_max_pool, global_mean_pool
from torch_geometric.nn.aggr import MultiAggregation

from experiments.speed.shapes import Batch
from readouts import Segments, readout
from readouts.nn import SumReadout

Call = Callable[[Tensor], Tensor]
Builder = Callable[[Batch, Sequence[str]], Call]

EXACT, FAST, GROUPED, PYG = "ours exact", "ours fast", "ours, Segments", "PyG"
OURS = (EXACT, FAST, GROUPED)
READ, FRESH, WARM, COPY = "plain read", "fresh write", "warm write", "device copy"
YARDSTICKS = (READ, FRESH, WARM, COPY)
LOADER, RESIDENT = "DataLoader", "resident"
POOLS = {"sum": global_add_pool, "mean": global_mean_pool, "max": global_max_pool}


def joined(calls: Sequence[Call]) -> Call:
    """The results of several calls side by side."""
    if len(calls) == 1:
        return calls[0]
    return lambda x: torch.cat([call(x) for call in calls], dim=-1)


def ours(batch: Batch, reduce: Sequence[str], exact: bool = True) -> Call:
    """`readout` of a batch vector."""
    return lambda x: readout(x, batch.index, tuple(reduce), size=batch.size, exact=exact)


def ours_grouped(batch: Batch, reduce: Sequence[str]) -> Call:
    """`readout` of `Segments` that were built before."""
    segments = Segments.from_batch(batch.index, batch.size)
    return lambda x: readout(x, segments, tuple(reduce))


def pyg(batch: Batch, reduce: Sequence[str]) -> Call:
    """PyG's `global_add_pool`, `global_mean_pool` and `global_max_pool`."""
    return joined([lambda x, pool=POOLS[name]: pool(x, batch.index, batch.size) for name in reduce])  # type: ignore[misc]


def multi_aggregation(batch: Batch, reduce: Sequence[str]) -> Call:
    """PyG's `MultiAggregation`."""
    aggregation = MultiAggregation(list(reduce))
    return lambda x: aggregation(x, batch.index, dim_size=batch.size)


@cache
def compiled_pools(reduce: tuple[str, ...]) -> Callable[[Tensor, Tensor, int], Tensor]:
    """`torch.compile` of the calls of PyG, for all sizes; it fails rather than fall back to eager."""

    def pools(x: Tensor, index: Tensor, size: int) -> Tensor:
        return torch.cat([POOLS[name](x, index, size) for name in reduce], dim=-1)

    return torch.compile(pools, dynamic=True, fullgraph=True)


def compiled_pyg(batch: Batch, reduce: Sequence[str]) -> Call:
    """PyG's calls through `torch.compile`, which needs a C++ compiler."""
    call = compiled_pools(tuple(reduce))
    return lambda x: call(x, batch.index, batch.size)


def torch_scatter(batch: Batch, reduce: Sequence[str]) -> Call:
    """`segment_csr` of torch-scatter, and `scatter` where nodes are shuffled."""
    import torch_scatter as package  # type: ignore[import-not-found,unused-ignore]

    def one(name: str, x: Tensor) -> Tensor:
        if batch.shuffled:
            return package.scatter(x, batch.index, dim=0, dim_size=batch.size, reduce=name)
        return package.segment_csr(x, batch.ptr, reduce=name)

    return joined([partial(one, name) for name in reduce])


def pyg_lib(batch: Batch, reduce: Sequence[str]) -> Call:
    """The fused reduction of pyg-lib: on a GPU, without gradient."""
    from pyg_lib.ops import fused_scatter_reduce  # type: ignore[import-not-found,unused-ignore]

    return lambda x: fused_scatter_reduce(x, batch.index, batch.size, list(reduce))


def segment_reduce(batch: Batch, reduce: Sequence[str]) -> Call:
    """`torch.segment_reduce`, of gathered nodes where they are shuffled."""

    def one(name: str, x: Tensor) -> Tensor:
        grouped = x[batch.order] if batch.shuffled else x
        return torch.segment_reduce(grouped, name, offsets=batch.ptr, axis=0)

    return joined([partial(one, name) for name in reduce])


def embedding_bag(batch: Batch, reduce: Sequence[str]) -> Call:
    """`torch.nn.functional.embedding_bag`: a graph is a bag of nodes."""
    bags = batch.ptr[:-1].contiguous()

    def one(name: str, x: Tensor) -> Tensor:
        return torch.nn.functional.embedding_bag(batch.order, x, bags, mode=name)

    return joined([partial(one, name) for name in reduce])


def sparse_mm(batch: Batch, reduce: Sequence[str]) -> Call:
    """`torch.sparse.mm` of the graphs' CSR matrix of ones, or of 1 / n for the mean."""
    ones = torch.ones(len(batch.index), dtype=batch.x.dtype, device=batch.x.device)
    weights = {"sum": ones, "mean": ones / batch.count.repeat_interleave(batch.count)}
    matrices = [membership(batch, weights[name]) for name in reduce]
    return joined([lambda x, matrix=matrix: torch.sparse.mm(matrix, x) for matrix in matrices])  # type: ignore[misc]


def sparse_reduce(batch: Batch, reduce: Sequence[str]) -> Call:
    """`torch.sparse.mm` with a reduction, of the graphs' CSR matrix of ones."""
    matrix = membership(batch, torch.ones(len(batch.index), dtype=batch.x.dtype, device=batch.x.device))
    names = {"sum": "sum", "mean": "mean", "max": "amax"}
    return joined([lambda x, name=names[name]: torch.sparse.mm(matrix, x, name) for name in reduce])  # type: ignore[misc]


def membership(batch: Batch, weights: Tensor) -> Tensor:
    """The CSR matrix [B, N] of which node is in which graph."""
    return torch.sparse_csr_tensor(batch.ptr, batch.order, weights, (batch.size, len(batch.index)))


def index_add(batch: Batch, reduce: Sequence[str]) -> Call:
    """`index_add_`, and `index_reduce_` for the maximum."""
    count = batch.count.clamp(min=1).unsqueeze(1)

    def one(name: str, x: Tensor) -> Tensor:
        out = x.new_zeros(batch.size, x.shape[1])
        if name == "max":
            return out.index_reduce_(0, batch.index, x, "amax", include_self=False)
        out = out.index_add_(0, batch.index, x)
        return out if name == "sum" else out / count.to(x.dtype)

    return joined([partial(one, name) for name in reduce])


def readout_contenders(reduce: Sequence[str], quick: bool) -> dict[str, Builder]:
    """All that can be had here; a quick run leaves the slow ones out.

    Matrix products have no maximum. What puts several reductions together takes part where there are several.
    """
    quick_ones: dict[str, Builder] = {
        EXACT: ours,
        FAST: partial(ours, exact=False),
        GROUPED: ours_grouped,
        PYG: pyg,
        "embedding_bag": embedding_bag,
        "sparse reduce": sparse_reduce,
    }
    if "max" not in reduce:
        quick_ones["sparse.mm"] = sparse_mm
    if quick:
        return quick_ones
    others: dict[str, Builder] = {"segment_reduce": segment_reduce, "index_add_": index_add}
    packages: dict[str, Builder] = {"torch-scatter": torch_scatter, "pyg-lib": pyg_lib}
    others |= {name: one for name, one in packages.items() if util.find_spec(name.replace("-", "_"))}
    if len(reduce) > 1:
        others["MultiAggregation"] = multi_aggregation
        if has_compiler():
            others["compiled PyG"] = compiled_pyg
    return quick_ones | others


def has_compiler() -> bool:
    """Whether torch.compile would find a C++ compiler."""
    return any(which(name) for name in ("c++", "g++", "clang++", "cl"))


def convolution(source: Tensor, batch: Batch, aggr: object) -> Call:
    """A convolution that sums neighbours with this aggregation."""
    layer = SimpleConv(aggr=aggr)
    edge_index = torch.stack([source, batch.index])
    return lambda x: layer(x, edge_index)


def adjacency_product(source: Tensor, batch: Batch, reduce: Sequence[str]) -> Call:
    """`torch.sparse.mm` of the adjacency matrix: no message is ever written."""
    ones = torch.ones(len(source), dtype=batch.x.dtype, device=source.device)
    matrix = torch.sparse_csr_tensor(batch.ptr, source[batch.order], ones, (batch.size, batch.size))
    return lambda x: torch.sparse.mm(matrix, x)


def convolution_contenders(source: Tensor) -> dict[str, Builder]:
    """The same sum over neighbours by our aggregator, by PyG's and as a matrix product."""
    return {
        EXACT: lambda batch, reduce: convolution(source, batch, SumReadout()),
        FAST: lambda batch, reduce: convolution(source, batch, SumReadout(exact=False)),
        PYG: lambda batch, reduce: convolution(source, batch, "sum"),
        "sparse.mm": partial(adjacency_product, source),
    }
