"""Benchmark inputs: batches of given sizes, dtypes and kinds of data, in sorted or unsorted order.

A shape is named graphs x nodes x features. A stream of messages over edges is a batch too: its targets are
the graphs, in random order, and every target receives one message at least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from datasets import GraphSet

TRIPLE = ("sum", "mean", "max")
ALONE = ("sum", "mean", "max", "min", "var", "std", "median")
WEIGHTED = ("softmax", "attention")
DIRECTIONS = FORWARD, BACKWARD = ("forward", "forward+backward")
EPOCH = "epoch"
SORTED, UNSORTED = "sorted", "unsorted"
NORMAL, RELU, WIDE, WEIGHTS = "normal", "relu", "wide", "softmax weights"
EAGER, GRAPHED = "eager", "CUDA graph"
WIDTH = 64
WIDE_EXPONENT = 40


@dataclass(frozen=True)
class Shape:
    """The sizes of the graphs of a batch, and the number of features."""

    name: str
    sizes: tuple[int, ...]
    features: int

    @property
    def nodes(self) -> int:
        """Number of nodes of all graphs."""
        return sum(self.sizes)


def even(name: str) -> Shape:
    """Parse a shape of graphs of one size, such as "128x18x64"."""
    graphs, nodes, features = map(int, name.split("x"))
    return Shape(name, (nodes,) * graphs, features)


def skewed(seed: int, tiny: int = 10_000, scale: float = 1) -> Shape:
    """One graph with half of the nodes, next to `tiny` graphs of lognormal sizes."""
    spread = torch.randn(tiny, generator=torch.Generator().manual_seed(seed))
    sizes = (scale * torch.exp(2 + spread)).ceil().long().tolist()
    middle = tiny // 2
    return Shape("skewed", (*sizes[:middle], sum(sizes), *sizes[middle:]), WIDTH)


def edges(count: int, targets: int, features: int, seed: int) -> Shape:
    """Messages over `count` edges to random targets, at least one to each."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.randint(targets, (count - targets,), generator=generator)
    sizes = 1 + random.bincount(minlength=targets)
    return Shape(f"{count:,} edges x {features}", tuple(sizes.tolist()), features)


def molecules(graphs: GraphSet, seed: int, batch_size: int = 128) -> Iterator[Shape]:
    """A random batch of a data set, and the whole set as one batch."""
    order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(seed)).tolist()
    sizes = [graphs[position].num_nodes for position in order]
    yield Shape(f"{graphs.name}, {min(batch_size, len(sizes))} graphs", tuple(sizes[:batch_size]), WIDTH)
    yield Shape(f"{graphs.name}, all {len(sizes)}", tuple(sizes), WIDTH)


@dataclass(frozen=True)
class Case:
    """One thing to measure; all contenders of a case run in turns."""

    shape: Shape
    direction: str
    reduce: tuple[str, ...] = TRIPLE
    dtype: str = "float32"
    kind: str = NORMAL
    layout: str = SORTED
    timing: str = EAGER

    @property
    def work(self) -> dict[str, object]:
        """The fields of a result row that name the case."""
        return {
            "data": self.shape.name,
            "readout": ", ".join(self.reduce),
            "direction": self.direction,
            "dtype": self.dtype,
            "kind": self.kind,
            "layout": self.layout,
            "timing": self.timing,
            "graphs": len(self.shape.sizes),
            "nodes": self.shape.nodes,
            "features": self.shape.features,
        }


@dataclass(frozen=True)
class Batch:
    """Features and the graph of every node, on a device."""

    x: Tensor
    index: Tensor
    size: int
    layout: str = SORTED

    @property
    def unsorted(self) -> bool:
        """Whether the nodes of a graph are scattered over the batch."""
        return self.layout == UNSORTED

    @cached_property
    def count(self) -> Tensor:
        """Number of nodes of every graph."""
        return self.index.bincount(minlength=self.size)

    @cached_property
    def ptr(self) -> Tensor:
        """CSR pointer of the graphs in `order`."""
        return torch.nn.functional.pad(self.count.cumsum(0), (1, 0))

    @cached_property
    def order(self) -> Tensor:
        """Positions of the nodes, graph by graph."""
        return self.index.argsort(stable=True)

    @cached_property
    def shuffled(self) -> tuple[Batch, Tensor]:
        """The same batch with its nodes in another order, and that order."""
        generator = torch.Generator(self.x.device).manual_seed(1)
        order = torch.randperm(len(self.index), device=self.x.device, generator=generator)
        return Batch(self.x.detach()[order], self.index[order], self.size, UNSORTED), order


def make_batch(case: Case, seed: int, device: str) -> Batch:
    """Random features of a case, nodes graph by graph or in random order."""
    shape = case.shape
    generator = torch.Generator(device).manual_seed(seed)
    sizes = torch.tensor(shape.sizes, device=device)
    index = torch.arange(len(sizes), device=device).repeat_interleave(sizes)
    x = make_features(case.kind, (shape.nodes, shape.features), sizes, generator)
    if case.layout == UNSORTED:
        order = torch.randperm(len(index), device=device, generator=generator)
        x, index = x[order], index[order]
    return Batch(x.to(getattr(torch, case.dtype)), index, len(sizes), case.layout)


def make_features(kind: str, shape: tuple[int, int], sizes: Tensor, generator: torch.Generator) -> Tensor:
    """Features graph by graph: float32 [N, F]."""
    draw: Callable[..., Tensor] = torch.randn
    x = draw(shape, device=sizes.device, generator=generator)
    if kind == RELU:
        return x.relu_()
    if kind == WIDE:
        exponents = torch.empty_like(x).uniform_(-WIDE_EXPONENT, WIDE_EXPONENT, generator=generator)
        return x.sign() * exponents.exp2()
    if kind == WEIGHTS:
        return torch.cat([part.softmax(0) for part in x.split(sizes.tolist())])
    return x


def bytes_moved(case: Case) -> int:
    """Bytes of x read and outputs written; with the gradient, moreover, x read again, the gradient of the
    outputs read and that of x written.
    """
    item = torch.empty(0, dtype=getattr(torch, case.dtype)).element_size()
    x = case.shape.nodes * case.shape.features * item
    outputs = len(case.shape.sizes) * case.shape.features * item * len(case.reduce)
    return x + outputs if case.direction == FORWARD else 3 * x + 2 * outputs
