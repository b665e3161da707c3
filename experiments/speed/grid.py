"""The grid that speed is measured on: which reductions on which shapes, dtypes and kinds of data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from datasets import GraphSet
from experiments.speed.cases import (
    ALONE,
    DIRECTIONS,
    EAGER,
    GRAPHED,
    NORMAL,
    RELU,
    SORTED,
    TRIPLE,
    UNSORTED,
    WEIGHTED,
    WEIGHTS,
    WIDE,
    Case,
    Shape,
    edges,
    even,
    molecules,
    skewed,
)

SMALL = ("8x18x16", "32x18x64", "128x18x64")
MEDIUM = ("128x18x256", "512x25x64", "1024x25x128")
LARGE = ("4096x30x256",)
HUGE = ("64x20000x64", "1x1000000x64")
EDGES = ((5_000, 2_300), (40_000, 17_400), (1_200_000, 170_000))  # messages and their targets
WIDTHS = (64, 256)
TYPICAL = ("128x18x64", "1024x25x128")  # other dtypes and kinds of data
CUDA_SHAPES = ("128x18x64", "65536x30x256", "1024x4096x128", "1x4194304x64")

EVERY: tuple[tuple[str, ...], ...] = (*((name,) for name in ALONE), TRIPLE)
MOST: tuple[tuple[str, ...], ...] = (("sum",), ("max",), ("std",), ("median",), TRIPLE)
FEW: tuple[tuple[str, ...], ...] = (("sum",), ("max",), TRIPLE)
SUMS: tuple[tuple[str, ...], ...] = (("sum",), TRIPLE)
SOFTMAX: tuple[tuple[str, ...], ...] = tuple((name,) for name in WEIGHTED)
OTHER_DTYPES = ("float64", "bfloat16", "float16")


def grid(quick: bool, cuda: bool, sets: Sequence[GraphSet], seed: int) -> list[Case]:
    """All cases of a run, the small ones first and those with the same data next to each other."""
    if cuda:
        return unique(cuda_cases(quick, seed))
    cases = [*(quick_cases(seed) if quick else full_cases(seed))]
    for graphs in sets:
        for shape in molecules(graphs, seed):
            cases += combine(shape, FEW if quick else EVERY)
    return unique(cases)


def combine(
    shape: Shape | str,
    reductions: Iterable[tuple[str, ...]],
    dtype: str = "float32",
    kind: str = NORMAL,
    layout: str = SORTED,
) -> Iterator[Case]:
    """Every reduction, forward and forward with backward."""
    shape = even(shape) if isinstance(shape, str) else shape
    for reduce in reductions:
        for direction in DIRECTIONS:
            yield Case(shape, direction, reduce, dtype, kind, layout)


def full_cases(seed: int) -> Iterator[Case]:
    """Everything that a CPU measures without data sets."""
    for name in (*SMALL, *MEDIUM, *LARGE):
        yield from combine(name, EVERY)
    for name in HUGE:
        yield from combine(name, MOST)
    yield from combine(skewed(seed), EVERY)
    for count, targets in EDGES:
        for width in WIDTHS:
            several = FEW if count > 1e6 else EVERY
            yield from combine(edges(count, targets, width, seed), several, layout=UNSORTED)
    for name in (*SMALL, *MEDIUM, *LARGE):
        yield from combine(name, SOFTMAX)
    for name in (*TYPICAL, *LARGE):
        yield from variants(name, [*FEW, ("std",)])


def quick_cases(seed: int) -> Iterator[Case]:
    """A representative subset, for three minutes on two cores."""
    for name in SMALL:
        yield from combine(name, EVERY)
    for name in MEDIUM:
        yield from combine(name, FEW)
    yield from combine(LARGE[0], SUMS)
    for count, targets in EDGES[:2]:
        yield from combine(edges(count, targets, WIDTHS[0], seed), SUMS, layout=UNSORTED)
    for name, reduce in zip(TYPICAL, SUMS, strict=True):
        yield from combine(name, SOFTMAX)
        yield from variants(name, [reduce])


def variants(shape: str, reductions: Sequence[tuple[str, ...]]) -> Iterator[Case]:
    """Other kinds of data in float32, and normal data of other dtypes."""
    for kind in (RELU, WIDE, WEIGHTS):
        yield from combine(shape, reductions, kind=kind)
    for dtype in OTHER_DTYPES:
        yield from combine(shape, reductions, dtype=dtype)


def cuda_cases(quick: bool, seed: int) -> Iterator[Case]:
    """The grid of a GPU: larger shapes, and the smallest as a CUDA graph, too."""
    small, *large = CUDA_SHAPES
    for case in combine(small, FEW if quick else EVERY):
        yield from (replace(case, timing=timing) for timing in (EAGER, GRAPHED))
    for name in large:
        yield from combine(name, SUMS if quick else EVERY)
    yield from combine(edges(*EDGES[2], WIDTHS[0], seed), SUMS, layout=UNSORTED)
    if not quick:
        yield from combine(skewed(seed, scale=20), EVERY)
        yield from combine(large[0], SOFTMAX)
        yield from variants(large[0], SUMS)


def unique(cases: Iterable[Case]) -> list[Case]:
    """Small data first, cases with the same data next to each other, each case once."""
    found = list({str(case.work): case for case in cases}.values())
    first: dict[object, int] = {}
    for number, case in enumerate(found):
        first.setdefault(data_of(case), number)
    return sorted(found, key=lambda case: (numbers_of(case), first[data_of(case)]))


def data_of(case: Case) -> tuple[str, str, str, str]:
    """Name the data of a case, which several reductions share."""
    return case.shape.name, case.dtype, case.kind, case.layout


def numbers_of(case: Case) -> int:
    """Count the entries of x."""
    return case.shape.nodes * case.shape.features


def memory_shapes(cuda: bool) -> tuple[str, ...]:
    """Shapes whose peak memory is measured."""
    return CUDA_SHAPES[1:] if cuda else (*LARGE, *HUGE)
