"""What speed is measured on: reductions of batches of given sizes, dtypes and kinds of data.

A shape is named graphs x nodes x features. A stream of messages over edges is a batch too: its targets are
the graphs, in random order, and every target receives one message at least.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from datasets import GraphSet

TRIPLE = ("sum", "mean", "max")
ALONE = (*TRIPLE, "min", "var", "std", "median")
WEIGHTED = ("softmax", "attention")
DIRECTIONS = FORWARD, BACKWARD = ("forward", "forward+backward")
EPOCH = "epoch"
SORTED, UNSORTED = "sorted", "unsorted"
NORMAL, RELU, WIDE, WEIGHTS = "normal", "relu", "wide", "softmax weights"
EAGER, GRAPHED = "eager", "CUDA graph"
OTHER_DTYPES = ("float64", "bfloat16", "float16")

SMALL = ("8x18x16", "32x18x64", "128x18x64")
MEDIUM = ("128x18x256", "512x25x64", "1024x25x128")
LARGE = ("4096x30x256",)
HUGE = ("64x20000x64", "1x1000000x64")
EDGES = ((5_000, 2_300), (40_000, 17_400), (1_200_000, 170_000))  # messages and their targets
WIDTHS = (64, 256)
TYPICAL = ("128x18x64", "1024x25x128")  # other dtypes and kinds of data
CUDA_SHAPES = ("128x18x64", "65536x30x256", "1024x4096x128", "1x4194304x64")

Reductions = Sequence[tuple[str, ...]]
EVERY: Reductions = (*((name,) for name in ALONE), TRIPLE)
MOST: Reductions = (("sum",), ("max",), ("std",), ("median",), TRIPLE)
FEW: Reductions = (("sum",), ("max",), TRIPLE)
SUMS: Reductions = (("sum",), TRIPLE)
SOFTMAX: Reductions = tuple((name,) for name in WEIGHTED)


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
    return Shape("skewed", (*sizes[:middle], sum(sizes), *sizes[middle:]), WIDTHS[0])


def edges(count: int, targets: int, features: int, seed: int) -> Shape:
    """Messages over `count` edges to random targets, at least one to each."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.randint(targets, (count - targets,), generator=generator)
    sizes = 1 + random.bincount(minlength=targets)
    return Shape(f"{count:,} edges x {features}", tuple(sizes.tolist()), features)


def molecules(graphs: GraphSet, seed: int, batch_size: int = 128) -> list[Shape]:
    """A random batch of a data set, and the whole set as one batch."""
    order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(seed)).tolist()
    sizes = tuple(graphs[position].num_nodes for position in order)
    parts = {f"{min(batch_size, len(sizes))} graphs": sizes[:batch_size], f"all {len(sizes)}": sizes}
    return [Shape(f"{graphs.name}, {part}", taken, WIDTHS[0]) for part, taken in parts.items()]


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
    def data(self) -> Case:
        """What stands for the data, which several cases share."""
        return Case(self.shape, FORWARD, dtype=self.dtype, kind=self.kind, layout=self.layout)

    @property
    def numbers(self) -> int:
        """Entries of x."""
        return self.shape.nodes * self.shape.features

    @property
    def work(self) -> dict[str, object]:
        """The fields of a result row that name the case."""
        shape = self.shape
        sizes = {"graphs": len(shape.sizes), "nodes": shape.nodes, "features": shape.features}
        settings = ("direction", "dtype", "kind", "layout", "timing")
        named = {"data": shape.name, "readout": ", ".join(self.reduce)}
        return named | {name: getattr(self, name) for name in settings} | sizes


def grid(quick: bool, cuda: bool, sets: Sequence[GraphSet], seed: int) -> list[Case]:
    """All cases of a run, each once: small data first, and cases with the same data next to each other."""
    if cuda:
        cases = list(cuda_cases(quick, seed))
    else:
        cases = list(quick_cases(seed) if quick else full_cases(seed))
        for graphs in sets:
            cases += combine(molecules(graphs, seed), FEW if quick else EVERY)
    places: dict[Case, int] = {}
    for case in cases:
        places.setdefault(case.data, len(places))
    return sorted(dict.fromkeys(cases), key=lambda case: (case.numbers, places[case.data]))


def combine(shapes: Iterable[Shape | str], reductions: Reductions, **settings: str) -> Iterator[Case]:
    """Every reduction of every shape, forward and forward with backward."""
    for shape in shapes:
        for reduce in reductions:
            for direction in DIRECTIONS:
                yield Case(even(shape) if isinstance(shape, str) else shape, direction, reduce, **settings)


def variants(shapes: Sequence[str], reductions: Reductions) -> Iterator[Case]:
    """Other kinds of data in float32, and normal data of other dtypes."""
    for kind in (RELU, WIDE, WEIGHTS):
        yield from combine(shapes, reductions, kind=kind)
    for dtype in OTHER_DTYPES:
        yield from combine(shapes, reductions, dtype=dtype)


def full_cases(seed: int) -> Iterator[Case]:
    """Everything that a CPU measures without data sets."""
    yield from combine((*SMALL, *MEDIUM, *LARGE), (*EVERY, *SOFTMAX))
    yield from combine(HUGE, MOST)
    yield from combine([skewed(seed)], EVERY)
    for count, targets in EDGES:
        shapes = [edges(count, targets, width, seed) for width in WIDTHS]
        yield from combine(shapes, FEW if count > 1e6 else EVERY, layout=UNSORTED)
    yield from variants((*TYPICAL, *LARGE), (*FEW, ("std",)))


def quick_cases(seed: int) -> Iterator[Case]:
    """A representative subset, for three minutes on two cores."""
    yield from combine(SMALL, EVERY)
    yield from combine(MEDIUM, FEW)
    yield from combine(LARGE, SUMS)
    yield from combine([edges(*sizes, WIDTHS[0], seed) for sizes in EDGES[:2]], SUMS, layout=UNSORTED)
    yield from combine(TYPICAL, SOFTMAX)
    for name, reduce in zip(TYPICAL, SUMS, strict=True):
        yield from variants([name], [reduce])


def cuda_cases(quick: bool, seed: int) -> Iterator[Case]:
    """The grid of a GPU: larger shapes, and the smallest as a CUDA graph, too."""
    small, *large = CUDA_SHAPES
    for case in combine([small], FEW if quick else EVERY):
        yield from (replace(case, timing=timing) for timing in (EAGER, GRAPHED))
    yield from combine(large, SUMS if quick else EVERY)
    yield from combine([edges(*EDGES[2], WIDTHS[0], seed)], SUMS, layout=UNSORTED)
    if not quick:
        yield from combine([skewed(seed, scale=20)], EVERY)
        yield from combine(large[:1], SOFTMAX)
        yield from variants(large[:1], SUMS)
