"""Weighted averages of nodes, as functions: mathematics and validation.

Whatever adds up nodes here is an exact sum of one number per node, rounded once, and those numbers
come from arithmetic, exp and log of the node alone. So the bits, also of the gradients, do not depend
on the order of the nodes. float16 and bfloat16 are computed in float32 (power means and moments: all
in float64, where the device has it) and rounded at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from readouts import ops
from readouts.functional import check_fits, check_x, graphs_of, readout
from readouts.reductions import result_dtype
from readouts.segments import Segments

LEAST_POWER = 1e-8  # learned powers nearer to 0 than this would lose half the digits of their gradient


def expand(values: Tensor, segments: Segments) -> Tensor:
    """Give every node the row of its graph, [B, *features] -> [N, *features]; backward is an exact sum."""
    rows = flat(values)
    groups = segments.index, segments.ptr, segments.order
    nodes = ops.reduce_backward(rows.unsqueeze(1), None, None, *groups, ("sum",))
    return nodes.reshape(segments.num_nodes, *values.shape[1:])


def flat(values: Tensor) -> Tensor:
    """Return values [N, *features] as rows [N, F]."""
    return values.flatten(1) if values.dim() > 1 else values.unsqueeze(1)


def fill_empty(out: Tensor, segments: Segments, empty: float) -> Tensor:
    """Set the rows of graphs without nodes to `empty`."""
    shape = segments.size, *[1] * (out.dim() - 1)
    return out.masked_fill((segments.count == 0).view(shape), empty)


def weighted_mean(
    x: Tensor,
    weight: Tensor,
    batch: Tensor | Segments | None = None,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    empty: float = 0,
) -> Tensor:
    """Average the nodes of every graph with given weights: sum_i w_i x_i / sum_i w_i.

    Args:
        x: node features [N, *features].
        weight: [N] for a weight per node, or a shape that broadcasts to that of x. Weights may be
            negative; a weight of 0 leaves its node out, whatever stands in it. Where weights add up to 0 the
            value is that of IEEE 754, NaN or infinite.
        batch, ptr, size: as for `readouts.readout`.
        empty: value of a graph without nodes.

    Returns:
        [B, *features] in the dtype of x.

    Raises:
        TypeError, ValueError, IndexError: an argument cannot be used, such as a `weight` with another number
            of nodes or more dimensions than x; see `readouts.readout`.

    Source: the weighted average pooling of Horvitz and Thompson (1952) and Hajek (1971).
    """
    check_values("weight", weight, x)
    segments = _graphs(x, batch, ptr, size, empty)
    out = _average(*alike(x, weight), segments, False)
    return rounded(fill_empty(out, segments, empty), x)


def softmax_mean(
    x: Tensor,
    scores: Tensor,
    batch: Tensor | Segments | None = None,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    empty: float = 0,
) -> Tensor:
    """Average the nodes of every graph with weights that are the softmax of scores over the graph.

    sum_i exp(s_i - m) x_i / sum_i exp(s_i - m), where m is the greatest score of the graph; both sums are
    exact in float64. An infinite m gives NaN, as in `torch.softmax`; a score of -inf beside others, or so
    low that its weight is 0, leaves its node out, whatever stands in it.

    Args:
        x: node features [N, *features].
        scores: [N] for a score per node, or of the shape of x, or with 1 in the place of some features.
        batch, ptr, size: as for `readouts.readout`.
        empty: value of a graph without nodes.

    Returns:
        [B, *features], or the shape that x and scores broadcast to, in the dtype of x.

    Raises:
        TypeError, ValueError, IndexError: an argument cannot be used, such as `scores` with another number
            of nodes or more dimensions than x; see `readouts.readout`.

    Source: Bahdanau et al., arXiv 1409.0473; on graphs Li et al., arXiv 1511.05493.
    """
    check_values("scores", scores, x)
    segments = _graphs(x, batch, ptr, size, empty)
    out = _average(*alike(x, scores), segments, True)
    return rounded(out if empty == 0 else fill_empty(out, segments, empty), x)


def _average(x: Tensor, given: Tensor, segments: Segments, softmax: bool) -> Tensor:
    """Return weighted means of x; `given` are the weights, or scores whose softmax is the weights."""
    if not ops.is_eager(x, given):
        return _average_step_by_step(x, given, segments, softmax)
    return _WeightedMean.apply(x, given, segments, softmax)


def _average_step_by_step(x: Tensor, given: Tensor, segments: Segments, softmax: bool) -> Tensor:
    """Return the same from operators that can be compiled, mapped and differentiated again."""
    weight = weights_below(readout(given.detach(), segments, "max"), given, segments) if softmax else given
    total = readout(weight.to(ops.wide_dtype(weight)), segments, "sum", empty=1)
    return (readout(ops.product(weight, x), segments, "sum") / total).to(x.dtype)


def weights_below(top: Tensor, scores: Tensor, segments: Segments) -> Tensor:
    """Return exp(s_i - m), m the greatest score of the graph, in the memory of one tensor."""
    return (-top).index_select(0, segments.index).add_(scores).exp_()


class _WeightedMean(torch.autograd.Function):
    """Weighted means with their gradients in closed form, step by step if these are to be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, given: Tensor, segments: Segments, softmax: bool) -> Tensor:
        weight = weights_below(readout(given, segments, "max"), given, segments) if softmax else given
        out, total = _means(x, weight, segments)
        ctx.save_for_backward(x, given, weight, out, total)
        ctx.segments, ctx.softmax = segments, softmax
        return out.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, given, weight, out, total = ctx.saved_tensors
        for_x, for_given, *_ = ctx.needs_input_grad
        if torch.is_grad_enabled():
            x, given = x.view_as(x), given.view_as(given)  # scores may be made of x
            wanted = [tensor for tensor in (x, given) if tensor.requires_grad]
            result = _average_step_by_step(x, given, ctx.segments, ctx.softmax)
            found = iter(torch.autograd.grad(result, wanted, grad, create_graph=True))
            return next(found) if for_x else None, next(found) if for_given else None, None, None
        gradients = average_gradients(grad, x, weight, out, total, ctx.segments, ctx.softmax)
        return gradients[0] if for_x else None, gradients[1]() if for_given else None, None, None


