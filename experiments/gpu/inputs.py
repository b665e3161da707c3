"""Inputs that are the same bits on every machine, and the cases that kernels are compared on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from readouts.reductions import ELEMENTARY

TRIPLE = ("sum", "mean", "max")
SIZES: dict[str, tuple[list[int], int]] = {  # nodes of graphs, features
    "small": ([18] * 128, 64),
    "ragged": ([1, 0, 7, 30, 3, 64, 2, 0, 33] * 8, 70),
    "narrow": ([5, 17, 400, 0, 1, 90] * 4, 1),
    "cut": ([5000, 20, 0, 3, 9000, 513, 512, 1], 64),
    "many": ([30] * 600, 64),
    "giant": ([70_000], 64),
    "wide": ([40, 3], 1030),
}
STEP = 7919  # a prime: multiples of it shuffle nodes without random numbers


@dataclass(frozen=True)
class Case:
    """Sizes of graphs, dtype, reductions, order of nodes, and how many powers of two the numbers span."""

    sizes: str
    dtype: torch.dtype
    names: tuple[str, ...]
    shuffled: bool
    spread: int

    def __str__(self) -> str:
        """Its name in a row."""
        order = "shuffled" if self.shuffled else "sorted"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.sizes} {dtype} {'+'.join(self.names)} {order} spread {self.spread}"


def cases() -> Iterator[Case]:
    """All cases, the most important first."""
    f64, f32, f16, bf16 = torch.float64, torch.float32, torch.float16, torch.bfloat16
    for sizes in ("small", "cut", "many", "giant", "ragged", "narrow", "wide"):
        for shuffled in (False, True):
            yield Case(sizes, f32, TRIPLE, shuffled, 6)
    for sizes in ("small", "cut"):
        for dtype in (f32, f64, f16, bf16):
            yield Case(sizes, dtype, ELEMENTARY, True, 6)
    for dtype, spreads in ((f32, (30, 90, 120)), (f64, (30, 90, 250))):  # beyond what the fast path adds
        for spread in spreads:
            yield Case("ragged", dtype, ELEMENTARY, False, spread)
    for name in ELEMENTARY:
        yield Case("small", f32, (name,), True, 6)


def make(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, the graph of every node, and a gradient of the result [B, R, F]."""
    counts, features = SIZES[case.sizes]
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    x = hashed(len(index), features, case.dtype, 7, case.spread)
    x[1, 0], x[2, 0], x[3, -1] = torch.inf, -torch.inf, torch.nan
    x[4:6, features // 2] = -0.0
    grad = hashed(len(counts) * len(case.names), features, case.dtype, 9, 8)
    if case.shuffled:
        place = (torch.arange(len(index)) * STEP + 13) % len(index)
        x, index = x[place], index[place]
    return x, index, grad.view(len(counts), len(case.names), features)


def hashed(rows: int, features: int, dtype: torch.dtype, seed: int, spread: int) -> Tensor:
    """Make floats of hashed integers, 24 bits times 2**-(20 + 0 ... spread); every seventh row ties."""
    bits = torch.arange(rows * features, dtype=torch.int64) + seed * 1_000_003
    for _ in range(2):  # products wrap around
        bits = (bits ^ (bits >> 31)) * 0x7FB5D329728EA185
        bits = (bits ^ (bits >> 27)) * 0x1DADEF4BC2DD44D
    units = ((1003 - ((bits >> 50) & 0x3FFF) % (spread + 1)) << 52).view(torch.float64)
    x = (((bits >> 20) & 0xFFFFFF) - 2**23).double() * units
    x = (x if dtype == torch.float64 else x.to(torch.float32)).to(dtype).view(rows, features)
    x[::7] = x[0].clone()
    return x
