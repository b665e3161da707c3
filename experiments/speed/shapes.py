"""The batches that speed is measured on, and the cases that are made of them.

Features are standard normal. A shape is named graphs x nodes x features. A stream of messages over edges is
a batch too: its targets are the graphs, in no order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from datasets import GraphSet

TRIPLE = ("sum", "mean", "max")
FIVE = (*TRIPLE, "min", "std")
DIRECTIONS = ("forward", "forward+backward")
EPOCH = "epoch"
WIDTH = 64
GIANT = 1_000_000
SMALL = "128x18x64"
MAIN = (SMALL, "1024x25x128", "4096x30x256", "64x20000x64", f"1x{GIANT}x64")
CUDA_GIANT = 4_194_304
CUDA_MAIN = (SMALL, "65536x30x256", "1024x4096x128", f"1x{CUDA_GIANT}x64")
GIANT_DATA = "giant as 1024 graphs"


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
    """A shape by its name, as "128x18x64"."""
    graphs, nodes, features = map(int, name.split("x"))
    return Shape(name, (nodes,) * graphs, features)


def cut(giant: int, graphs: int = 1024) -> Shape:
    """The data of one giant graph, as graphs whose sizes differ by at most one."""
    sizes = tuple(giant * (i + 1) // graphs - giant * i // graphs for i in range(graphs))
    return Shape(GIANT_DATA, sizes, WIDTH)


def skewed(seed: int, tiny: int = 10_000, scale: float = 1) -> Shape:
    """One graph with half of the nodes, next to `tiny` graphs of lognormal sizes."""
    spread = torch.randn(tiny, generator=torch.Generator().manual_seed(seed))
    sizes = (scale * torch.exp(2 + spread)).ceil().long().tolist()
    middle = tiny // 2
    return Shape("skewed", (*sizes[:middle], sum(sizes), *sizes[middle:]), WIDTH)


def edges(count: int, seed: int) -> Shape:
    """Messages over `count` edges to random targets, a tenth as many; some targets have none."""
    targets = torch.randint(count // 10, (count,), generator=torch.Generator().manual_seed(seed))
    return Shape(f"{count:,} edges", tuple(targets.bincount(minlength=count // 10).tolist()), WIDTH)


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
    layout: str = "sorted"
    through: str = "readout"
    timing: str = "eager"

    @property
    def work(self) -> dict[str, object]:
        """The fields of a result row that name the case."""
        return {
            "data": self.shape.name,
            "readout": ", ".join(self.reduce),
            "direction": self.direction,
            "dtype": self.dtype,
            "layout": self.layout,
            "through": self.through,
            "timing": self.timing,
            "graphs": len(self.shape.sizes),
            "nodes": self.shape.nodes,
            "features": self.shape.features,
        }


def both(shape: Shape, **settings: object) -> list[Case]:
    """Forward, and forward with backward."""
    return [Case(shape, direction, **settings) for direction in DIRECTIONS]  # type: ignore[arg-type]


def aggregation(count: int, seed: int) -> list[Case]:
    """The sum over the edges of every node: of messages that are there, and through a convolution."""
    shape = edges(count, seed)
    ways = ("readout", "SimpleConv")
    return [case for way in ways for case in both(shape, reduce=("sum",), layout="shuffled", through=way)]


def plan(quick: bool, cuda: bool, sets: Sequence[GraphSet], seed: int) -> list[Case]:
    """All cases of a run, those with the same data next to each other."""
    main = [even(name) for name in (CUDA_MAIN if cuda else MAIN)]
    reductions = [TRIPLE] if quick else [TRIPLE, *((name,) for name in TRIPLE)]
    cases = [case for shape in main for reduce in reductions for case in both(shape, reduce=reduce)]
    if cuda:
        cases += both(main[0], timing="CUDA graph")
    cases += both(cut(CUDA_GIANT if cuda else GIANT))
    cases += aggregation(100_000, seed)
    cases += [case for graphs in sets for shape in molecules(graphs, seed) for case in both(shape)]
    cases += modules(main[1], main[2])
    return cases if quick else cases + details(main, cuda, seed)


def modules(medium: Shape, large: Shape) -> list[Case]:
    """Readouts beyond sum, mean and max, where PyG has them, too."""
    names = {"median": large, "lower median": medium, "softmax": medium, "attention": medium}
    kinds = [*(((name,), shape) for name, shape in names.items()), (FIVE, large)]
    return [case for kind, shape in kinds for case in both(shape, reduce=kind, through="module")]


def details(main: Sequence[Shape], cuda: bool, seed: int) -> list[Case]:
    """Skewed sizes, short dtypes, shuffled nodes and many edges."""
    _, medium, large, *_ = main
    skew = skewed(seed, scale=20 if cuda else 1)
    cases = [case for layout in ("sorted", "shuffled") for case in both(skew, layout=layout)]
    cases += [case for dtype in ("float16", "bfloat16") for case in both(large, dtype=dtype)]
    cases += [case for shape in (medium, large) for case in both(shape, layout="shuffled")]
    return cases + aggregation(1_000_000, seed)


def memory_plan(cuda: bool) -> list[Case]:
    """The larger shapes, forward and backward."""
    return [Case(even(name), "forward+backward") for name in (CUDA_MAIN[1:] if cuda else MAIN[2:])]


@dataclass(frozen=True)
class Batch:
    """Features and the graph of every node, on a device."""

    x: Tensor
    index: Tensor
    size: int
    shuffled: bool = False

    @cached_property
    def count(self) -> Tensor:
        """Number of nodes of every graph."""
        return self.index.bincount(minlength=self.size)

    @cached_property
    def ptr(self) -> Tensor:
        """Borders of the graphs in `order`."""
        return torch.nn.functional.pad(self.count.cumsum(0), (1, 0))

    @cached_property
    def order(self) -> Tensor:
        """Nodes graph by graph."""
        return self.index.argsort(stable=True)

    @property
    def grouped(self) -> Tensor:
        """Features graph by graph; a copy only where nodes are shuffled."""
        return self.x[self.order] if self.shuffled else self.x


def make(case: Case, seed: int, device: str) -> Batch:
    """Random features of a shape, nodes graph by graph or shuffled."""
    shape = case.shape
    generator = torch.Generator(device).manual_seed(seed)
    dtype = getattr(torch, case.dtype)
    x = torch.randn(shape.nodes, shape.features, dtype=dtype, device=device, generator=generator)
    sizes = torch.tensor(shape.sizes, device=device)
    index = torch.arange(len(sizes), device=device).repeat_interleave(sizes)
    shuffled = case.layout == "shuffled"
    if shuffled:
        index = index[torch.randperm(len(index), device=device, generator=generator)]
    return Batch(x, index, len(sizes), shuffled)


def bytes_moved(case: Case) -> int:
    """What a case has to move: x read once and the outputs written; with the gradient, moreover, x read
    once more if there is a maximum, the outputs' gradient read and the gradient of x written.
    """
    item = torch.empty(0, dtype=getattr(torch, case.dtype)).element_size()
    x = case.shape.nodes * case.shape.features * item
    outputs = len(case.shape.sizes) * case.shape.features * item * len(case.reduce)
    if case.direction == "forward":
        return x + outputs
    return (reads(case) + 1) * x + 2 * outputs


def reads(case: Case) -> int:
    """How often x has to be read: backward needs it for the maximum only."""
    return 2 if case.direction != "forward" and "max" in case.reduce else 1
