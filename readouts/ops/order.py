"""The operators for order statistics, and their derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from readouts.kernels import onnx
from readouts.kernels.devices import wide_dtype
from readouts.kernels.portable.order import mean_of_two
from readouts.ops.elementary import Derivatives, extremes, reduce, share_among_ties
from readouts.ops.grouping import expand_ptr
from readouts.ops.registry import Operator, is_transforming, kernel_for
from readouts.reductions import result_dtype


def select(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor) -> Tensor:
    """Return order statistics [B, K, F] of the rows of x [N, F] that share an index.

    Rank 0 in `ranks`, int64 [B, K], is the least value of a graph, with -0 below +0; a rank out of range is
    clamped. With a NaN all values are NaN; an empty graph gives 0. The gradient is shared equally among tied
    nodes, as for max.
    """
    return _SELECT(x, index, ptr, order, ranks)


def midpoint(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None) -> Tensor:
    """Return the means [B, F] of the two middle values of rows of x that share an index, rounded once."""
    if is_transforming():
        return mean_of_two(*select(x, index, ptr, order, _middle(ptr)).unbind(1))
    return _MIDPOINT(x, index, ptr, order)[0]


def trimmed_mean(
    x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> Tensor:
    """Return the means [B, F] of the rows of a graph without the `cut` [B] least and greatest values.

    `bounds` [B, 2, F] are the least and the greatest kept value; 2 cut < n. The mean is exact and rounded
    once; nodes tied at a bound share the gradient of its kept copies.
    """
    return _TRIMMED_MEAN(x, bounds, index, ptr, order, cut)


def trimmed_mean_backward(
    grad: Tensor, x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> Tensor:
    """Return the gradient [N, F] of `trimmed_mean` for x, given that of its output [B, F]."""
    return _TRIMMED_MEAN_BACKWARD(grad, x, bounds, index, ptr, order, cut)


def _select(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor) -> Tensor:
    if x.numel() == 0 or ranks.numel() == 0:
        return _select_shape(x, index, ptr, order, ranks).zero_()
    return kernel_for(x.device, x.dtype, "order").select(x, index, ptr, order, ranks)


def _select_shape(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, ranks: Tensor) -> Tensor:
    return x.new_empty(ranks.shape[0], ranks.shape[1], x.shape[1])


def _save_selection(inputs: tuple[Any, ...], output: Tensor) -> tuple[tuple[Any, ...], tuple[()]]:
    x, index, ptr, order, _ = inputs
    return (x, output, index, ptr, order), ()


def _selection_backward(
    grad: Tensor, x: Tensor, out: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None
) -> tuple[Tensor]:
    return (share_among_ties(grad, x, out.detach(), index, ptr, order),)


def _selection_jvp(
    tangents: tuple[Tensor | None, ...],
    x: Tensor,
    out: Tensor,
    index: Tensor,
    ptr: Tensor,
    order: Tensor | None,
) -> Tensor:
    assert tangents[0] is not None
    return Derivatives(x, out, index, ptr, order, extremes(out.shape[1])).jvp(tangents[0])


def _midpoint(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the midpoints, and the two middle values [B, 2, F], which have no derivative."""
    if x.numel() == 0 or len(ptr) == 1:
        means, values = _midpoint_shape(x, index, ptr, order)
        return means.zero_(), values.zero_()
    return kernel_for(x.device, x.dtype, "order").midpoint(x, index, ptr, order, _middle(ptr))


def _midpoint_shape(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None) -> tuple[Tensor, Tensor]:
    size, features = ptr.shape[0] - 1, x.shape[1]
    means = x.new_empty(size, features, dtype=result_dtype("mean", x.dtype))
    return means, x.new_empty(size, 2, features)


