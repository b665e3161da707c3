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

SAMPLE, SAMPLED_NODES = 64, 2_000_000
BLOCK = 2**24  # numbers that are converted to float64 at once
SELECTIONS = ("max", "min", "median")
MAGNITUDE, SQUARES = "|x|", "x^2"
FORMS: dict[str, tuple[np.ufunc, Callable[[Tensor], Tensor]]] = {
    "sum": (np.add, lambda x: x),
    "max": (np.maximum, lambda x: x),
    "min": (np.minimum, lambda x: x),
    MAGNITUDE: (np.add, torch.abs),
    SQUARES: (np.add, torch.square),
}


class Truth:
    """Right values of every graph and feature, computed once for all cases with the same batch."""

    def __init__(self, batch: Batch) -> None:
        """Compute nothing before it is asked for."""
        self.batch = batch
        self.count = batch.count.cpu().double().unsqueeze(1)
        self.divisor = self.count.clamp(min=1)
        self.ptr = batch.ptr.cpu().numpy()
        self.filled = np.flatnonzero(np.diff(self.ptr))
        self._known: dict[tuple[str, bool], Tensor] = {}

    def of(self, name: str, rounded: bool = False) -> Tensor:
        """A reduction, or sums of |x| or x^2, float64 [B, F]; 0 for empty graphs.

        Rounded: its values at `sample` alone, in the dtype of x.
        """
        if (name, rounded) not in self._known:
            self._known[name, rounded] = self._exact(name) if rounded else self._compute(name)
        return self._known[name, rounded]

    def _compute(self, name: str) -> Tensor:
        if name in FORMS:
            return self._reduce(*FORMS[name])
        if name == "mean":
            return self.of("sum") / self.divisor
        if name == "var":
            return self._reduce(np.add, torch.square, self.of("mean")) / self.divisor
        return self.of("var").sqrt() if name == "std" else self._medians()

    @cached_property
    def grouped(self) -> Tensor:
        """Features graph by graph, in float32 or wider, on the CPU."""
        x = self.batch.x.detach()
        x = (x[self.batch.order] if self.batch.unsorted else x).cpu()
        return x if x.dtype == torch.float64 else x.float()

    def _reduce(
        self, operation: np.ufunc, change: Callable[[Tensor], Tensor], centre: Tensor | None = None
    ) -> Tensor:
        """Reduce the changed rows of every graph, less a centre, block of columns by block."""
        out = np.zeros((self.batch.size, self.grouped.shape[1]))
        index = torch.arange(self.batch.size).repeat_interleave(self.count.squeeze(1).long())
        step = max(1, BLOCK // max(1, len(self.grouped)))
        for start in range(0, out.shape[1], step) if len(self.filled) else ():
            columns = slice(start, start + step)
            x = self.grouped[:, columns].double()
            x = x if centre is None else x - centre[:, columns][index]
            out[self.filled, columns] = operation.reduceat(change(x).numpy(), self.ptr[self.filled], axis=0)
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

    def _exact(self, name: str) -> Tensor:
        """Values of a reduction at `sample`, from rational arithmetic rounded once to the dtype of x."""
        dtype, entries = self.batch.x.dtype, zip(*map(Tensor.tolist, self.sample), strict=True)
        columns = [self.grouped[self.ptr[g] : self.ptr[g + 1], f].tolist() for g, f in entries]
        return torch.tensor([REDUCTIONS[name](column, dtype) for column in columns], dtype=dtype)

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
