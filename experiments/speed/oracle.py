"""The right values of a batch: every reduction in float64, and in rational arithmetic on a random sample."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from experiments.speed.batches import Batch
from readouts.kernels.reference import REDUCTIONS

SAMPLE, SAMPLED_NODES = 64, 1_000_000
BLOCK = 2**24  # numbers that are converted to float64 at once
SELECTIONS = ("max", "min", "median")
MAGNITUDE, SQUARES = "|x|", "x^2"


class Truth:
    """Right values of every graph and feature, computed once for all cases with the same batch."""

    def __init__(self, batch: Batch) -> None:
        """Compute nothing before it is asked for."""
        self.batch = batch
        self.count = batch.count.cpu().double().unsqueeze(1)
        self.divisor = self.count.clamp(min=1)
        self.ptr = batch.ptr.cpu().numpy()
        self.filled = np.flatnonzero(np.diff(self.ptr))
        self._known: dict[str, Tensor] = {}
        self._rounded: dict[str, Tensor] = {}

    def of(self, name: str) -> Tensor:
        """A reduction, sums of |x| or means of x^2, float64 [B, F]; 0 for empty graphs."""
        if name not in self._known:
            self._known[name] = self._compute(name)
        return self._known[name]

    def _compute(self, name: str) -> Tensor:
        match name:
            case "sum":
                return self._reduce(np.add, lambda x, _: x)
            case "max":
                return self._reduce(np.maximum, lambda x, _: x)
            case "min":
                return self._reduce(np.minimum, lambda x, _: x)
            case "mean":
                return self.of("sum") / self.divisor
            case "|x|":
                return self._reduce(np.add, lambda x, _: x.abs())
            case "x^2":
                return self._reduce(np.add, lambda x, _: x.square()) / self.divisor
            case "var":
                index = torch.arange(self.batch.size).repeat_interleave(self.count.squeeze(1).long())
                mean = self.of("mean")
                squares = self._reduce(np.add, lambda x, part: (x - mean[:, part][index]).square())
                return squares / self.divisor
            case "std":
                return self.of("var").sqrt()
            case "median":
                return self._medians()
            case _:
                raise ValueError(f"name: expected a reduction, got {name!r}")

    @cached_property
    def grouped(self) -> Tensor:
        """Features graph by graph, in float32 or wider, on the CPU."""
        x = self.batch.x.detach()
        x = (x[self.batch.order] if self.batch.unsorted else x).cpu()
        return x if x.dtype == torch.float64 else x.float()

    def _reduce(self, operation: np.ufunc, change: Callable[[Tensor, slice], Tensor]) -> Tensor:
        """Reduce the changed rows of every graph in float64, block of columns by block."""
        out = np.zeros((self.batch.size, self.grouped.shape[1]))
        step = max(1, BLOCK // max(1, len(self.grouped)))
        for start in range(0, out.shape[1], step) if len(self.filled) else ():
            columns = slice(start, start + step)
            values = change(self.grouped[:, columns].double(), columns).numpy()
            out[self.filled, columns] = operation.reduceat(values, self.ptr[self.filled], axis=0)
        return torch.from_numpy(out)

    def _medians(self) -> Tensor:
        """Lower medians, graph by graph."""
        out = torch.zeros(self.batch.size, self.grouped.shape[1], dtype=torch.float64)
        for graph in self.filled.tolist():
            rows = self.grouped[self.ptr[graph] : self.ptr[graph + 1]].numpy()
            middle = (len(rows) - 1) // 2
            out[graph] = torch.from_numpy(np.partition(rows, middle, axis=0)[middle])
        return out

    @cached_property
    def sample(self) -> tuple[Tensor, Tensor]:
        """Graphs and features of some entries; the fewer the more nodes the graphs have."""
        generator = np.random.default_rng(0)
        graphs = generator.choice(self.filled, SAMPLE) if len(self.filled) else self.filled
        nodes = np.diff(self.ptr)[graphs]
        graphs = graphs[np.cumsum(nodes) - nodes <= SAMPLED_NODES]
        features = generator.integers(self.grouped.shape[1], size=len(graphs))
        return torch.from_numpy(graphs), torch.from_numpy(features)

    def rounded(self, name: str) -> Tensor:
        """Values of a reduction at `sample`, from rational arithmetic rounded once to the dtype of x."""
        if name not in self._rounded:
            dtype, entries = self.batch.x.dtype, zip(*map(Tensor.tolist, self.sample), strict=True)
            columns = [self.grouped[self.ptr[g] : self.ptr[g + 1], f].tolist() for g, f in entries]
            values = [REDUCTIONS[name](column, dtype) for column in columns]
            self._rounded[name] = torch.tensor(values, dtype=dtype)
        return self._rounded[name]

    def weighted(self, name: str, gradient: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """A softmax or attention readout in float64, and the gradient of x for this one of the outputs."""
        batch = self.batch
        x = batch.x.detach().double().requires_grad_(gradient is not None)
        scores = copy.deepcopy(batch.gate).double()(x) if name == "attention" else x
        zeros = scores.new_zeros(batch.size, scores.shape[1])
        places = batch.index.unsqueeze(1).expand_as(scores)
        greatest = zeros.scatter_reduce(0, places, scores.detach(), "amax", include_self=False)
        weights = (scores - greatest[batch.index]).exp()
        shares = weights / zeros.index_add(0, batch.index, weights)[batch.index]
        out = x.new_zeros(batch.size, x.shape[1]).index_add(0, batch.index, shares * x)
        if gradient is None:
            return out, None
        return out.detach(), torch.autograd.grad(out, x, gradient.double())[0]