def _means(x: Tensor, weight: Tensor, segments: Segments) -> tuple[Tensor, Tensor]:
    """Return weighted means [B, *features] and sums of weights, 1 for no nodes, in float64."""
    if not (_is_shared(x, weight) or x.shape == weight.shape):
        total = readout(weight.to(ops.wide_dtype(weight)), segments, "sum", empty=1)
        return readout(ops.product(weight, x), segments, "sum") / total, total
    kernel = ops.kernel_for(x.device, x.dtype, "weighted")
    means, totals = kernel.weighted_mean(flat(x), flat(weight), segments.index, segments.ptr, segments.order)
    return means.view(segments.size, *x.shape[1:]), totals.view(segments.size, *weight.shape[1:])


def _is_shared(x: Tensor, weight: Tensor) -> bool:
    """Return whether each node has one weight for all of its features."""
    return x.dim() > 1 and weight.shape[1:].numel() == 1


def average_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, out: Tensor, total: Tensor, segments: Segments, softmax: bool
) -> tuple[Tensor, Callable[[], Tensor]]:
    """Return the gradient of x, and a function that computes that of the weights, or of their scores.

    With w_i the weight of node i, t the sum of the weights, r the result and g its gradient: x_i has
    w_i g / t, and w_i has (x_i . g - r . g) / t, where products are sums over the features that share a
    weight; a score has w_i times that.
    """
    index, is_shared = segments.index, _is_shared(x, weight)
    slope = grad.to(total.dtype) / total
    if not (is_shared or x.shape == weight.shape):
        slopes = slope.index_select(0, index)
        return ops.product(weight, slopes).sum_to_size(x.shape).to(x.dtype), lambda: _of_weights(
            (slopes * x).sum_to_size(weight.shape), slope, weight, out, index, softmax
        )
    kernel = ops.kernel_for(x.device, x.dtype, "weighted")
    rows = flat(slope)

    def of_weights() -> Tensor:
        factor = flat(weight) if softmax else None
        mean = (rows * flat(out)).sum(1, keepdim=True) if is_shared else flat(out)
        gradient = kernel.weight_gradient(flat(x), factor, rows, mean, index, shared=is_shared)
        return gradient.view(weight.shape)

    return kernel.scale_rows(rows, flat(weight), index).view(x.shape), of_weights


