"""The data of a case: random features, and which graph each node is in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from experiments.speed.grid import RELU, SORTED, UNSORTED, WEIGHTS, WIDE, Case

WIDE_EXPONENT = 40


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
    def gate(self) -> torch.nn.Linear:
        """The gate of all attentions: linear, frozen, with weights of size 1 / sqrt(F)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return torch.nn.Linear(self.x.shape[1], 1).to(self.x).requires_grad_(False)

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
    x = torch.randn(shape.nodes, shape.features, device=device, generator=generator)
    if case.kind == RELU:
        x.relu_()
    elif case.kind == WIDE:
        exponents = torch.empty_like(x).uniform_(-WIDE_EXPONENT, WIDE_EXPONENT, generator=generator)
        x = x.sign() * exponents.exp2()
    elif case.kind == WEIGHTS:
        x = torch.cat([part.softmax(0) for part in x.split(shape.sizes)])
    if case.layout == UNSORTED:
        order = torch.randperm(len(index), device=device, generator=generator)
        x, index = x[order], index[order]
    return Batch(x.to(getattr(torch, case.dtype)), index, len(sizes), case.layout)
