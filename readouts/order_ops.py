"""The operators behind order statistics: schema, shapes, derivatives, and the one choice of a kernel.

They are registered like those of `readouts.ops`, and take the same x [N, F], index, ptr and order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from readouts.kernels import selection
from readouts.kernels.contract import result_dtype
from readouts.ops import (
    Slopes,
    define,
    differentiate,
    expand_ptr,
    is_transforming,
    is_unwatched,
    mapped,
    reduce,
    reduce_backward,
    wide_dtype,
)


def select(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor) -> Tensor:
    """Return order statistics [B, K, F] of the rows of x [N, F] that share an index.

    Rank 0 of `ranks`, int64 [B, K], is the least value of a graph, -0 being below +0; a rank that is not
    there stands for the nearest one. NaN makes all NaN; an empty graph gives 0. The nodes that have the
    value share its gradient equally, as those of a maximum do.
    """
    if is_unwatched(x):
        return _select(x, index, ptr, order, ranks)
    call = _Select.apply if is_transforming() else torch.ops.readouts.select.default
    return call(x, index, ptr, order, ranks)


def midpoint(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None) -> Tensor:
    """Return the means [B, F] of the two middle values of the rows of x that share an index, rounded once."""
    if is_unwatched(x):
        return _midpoint(x, index, ptr, order)[0]
    if is_transforming():
        return mean_of_two(*select(x, index, ptr, order, _middle(ptr)).unbind(1))
    return torch.ops.readouts.midpoint.default(x, index, ptr, order)[0]


def mean_of_two(a: Tensor, b: Tensor) -> Tensor:
    """Return (a + b) / 2 without overflow, rounded once; of integers in the default float dtype."""
    wide = a.dtype if a.is_floating_point() else wide_dtype(a)
    a, b, dtype = a.to(wide), b.to(wide), result_dtype("mean", a.dtype)
    total = a + b
    return (torch.where(total.isinf(), a / 2 + b / 2, total / 2) + 0.0).to(dtype)


def trimmed_mean(
    x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> Tensor:
    """Return the means [B, F] of the rows of a graph but for the `cut` [B] least and largest values.

    `bounds` [B, 2, F] are the least and the largest values that are kept, 2 cut < n. The mean is exact and
    rounded once; the nodes that have the value of a bound share the gradient of those that are kept.
    """
    if is_unwatched(x):
        return _trimmed_mean(x, bounds, index, ptr, order, cut)
    call = _TrimmedMean.apply if is_transforming() else torch.ops.readouts.trimmed_mean.default
    return call(x, bounds, index, ptr, order, cut)


def trimmed_mean_backward(
    grad: Tensor, x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> Tensor:
    """Return the gradient [N, F] of `trimmed_mean` for x, given that of its output [B, F]."""
    operator = torch.ops.readouts.trimmed_mean_backward.default
    call = _TrimmedMeanBackward.apply if is_transforming() else operator
    return call(grad, x, bounds, index, ptr, order, cut)


def _select(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor) -> Tensor:
    if x.numel() == 0 or ranks.numel() == 0:
        return _select_shape(x, index, ptr, order, ranks).zero_()
    return _kernel_for(x).select(x, index, ptr, order, ranks)


def _midpoint(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the midpoints and the two middle values [B, 2, F], which have no derivative."""
    if x.numel() == 0 or len(ptr) == 1:
        means, values = _midpoint_shape(x, index, ptr, order)
        return means.zero_(), values.zero_()
    kernel, ranks = _kernel_for(x), _middle(ptr)
    if kernel is not selection:
        return kernel.midpoint(x, index, ptr, order, ranks)
    values = selection.select(x, index, ptr, order, ranks)
    return mean_of_two(*values.unbind(1)), values


