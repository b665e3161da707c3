"""Weighted averages of nodes, as functions.

Every sum over nodes is exact and rounded once. Its terms are computed from one node at a time, with
arithmetic, exp and log. Therefore the bits of outputs and gradients do not depend on the order of the
nodes. float16 and bfloat16 are computed in float32 and rounded at the end; power means and moments are
computed in float64 for every dtype, if the device has float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from readouts import ops
from readouts.functional import ranges
from readouts.functional.checks import (
    averaged_graphs_of,
    cast_back,
    check_clamps,
    check_power,
    check_values,
    to_compute_dtype,
)
from readouts.functional.elementary import reduced
from readouts.functional.parts import derivatives, in_parts
from readouts.keywords import explain_keywords
from readouts.segments import Segments, flat, has_one_weight

LEAST_POWER = 1e-8  # nearer to 0, the gradient of a learned power would lose half of its digits


@explain_keywords
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

    Example:
        >>> weighted_mean(torch.tensor([[1.0], [4.0]]), torch.tensor([1.0, 3.0]))
        tensor([[3.2500]])

    Args:
        x: node features [N, *features].
        weight: [N] for one weight per node, or a shape that broadcasts to that of x. Weights may be
            negative. A weight of 0 excludes its node, even if the node is NaN or infinite. If the weights sum
            to 0, the result is the IEEE 754 quotient, NaN or infinite.
        batch, ptr, size: as for `readouts.readout`.
        empty: value of a graph without nodes.

    Returns:
        [B, *features] in the dtype of x.

    Raises:
        TypeError, ValueError, IndexError: an argument is invalid, such as a `weight` with another number
            of nodes or more dimensions than x; see `readouts.readout`.

    Source: the weighted average pooling of Horvitz and Thompson (1952) and Hajek (1971).
    """
    check_values("weight", weight, x)
    segments = averaged_graphs_of(x, batch, ptr, size, empty)
    return _averaged(segments.nodes(x), segments.nodes(weight), segments, False, empty)


