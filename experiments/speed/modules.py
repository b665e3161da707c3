"""Readouts beyond sum, mean and max: ours and PyG's, on batches of graphs of one size.

Such a batch is a dense tensor [B, n, F]; what is right is computed from it in float64, gradients too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import Linear, Module
from torch_geometric.nn import aggr

from experiments.speed.check import WORST, Deviation, worst
from experiments.speed.contenders import EXACT, PYG, Builder, Call
from experiments.speed.shapes import FIVE, Batch, Case
from readouts.nn import AttentionReadout, MedianReadout, MultiReadout, SoftmaxReadout

ALLOWED = 32  # rounding errors of the largest entry of a feature
ALONE = "ours, {} alone"
TINY = 1e-30


@dataclass(frozen=True)
class Kind:
    """A readout: ours, PyG's twin if there is one, and what it computes from [B, n, F]."""

    ours: Callable[[int], Module]
    truth: Callable[[Tensor], Tensor]
    pyg: Callable[[int], Module] | None = None


@cache
def gate(features: int) -> Linear:
    """The gate of both attentions, with weights of size 1 / sqrt(F)."""
    torch.manual_seed(0)
    return Linear(features, 1)


def attention(x: Tensor) -> Tensor:
    """The average of the nodes, weighted by the softmax of their gate."""
    scores = copy.deepcopy(gate(x.shape[-1])).to(x)(x)
    return (x * scores.softmax(dim=1)).sum(dim=1)


def midpoint(x: Tensor) -> Tensor:
    """The median; the middle of the two if there are two."""
    ordered, n = x.sort(dim=1).values, x.shape[1]
    return (ordered[:, (n - 1) // 2] + ordered[:, n // 2]) / 2


def five(x: Tensor) -> Tensor:
    """Sum, mean, max, min and standard deviation side by side."""
    parts = [x.sum(1), x.mean(1), x.amax(1), x.amin(1), x.std(1, correction=0)]
    return torch.cat(parts, dim=-1)


KINDS = {
    ("median",): Kind(lambda features: MedianReadout(), midpoint),
    ("lower median",): Kind(
        lambda features: MedianReadout("lower"),
        lambda x: x.median(dim=1).values,
        lambda features: aggr.MedianAggregation(),
    ),
    ("softmax",): Kind(
        lambda features: SoftmaxReadout(),
        lambda x: (x * x.softmax(dim=1)).sum(dim=1),
        lambda features: aggr.SoftmaxAggregation(),
    ),
    ("attention",): Kind(
        lambda features: AttentionReadout(gate(features)),
        attention,
        lambda features: aggr.AttentionalAggregation(gate(features)),
    ),
    FIVE: Kind(lambda features: MultiReadout(list(FIVE)), five, lambda features: aggr.MultiAggregation(FIVE)),
}


class Modules:
    """Nodes of graphs of one size are reduced by modules."""

    def __init__(self, batch: Batch) -> None:
        """Hold a batch."""
        self.batch, self.features = batch, batch.x

    def contenders(self, case: Case, quick: bool) -> dict[str, Builder]:
        """Ours and PyG's; of several readouts at once every single one, too."""
        kind = KINDS[case.reduce]
        found = {EXACT: kind.ours} | ({PYG: kind.pyg} if kind.pyg else {})
        if len(case.reduce) > 1:
            found |= {ALONE.format(name): partial(single, name) for name in case.reduce}
        return {name: partial(build, make) for name, make in found.items()}

    def judge(self, case: Case, gradient: Tensor | None) -> Callable[[str, Tensor, Tensor | None], Deviation]:
        """Compare with float64; one of several readouts must equal its block."""
        dense = self.features.detach().double().unflatten(0, (self.batch.size, -1)).requires_grad_()
        truth = KINDS[case.reduce].truth(dense)
        blocks = zip(case.reduce, truth.chunk(len(case.reduce), dim=-1), strict=True)
        right = {ALONE.format(name): block for name, block in blocks}

        def judge(name: str, out: Tensor, slope: Tensor | None) -> Deviation:
            expected = right.get(name, truth)
            found = deviation("output", out, expected)
            if slope is None or gradient is None:
                return found
            given = gradient[:, : expected.shape[1]].double()
            (backward,) = torch.autograd.grad(expected, dense, given, retain_graph=True)
            return worst(found, deviation("gradient", slope, backward.flatten(0, 1)))

        return judge


def build(make: Callable[[int], Module], batch: Batch, reduce: Sequence[str]) -> Call:
    """A module of a batch vector, as a function of the features."""
    module = make(batch.x.shape[1]).to(batch.x.device)
    return lambda x: module(x, batch.index, dim_size=batch.size)


def single(name: str, features: int) -> Module:
    """One readout by its name."""
    return MultiReadout([name])


def deviation(what: str, found: Tensor, expected: Tensor) -> Deviation:
    """The largest difference, in units of what is allowed beside the largest entry of the feature."""
    found, expected = found.detach(), expected.detach()
    allowed = ALLOWED * torch.finfo(found.dtype).eps * expected.abs().amax(dim=0)
    far = ((found.double() - expected).abs() / allowed.clamp(min=TINY)).max()
    return Deviation(what, float(far.nan_to_num(WORST)))