def _of_weights(
    inner: Tensor, slope: Tensor, weight: Tensor, out: Tensor, index: Tensor, softmax: bool
) -> Tensor:
    """Return the gradient of weights that several features share, from x_i . g / t."""
    average = (slope * out).sum_to_size(len(slope), *weight.shape[1:]).index_select(0, index)
    gradient = inner - average
    return (ops.product(weight, gradient) if softmax else gradient).to(weight.dtype)


def logsumexp(
    x: Tensor,
    batch: Tensor | Segments | None = None,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    empty: float = 0,
) -> Tensor:
    """Return log sum_i exp(x_i) of every graph [B, *features], without overflow: a smooth maximum.

    The gradient of node i is exp(x_i) / sum_j exp(x_j); it is 0 where all nodes are -inf. The sum over
    no nodes would be -inf, and `empty`, 0 unless set, takes its place. For the arguments see `softmax_mean`.

    Source: Pinheiro and Collobert, arXiv 1411.6228.
    """
    segments = _graphs(x, batch, ptr, size, empty)
    wide = computed(x)
    top = _finite(readout(wide.detach(), segments, "max"))
    total = readout((wide - expand(top, segments)).exp(), segments, "sum", empty=1)
    nothing = total == 0
    out = top + torch.where(nothing, 1, total).log()
    return rounded(fill_empty(out.masked_fill(nothing, -torch.inf), segments, empty), x)


def power_mean(
    x: Tensor,
    p: float | Tensor,
    batch: Tensor | Segments | None = None,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    clamp_min: float = 1e-4,
    empty: float = 0,
) -> Tensor:
    """Return the power mean (sum_i x_i^p / n)^(1/p) of every graph [B, *features]; at p = 0 exp(mean log x).

    p = 1 is the mean, 2 the root of the mean square, -1 the harmonic mean, 0 the geometric; -inf and inf
    would be min and max. It is computed from logarithms in float64, so that no power overflows.

    Args:
        x: node features [N, *features]. Power means are defined for positive numbers: what is below
            `clamp_min`, 0 and negative numbers too, counts as `clamp_min` and has gradient 0.
        p: a finite number, or a tensor that broadcasts to the features of a node. A learned p nearer
            to 0 than 1e-8 counts as 1e-8.
        batch, ptr, size: as for `readouts.readout`.
        clamp_min: a positive number.
        empty: value of a graph without nodes.

    Raises:
        TypeError, ValueError, IndexError: an argument cannot be used, such as a `clamp_min` that is not
            positive or a power that is not finite; see `readouts.readout`.

    Source: Radenovic et al., arXiv 1711.02512 ("GeM"); on graphs Li et al., arXiv 2006.07739.
    """
    check_clamp_min(clamp_min)
    check_power(p)
    segments = _graphs(x, batch, ptr, size, empty)
    logs = computed(x, torch.float64).clamp(min=clamp_min).log()
    least = LEAST_POWER if isinstance(p, Tensor) else 1e-30
    rows = torch.as_tensor(p, device=x.device).to(logs.dtype)
    rows = rows + (torch.where(rows.abs() < least, least, rows) - rows).detach()
    rows = per_graph(rows, x, segments)
    powers = expand(rows, segments) if rows.requires_grad else rows[:1]
    scaled = powers * logs
    top = _finite(readout(scaled.detach(), segments, "max"))
    excess = readout((scaled - expand(top, segments)).expm1(), segments, "mean")
    return rounded(fill_empty(((top + excess.log1p()) / rows).exp(), segments, empty), x)


def moments(
    x: Tensor,
    batch: Tensor | Segments | None = None,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    empty: float = 0,
) -> Tensor:
    """Return mean mu, standard deviation s, skewness and kurtosis of every graph, side by side [B, 4 F].

    With z_i = (x_i - mu) / s these are mu, s, sum_i z_i^3 / n and sum_i z_i^4 / n, the last not reduced by
    the 3 of a normal distribution. Where s is 0 the last two and all gradients but that of mu are 0.
    Deviations and their powers are taken in float64; x [N] counts as [N, 1]. For the arguments see
    `softmax_mean`.

    Source: Corso et al., arXiv 2004.05718 (moments as aggregators).
    """
    segments = _graphs(x, batch, ptr, size, empty)
    x = x.unsqueeze(1) if x.dim() == 1 else x
    wide = computed(x, torch.float64)
    mean, std = readout(wide, segments, ("mean", "std")).chunk(2, dim=-1)
    flat = std == 0
    inverse = torch.where(flat, 0, 1 / torch.where(flat, 1, std))
    scores = (wide - expand(mean, segments)) * expand(inverse, segments)
    cubes = scores * scores * scores
    shape = readout(torch.cat([cubes, cubes * scores], dim=-1), segments, "mean")
    return rounded(fill_empty(torch.cat([mean, std, shape], dim=-1), segments, empty), x)