@explain_keywords
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

    Example:
        >>> softmax_mean(torch.tensor([[1.0], [4.0]]), torch.tensor([0.0, 0.0]))
        tensor([[2.5000]])

    The value is sum_i exp(s_i - m) x_i / sum_i exp(s_i - m), with m the greatest score of the graph; both
    sums are exact in float64. If m is infinite the value is NaN, as in `torch.softmax`. A score of -inf, or
    one so low that its weight is 0, excludes its node, even if the node is NaN or infinite.

    Args:
        x: node features [N, *features].
        scores: [N] for one score per node, or the shape of x, or that shape with some features replaced by 1.
        batch, ptr, size: as for `readouts.readout`.
        empty: value of a graph without nodes.

    Returns:
        [B, *features], or the shape that x and scores broadcast to, in the dtype of x.

    Raises:
        TypeError, ValueError, IndexError: an argument is invalid, such as `scores` with another number
            of nodes or more dimensions than x; see `readouts.readout`.

    Source: Bahdanau et al., arXiv 1409.0473; on graphs Li et al., arXiv 1511.05493.
    """
    check_values("scores", scores, x)
    segments = averaged_graphs_of(x, batch, ptr, size, empty)
    return softmax_averaged(segments.nodes(x), segments.nodes(scores), segments, empty)


def softmax_averaged(x: Tensor, scores: Tensor, segments: Segments, empty: float = 0) -> Tensor:
    """Return `softmax_mean` of values that `Segments.nodes` has returned."""
    return _averaged(x, scores, segments, True, empty)


def _averaged(x: Tensor, given: Tensor, segments: Segments, softmax: bool, empty: float) -> Tensor:
    """Return weighted means of x; `given` are weights, or scores whose softmax is the weights."""
    given = unsqueeze_like(given, x)
    function = functools.partial(_weighted_means, softmax, empty)
    if x.dtype == given.dtype == torch.float32 and has_one_weight(x, given):  # which takes little memory
        return function(segments, x, given)
    heavy = torch.float64 in (x.dtype, given.dtype)
    return in_parts(function, segments, (x, given), temporaries=48 if heavy else 24)


def _weighted_means(softmax: bool, empty: float, segments: Segments, x: Tensor, given: Tensor) -> Tensor:
    values, given = to_compute_dtype(x), to_compute_dtype(given)
    dtype = torch.promote_types(values.dtype, given.dtype)
    if dtype == torch.float64 and not softmax:
        out = ranges.weighted_mean(values, given, segments)
        return cast_back(segments.fill_empty(out, empty), x)
    values, given = values.to(dtype), given.to(dtype)
    if ops.is_eager(values, given):
        out = _WeightedMean.apply(values, given, segments, softmax)
        if values.dtype == torch.float64 and not (out.is_cpu and bool(out.isfinite().all())):
            with torch.no_grad():
                factor = ranges.sum_factor(values, _weights(given, segments), segments)
            out = _WeightedMean.apply(values * segments.expand(factor), given, segments, True) / factor
    else:
        out = _step_by_step(values, given, segments, softmax)
    return cast_back(segments.fill_empty(out, empty) if empty != 0 or not softmax else out, x)


def _step_by_step(x: Tensor, given: Tensor, segments: Segments, softmax: bool) -> Tensor:
    """Return weighted means from operators that support torch.compile, vmap and second derivatives."""
    if not softmax:
        return segments.quotient(x, given)[0].to(x.dtype)
    weight = _weights(given, segments)
    if x.dtype != torch.float64:
        return segments.quotient(x, weight)[0].to(x.dtype)
    factor = ranges.sum_factor(x, weight, segments)
    return segments.quotient(x * segments.expand(factor), weight)[0] / factor


def softmax_weights(scores: Tensor, segments: Segments) -> Tensor:
    """Return the softmax of scores [N, ...] over the nodes of every graph."""
    weight = _weights(to_compute_dtype(segments.nodes(scores)), segments)
    return cast_back(weight / segments.expand(reduced(weight, segments, "sum", empty=1)), scores)


def softmax_of_multiples(x: Tensor, t: float | Tensor, segments: Segments, empty: float = 0) -> Tensor:
    """Return averages of x with the softmax of t x as weights; t may be a tensor as for `per_graph`.

    Where t x overflows, the scores are t (x - m), with m the value of the greatest score: their softmax is
    the same. x has been returned by `Segments.nodes`.
    """
    function = functools.partial(_softmax_of_multiples, empty, t)
    rows = (per_graph(t, x, segments),) if isinstance(t, Tensor) else ()
    heavy = x.dtype == torch.float64 or isinstance(t, Tensor)
    return in_parts(function, segments, (x,), rows, temporaries=64 if heavy else 24)


def _softmax_of_multiples(
    empty: float, t: float | Tensor, segments: Segments, x: Tensor, *rows: Tensor
) -> Tensor:
    t = rows[0] if rows else t  # of every graph
    if ops.is_plain(x, *rows):
        wide = to_compute_dtype(x)
        if not isinstance(t, Tensor) and wide.dtype == torch.float32 and 2.0**-100 < abs(t) < 2.0**100:
            out = cast_back(_SoftmaxOfMultiples.apply(wide, float(t), segments), x)
            out = segments.fill_empty(out, empty) if empty != 0 else out
        else:
            out = _weighted_means(True, empty, segments, x, _multiples(x, t, segments, shifted=False))
        if not bool(out.isnan().any()):
            return out
    return _weighted_means(True, empty, segments, x, _multiples(x, t, segments))


def multiples(x: Tensor, t: float | Tensor, segments: Segments) -> Tensor:
    """Return t x, or t (x - m) with m of every graph where t x overflows."""
    return _multiples(x, per_graph(t, x, segments) if isinstance(t, Tensor) else t, segments)


def _multiples(x: Tensor, t: float | Tensor, segments: Segments, *, shifted: bool = True) -> Tensor:
    """Return `multiples` for t of every graph, or t x unless `shifted`."""
    wide, rows = to_compute_dtype(x), t if isinstance(t, Tensor) else None
    factor = t if rows is None else segments.expand(rows)
    learned = rows is not None and rows.requires_grad
    if not (shifted or learned):
        return wide * factor
    infinite, plain = wide.isinf(), (wide * factor).detach()
    inner = torch.where(infinite, 0, wide)  # the gradient of t would be 0 times infinity
    if shifted:
        slope = torch.tensor(t).to(wide) if rows is None else rows.detach().to(wide.dtype)
        sign = slope.sign() if rows is None else slope.sign().index_select(0, segments.index)
        extreme = segments.greatest(wide * sign) * slope.sign()
        overflows = (extreme * slope).isinf() & extreme.isfinite()
        shift = torch.where(overflows, extreme, 0).index_select(0, segments.index)
        limit = torch.finfo(wide.dtype).max
        inner = torch.where(shift == 0, inner, (inner - shift).clamp(-limit, limit))
    return torch.where(infinite, plain, inner * factor)


def _weights(scores: Tensor, segments: Segments) -> Tensor:
    """Return exp(s_i - m), with m the greatest score of the graph; allocates one tensor."""
    top = segments.greatest(scores)
    return (-top).index_select(0, segments.index).add_(scores).exp_()


class _WeightedMean(torch.autograd.Function):
    """Weighted means with gradients in closed form; for second derivatives, those of `_step_by_step`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, given: Tensor, segments: Segments, softmax: bool) -> Tensor:
        with ops.DefaultWord():
            weight = _weights(given, segments) if softmax else given
            out, total = segments.weighted_mean(x, weight)
            ctx.save_for_backward(x, given, weight, out, total)
            ctx.segments, ctx.softmax = segments, softmax
            return out.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, given, weight, out, total = ctx.saved_tensors
        for_x, for_given, *_ = ctx.needs_input_grad
        if torch.is_grad_enabled() or not ops.is_eager(grad):  # or several gradients at once
            function = lambda x, given: _step_by_step(x, given, ctx.segments, ctx.softmax)  # noqa: E731
            return *derivatives(function, (x, given), (for_x, for_given), grad), None, None
        with ops.DefaultWord():
            gradients = _gradients(grad, x, weight, out, total, ctx.segments, ctx.softmax)
            return gradients[0] if for_x else None, gradients[1]() if for_given else None, None, None


