"""The right values of softmax and attention readouts, in float64."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from experiments.speed.cases import Batch
from experiments.speed.implementations import gate_of


def expected_weighted(batch: Batch, name: str, gradient: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The output [B, F], and the gradient of x [N, F] for this gradient of the outputs."""
    x = batch.x.detach().double().requires_grad_(gradient is not None)
    scores = copy.deepcopy(gate_of(batch)).double()(x) if name == "attention" else x
    out = weighted_mean(x, scores, batch.index, batch.size)
    if gradient is None:
        return out, None
    (slope,) = torch.autograd.grad(out, x, gradient.double())
    return out.detach(), slope


def weighted_mean(x: Tensor, scores: Tensor, index: Tensor, size: int) -> Tensor:
    """Average the nodes of every graph with the softmax of their scores."""
    zeros = scores.new_zeros(size, scores.shape[1])
    places = index.unsqueeze(1).expand_as(scores)
    greatest = zeros.scatter_reduce(0, places, scores.detach(), "amax", include_self=False)
    weights = (scores - greatest[index]).exp()
    total = zeros.index_add(0, index, weights)
    return x.new_zeros(size, x.shape[1]).index_add(0, index, weights * x / total[index])