def _middle(ptr: Tensor) -> Tensor:
    n = ptr.diff()
    return torch.stack([(n - 1) // 2, n // 2], dim=1)


def _midpoint_backward(
    grad: Tensor | None,
    grad_of_values: None,
    x: Tensor,
    values: Tensor,
    index: Tensor,
    ptr: Tensor,
    order: Tensor | None,
) -> tuple[Tensor | None]:
    if grad is None:
        return (None,)
    halves = (grad / 2).unsqueeze(1).expand(values.shape)
    return (share_among_ties(halves, x, values.detach(), index, ptr, order),)


def _trimmed_mean(
    x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> Tensor:
    if x.numel() == 0 or len(cut) == 0:
        return _trimmed_mean_shape(x, bounds, index, ptr, order, cut).zero_()
    rows, offsets = kernel_for(x.device, x.dtype, "order").keep(x, bounds, index, ptr, order, cut)
    means = reduce(rows, expand_ptr(offsets, len(rows)), offsets, None, ("mean",))
    return means[:-1, 0].clone()


def _trimmed_mean_shape(
    x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> Tensor:
    return x.new_empty(cut.shape[0], x.shape[1], dtype=result_dtype("mean", x.dtype))


def _trimmed_backward(grad: Tensor, *trimming: Any) -> tuple[Tensor]:
    return (trimmed_mean_backward(grad, *trimming),)


def _trimmed_jvp(tangents: tuple[Tensor | None, ...], *trimming: Any) -> Tensor:
    assert tangents[0] is not None
    return _along_trimmed(tangents[0], *trimming)


def _along_trimmed(
    v: Tensor, x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> Tensor:
    """Return the derivative [B, F] of the trimmed means along a direction v [N, F] of x."""
    x, bounds, wide = (t.to(wide_dtype(t)) for t in (x, bounds, v))
    shares = trimmed_mean_backward(torch.ones_like(bounds[:, 0]), x, bounds, index, ptr, order, cut)
    return reduce(wide * shares, index, ptr, order, ("sum",))[:, 0].to(v.dtype)


def _trimmed_mean_backward(
    grad: Tensor, x: Tensor, bounds: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, cut: Tensor
) -> Tensor:
    if x.numel() == 0 or len(cut) == 0:
        return torch.zeros_like(x)
    return kernel_for(x.device, x.dtype, "order").spread(grad, x, bounds, index, ptr, order, cut)


def _trimmed_double_backward(tangent: Tensor, grad: Tensor, *trimming: Any) -> tuple[Tensor]:
    return (_along_trimmed(tangent, *trimming),)


def _trimmed_backward_jvp(tangents: tuple[Tensor | None, ...], grad: Tensor, *trimming: Any) -> Tensor:
    of_grad = torch.zeros_like(grad) if tangents[0] is None else tangents[0]
    return trimmed_mean_backward(of_grad, *trimming)


_SELECT = Operator(
    "select(Tensor x, Tensor index, Tensor ptr, Tensor? order, Tensor ranks) -> Tensor",
    _select,
    _select_shape,
    onnx=onnx.refusal("an order statistic"),
    features=1,
    save=_save_selection,
    backward=_selection_backward,
    jvp=_selection_jvp,
)
_MIDPOINT = Operator(
    "midpoint(Tensor x, Tensor index, Tensor ptr, Tensor? order) -> (Tensor, Tensor)",
    _midpoint,
    _midpoint_shape,
    onnx=onnx.refusal("a median"),
    features=1,
    save=lambda inputs, output: ((inputs[0], output[1], *inputs[1:]), ()),
    backward=_midpoint_backward,
)
_TRIMMED_MEAN = Operator(
    "trimmed_mean(Tensor x, Tensor bounds, Tensor index, Tensor ptr, Tensor? order, Tensor cut) -> Tensor",
    _trimmed_mean,
    _trimmed_mean_shape,
    onnx=onnx.refusal("a trimmed mean"),
    features=2,
    save=lambda inputs, output: (inputs, ()),
    backward=_trimmed_backward,
    jvp=_trimmed_jvp,
)
_TRIMMED_MEAN_BACKWARD = Operator(
    "trimmed_mean_backward(Tensor grad, Tensor x, Tensor bounds, Tensor index, Tensor ptr, Tensor? order, "
    "Tensor cut) -> Tensor",
    _trimmed_mean_backward,
    lambda grad, x, *rest: x.new_empty(x.shape),
    onnx=onnx.refusal("the gradient of a trimmed mean"),
    features=3,
    save=lambda inputs, output: (inputs, ()),
    backward=_trimmed_double_backward,
    jvp=_trimmed_backward_jvp,
)