class _SoftmaxOfMultiples(torch.autograd.Function):
    """Softmax means of float32 numbers x with the scores s x, and the gradient of both in one pass.

    With the names of `_gradients` it is w_i g / t (1 + s (x_i - r)) = w_i (s g / t) (x_i - (r - 1 / s)).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, segments: Segments) -> Tensor:
        with ops.DefaultWord():
            weight = _weights(x if scale == 1 else x * scale, segments)
            out, total = segments.weighted_mean(x, weight)
        ctx.save_for_backward(x, weight, out, total)
        ctx.scale, ctx.segments = scale, segments
        return out.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, out, total = ctx.saved_tensors
        scale, segments = ctx.scale, ctx.segments
        if torch.is_grad_enabled() or not ops.is_eager(grad):  # or several gradients at once
            function = lambda x: _step_by_step(x, x * scale, segments, True)  # noqa: E731
            return *derivatives(function, (x,), (True,), grad), None, None
        with ops.DefaultWord():
            kernel = ops.kernel_for(x.device, x.dtype, "weighted")
            rows, table, mean, index = (
                flat(x),
                flat(grad / total * scale),
                flat(out - 1 / scale),
                segments.index,
            )
            found = kernel.weight_gradient(rows, flat(weight), table, mean, index, shared=False)
            coarse = flat((out * scale).abs() > 2.0**20)  # there r - 1 / s has lost digits of 1 / s
            if coarse.any():
                both = _gradients(grad, x, weight, out, total, segments, True)
                exact = flat(both[0] + both[1]() * scale)
                found = torch.where(coarse.index_select(0, index), exact, found)
        return found.view(x.shape), None, None


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, out: Tensor, total: Tensor, segments: Segments, softmax: bool
) -> tuple[Tensor, Callable[[], Tensor]]:
    """Return the gradient of x, and a function that computes the gradient of the weights or scores.

    With w_i the weight of node i, t the sum of the weights, r the result and g its gradient: the gradient of
    x_i is w_i g / t, and that of w_i is (x_i . g - r . g) / t, where the products are sums over the features
    that share a weight. The gradient of a score is w_i times the latter.
    """
    index, is_shared = segments.index, has_one_weight(x, weight)
    slope = grad.to(total.dtype, copy=True).div_(total)
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
    """Return the gradient of weights that broadcast over features; `inner` is the sum of x_i . g / t."""
    average = (slope * out).sum_to_size(len(slope), *weight.shape[1:]).index_select(0, index)
    gradient = inner - average
    return (ops.product(weight, gradient) if softmax else gradient).to(weight.dtype)


@explain_keywords
def logsumexp(
    x: Tensor,
    batch: Tensor | Segments | None = None,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    empty: float = 0,
) -> Tensor:
    """Return log sum_i exp(x_i) of every graph [B, *features], a smooth maximum, without overflow.

    Example:
        >>> logsumexp(torch.zeros(2, 1))
        tensor([[0.6931]])

    The gradient of node i is exp(x_i) / sum_j exp(x_j); it is 0 if all nodes are -inf. The value of a graph
    without nodes is `empty`, by default 0 and not -inf. For the arguments see `softmax_mean`.

    Source: Pinheiro and Collobert, arXiv 1411.6228.
    """
    segments = averaged_graphs_of(x, batch, ptr, size, empty)
    return segments.fill_empty(in_parts(_logsumexp, segments, (segments.nodes(x),), temporaries=44), empty)


def _logsumexp(segments: Segments, x: Tensor) -> Tensor:
    wide = to_compute_dtype(x)
    top = _finite(segments.greatest(wide))
    total = reduced((wide - segments.expand(top)).exp(), segments, "sum", empty=1)
    nothing = total == 0
    out = top + torch.where(nothing, 1, total).log()
    return cast_back(out.masked_fill(nothing, -torch.inf), x)


@explain_keywords
def power_mean(
    x: Tensor,
    p: float | Tensor,
    batch: Tensor | Segments | None = None,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    clamp_min: float = 1e-4,
    clamp_max: float | None = None,
    empty: float = 0,
) -> Tensor:
    """Return the power mean (sum_i x_i^p / n)^(1/p) of every graph [B, *features]; for p = 0 exp(mean log x).

    Example:
        >>> power_mean(torch.tensor([[3.0], [4.0]]), 2.0)
        tensor([[3.5355]])

    p = 1 is the mean, 2 the root mean square, -1 the harmonic mean, 0 the geometric mean; the limits -inf and
    inf are min and max. The value is computed from logarithms in float64, so that no power overflows.

    Args:
        x: node features [N, *features]. Power means are defined for positive numbers: values below
            `clamp_min`, including 0 and negative numbers, are replaced by `clamp_min` and have gradient 0.
        p: a finite number, or a tensor that broadcasts to the features of a node. A learned p whose
            magnitude is below 1e-8 is replaced by 1e-8.
        batch, ptr, size: as for `readouts.readout`.
        clamp_min: a positive number.
        clamp_max: greater values are replaced by it and have gradient 0; None for no bound.
        empty: value of a graph without nodes.

    Raises:
        TypeError, ValueError, IndexError: an argument is invalid, such as a `clamp_min` that is not
            positive or a power that is not finite; see `readouts.readout`.

    Source: Radenovic et al., arXiv 1711.02512 ("GeM"); on graphs Li et al., arXiv 2006.07739.
    """
    check_clamps(clamp_min, clamp_max)
    segments = averaged_graphs_of(x, batch, ptr, size, empty)
    check_power(p, x)
    least = LEAST_POWER if isinstance(p, Tensor) else 1e-30
    rows = p if isinstance(p, Tensor) else x.new_full((), p, dtype=torch.float64)  # waits for no device
    rows = rows.to(x.device, ops.wide_dtype(x))
    rows = rows + (torch.where(rows.abs() < least, least, rows) - rows).detach()
    geometric = not isinstance(p, Tensor) and p == 0
    function = functools.partial(_power_mean, geometric, (clamp_min, clamp_max))
    out = in_parts(function, segments, (segments.nodes(x),), (per_graph(rows, x, segments),), temporaries=112)
    return segments.fill_empty(out, empty)


def _power_mean(
    geometric: bool, clamps: tuple[float, float | None], segments: Segments, x: Tensor, rows: Tensor
) -> Tensor:
    """Return power means [B, *features] of x [N, *features], with the powers of every graph, or p = 0."""
    values = to_compute_dtype(x, torch.float64).clamp(*clamps)
    unit = None
    if x.dtype == torch.float64:  # logarithms of small numbers: those of 1e308 would cost three digits
        unit, lower, upper = ranges.power_unit(values, rows.detach(), segments)
        values = (values / segments.expand(unit)).clamp(2.0**-1000, 2.0**1000)
    logs = values.log()
    out = (reduced(logs, segments, "mean") if geometric else _log_power_mean(logs, rows, segments)).exp()
    if unit is not None:
        out = ranges.bounded(out, lower / unit, upper / unit) * unit
    return cast_back(out, x)


def _log_power_mean(logs: Tensor, rows: Tensor, segments: Segments) -> Tensor:
    """Return log(sum_i exp(p logs_i) / n) / p of every graph, with p the row of the graph."""
    products = (segments.expand(rows) if rows.requires_grad else rows[:1]) * logs
    top = _finite(segments.greatest(products))
    excess = reduced((products - segments.expand(top)).expm1(), segments, "mean")
    return (top + excess.log1p()) / rows


def unsqueeze_like(values: Tensor, x: Tensor) -> Tensor:
    """Append dimensions of size 1 to values [N, ...] until they have as many dimensions as x."""
    return values.view(values.shape + (1,) * (x.dim() - values.dim()))


def per_graph(parameter: Tensor, x: Tensor, segments: Segments) -> Tensor:
    """Repeat a parameter, which broadcasts to the features of a node, for every graph.

    Expand the result to the nodes: then the gradient is an exact sum for each graph, and the graphs are
    summed in their order, so that the order of the nodes does not matter.
    """
    parameter = parameter.reshape(()) if x.dim() == 1 else parameter
    lead = (1,) * (x.dim() - 1 - parameter.dim())
    return parameter.view(lead + parameter.shape).expand(segments.size, *lead, *parameter.shape)


def _finite(top: Tensor) -> Tensor:
    """Return what to subtract before exp: the greatest value, or 0 where it is infinite."""
    return torch.where(top.isinf(), 0, top)