def _middle(ptr: Tensor) -> Tensor:
    n = ptr.diff()
    return torch.stack([(n - 1) // 2, n // 2], dim=1)


def _trimmed_mean(
    x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> Tensor:
    if x.numel() == 0 or len(cut) == 0:
        return _trimmed_mean_shape(x, bounds, index, ptr, order, cut).zero_()
    rows, borders = _kernel_for(x).keep(x, bounds, index, ptr, order, cut)
    means = reduce(rows, expand_ptr(borders, len(rows)), borders, None, ("mean",), True)
    return means[:-1, 0].clone()


def _trimmed_mean_backward(
    grad: Tensor, x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> Tensor:
    if x.numel() == 0 or len(cut) == 0:
        return torch.zeros_like(x)
    return _kernel_for(x).spread(grad, x, bounds, index, ptr, order, cut)


def _kernel_for(x: Tensor) -> Any:
    if x.device.type == "cpu":
        from readouts.kernels import cpu, selection_cpu  # loads Numba

        return selection_cpu if cpu.supports(x.dtype) else selection
    return selection


def _select_shape(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor) -> Tensor:
    return x.new_empty(ranks.shape[0], ranks.shape[1], x.shape[1])


def _midpoint_shape(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None) -> tuple[Tensor, Tensor]:
    size, features = ptr.shape[0] - 1, x.shape[1]
    means = x.new_empty(size, features, dtype=result_dtype("mean", x.dtype))
    return means, x.new_empty(size, 2, features)


def _trimmed_mean_shape(
    x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> Tensor:
    return x.new_empty(cut.shape[0], x.shape[1], dtype=result_dtype("mean", x.dtype))


define(
    "select(Tensor x, Tensor index, Tensor ptr, Tensor? order, Tensor ranks) -> Tensor",
    _select,
    _select_shape,
)
define(
    "midpoint(Tensor x, Tensor index, Tensor ptr, Tensor? order) -> (Tensor, Tensor)",
    _midpoint,
    _midpoint_shape,
)
define(
    "trimmed_mean(Tensor x, Tensor bounds, Tensor index, Tensor ptr, Tensor? order, Tensor cut) -> Tensor",
    _trimmed_mean,
    _trimmed_mean_shape,
)
define(
    "trimmed_mean_backward(Tensor grad, Tensor x, Tensor bounds, Tensor index, Tensor ptr, Tensor? order, "
    "Tensor cut) -> Tensor",
    _trimmed_mean_backward,
    lambda grad, x, *rest: x.new_empty(x.shape),
)


def _save_selection(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, index, ptr, order, _ = inputs
    ctx.save_for_backward(x, output, index, ptr, order)


def _selection_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, out, index, ptr, order = ctx.saved_tensors
    names = _names_of_shares(out.shape[1])
    return reduce_backward(grad, x, out.detach(), index, ptr, order, names, True), None, None, None, None


def _save_middle(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, output[1])


def _midpoint_backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    x, index, ptr, order, values = ctx.saved_tensors
    if grad is None:
        return None, None, None, None
    halves = (grad / 2).unsqueeze(1).expand(values.shape)
    names = _names_of_shares(2)
    return reduce_backward(halves, x, values.detach(), index, ptr, order, names, True), None, None, None


def _names_of_shares(number: int) -> tuple[str, ...]:
    """Return names whose gradients go in equal shares to the nodes that have the values of `out`.

    That of a maximum does, and that of a minimum; kernels are quickest with one of each.
    """
    return ("max", "min")[:number] if number <= 2 else ("max",) * number


def _save_trimming(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _trimmed_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return trimmed_mean_backward(grad, *ctx.saved_tensors), None, None, None, None, None


def _trimmed_double_backward(ctx: Any, tangent: Tensor) -> tuple[Tensor | None, ...]:
    return _along_trimmed(tangent, *ctx.saved_tensors[1:]), None, None, None, None, None, None


def _along_trimmed(
    v: Tensor, x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> Tensor:
    """Return the change [B, F] of the trimmed means for a direction v [N, F] of x."""
    x, bounds, wide = (t.to(wide_dtype(t)) for t in (x, bounds, v))
    shares = trimmed_mean_backward(torch.ones_like(bounds[:, 0]), x, bounds, index, ptr, order, cut)
    return reduce(wide * shares, index, ptr, order, ("sum",), True)[:, 0].to(v.dtype)


class _Select(torch.autograd.Function):
    """`select` for the transforms of torch.func and for forward-mode derivatives."""

    @staticmethod
    def forward(x: Any, index: Any, ptr: Any, order: Any, ranks: Any) -> Tensor:
        return torch.ops.readouts.select.default(x, index, ptr, order, ranks)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _save_selection(ctx, inputs, output)
        ctx.save_for_forward(inputs[0], output, *inputs[1:4])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _selection_backward(ctx, grad)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *rest: None) -> Tensor:
        x, out, index, ptr, order = ctx.saved_tensors
        names = _names_of_shares(out.shape[1])
        return Slopes(x, out, (index, ptr, order), names, True).along(tangent)

    vmap = staticmethod(mapped(select, floats=1))


class _TrimmedMean(torch.autograd.Function):
    """`trimmed_mean` for the transforms of torch.func and for forward-mode derivatives."""

    @staticmethod
    def forward(x: Any, bounds: Any, index: Any, ptr: Any, order: Any, cut: Any) -> Tensor:
        return torch.ops.readouts.trimmed_mean.default(x, bounds, index, ptr, order, cut)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _save_trimming(ctx, inputs, output)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _trimmed_backward(ctx, grad)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *rest: None) -> Tensor:
        return _along_trimmed(tangent, *ctx.saved_tensors)

    vmap = staticmethod(mapped(trimmed_mean, floats=2))


class _TrimmedMeanBackward(torch.autograd.Function):
    """`trimmed_mean_backward` for the transforms of torch.func and for forward-mode derivatives."""

    @staticmethod
    def forward(grad: Any, x: Any, bounds: Any, index: Any, ptr: Any, order: Any, cut: Any) -> Tensor:
        operator = torch.ops.readouts.trimmed_mean_backward.default
        return operator(grad, x, bounds, index, ptr, order, cut)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _save_trimming(ctx, inputs, output)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, tangent: Tensor) -> tuple[Tensor | None, ...]:
        return _trimmed_double_backward(ctx, tangent)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, *rest: None) -> Tensor:
        grad, *trimming = ctx.saved_tensors
        return trimmed_mean_backward(torch.zeros_like(grad) if tangent is None else tangent, *trimming)

    vmap = staticmethod(mapped(trimmed_mean_backward, floats=3))


differentiate("select", _selection_backward, _save_selection)
differentiate("midpoint", _midpoint_backward, _save_middle)
differentiate("trimmed_mean", _trimmed_backward, _save_trimming)
differentiate("trimmed_mean_backward", _trimmed_double_backward, _save_trimming)