def check_values(name: str, values: Tensor, x: Tensor) -> None:
    """Raise unless there are values for the nodes of x, one for each or in a shape like that of x."""
    check_x(x)
    if not isinstance(values, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(values).__name__}")
    if values.is_complex():
        raise TypeError(f"{name}: expected a real dtype, got {values.dtype}")
    fits = all(
        own == theirs or 1 in (own, theirs) for own, theirs in zip(values.shape, x.shape, strict=False)
    )
    if values.dim() == 0 or values.dim() > x.dim() or values.shape[0] != x.shape[0] or not fits:
        expected = f"one for each of the {x.shape[0]} nodes, or a shape like that of x"
        raise ValueError(f"{name}: expected {expected}, {tuple(x.shape)}, got {tuple(values.shape)}")


def aligned(values: Tensor, x: Tensor) -> Tensor:
    """Give values [N, ...] of nodes as many dimensions as x has."""
    return values.view(values.shape + (1,) * (x.dim() - values.dim()))


def alike(x: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and the scores of its nodes with as many dimensions, in one dtype to compute in."""
    wide, scores = computed(x), aligned(computed(scores), x)
    dtype = torch.promote_types(wide.dtype, scores.dtype)
    return wide.to(dtype), scores.to(dtype)


def per_graph(parameter: Tensor, x: Tensor, segments: Segments) -> Tensor:
    """Repeat a parameter that broadcasts to the features of a node for every graph.

    Expanded to the nodes from there, its gradient is an exact sum for each graph, and these are added up
    in the order of the graphs.
    """
    lead = (1,) * (x.dim() - 1 - parameter.dim())
    return parameter.view(lead + parameter.shape).expand(segments.size, *lead, *parameter.shape)


def check_clamp_min(clamp_min: float) -> None:
    """Raise unless the least number that power means look at is positive."""
    if not clamp_min > 0:
        raise ValueError(f"clamp_min: expected a positive number, got {clamp_min}")


def check_power(p: float | Tensor) -> None:
    """Raise unless a power is a finite number; tensors are taken as they are."""
    if not isinstance(p, Tensor) and not math.isfinite(p):
        raise ValueError(f"p: expected a finite number, got {p}; max and min are readouts of their own")


def check_features(x: Tensor, features: int | None = None) -> None:
    """Raise unless x has a dimension of features beside that of the nodes, as many as there have to be."""
    if x.dim() < 2 or features not in (None, x.shape[-1]):
        wanted = "F" if features is None else features
        raise ValueError(f"x: expected node features [N, {wanted}], got shape {tuple(x.shape)}")


def computed(x: Tensor, least: torch.dtype = torch.float32) -> Tensor:
    """Return x in the dtype to compute in: floats at least `least` wide, integers in the default dtype."""
    if not x.is_floating_point():
        x = x.to(torch.get_default_dtype())
    least = torch.float32 if ops.wide_dtype(x) == torch.float32 else least
    return x.to(torch.promote_types(x.dtype, least))


def rounded(out: Tensor, x: Tensor) -> Tensor:
    """Return a result in the dtype of x, or the default float dtype if x has integers."""
    return out.to(result_dtype("mean", x.dtype))


def _graphs(
    x: Tensor, batch: Tensor | Segments | None, ptr: Tensor | None, size: int | None, empty: float
) -> Segments:
    """Return the graphs of x; raise where x, they, or the value of an empty graph cannot be used."""
    segments = graphs_of(x, batch, ptr, size, empty)
    check_fits(empty, result_dtype("mean", x.dtype))
    return segments


def _finite(top: Tensor) -> Tensor:
    """Return what to subtract before exp: the greatest value, 0 where it is infinite."""
    return torch.where(top.isinf(), 0, top)
