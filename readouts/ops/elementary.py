"""The operators for sum, mean, max, min, var and std, and their derivatives."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from readouts.kernels import onnx
from readouts.kernels.devices import wide_dtype
from readouts.kernels.native import elementary as native
from readouts.kernels.native import grouping as native_grouping
from readouts.kernels.native.library import DTYPES, core
from readouts.kernels.portable import elementary as portable
from readouts.kernels.triton import elementary as triton
from readouts.ops.grouping import MANY, group
from readouts.ops.registry import Operator, is_plain, is_transforming, kernel_for, needs_grad
from readouts.reductions import ELEMENTARY, FLOATS, needs_out, needs_x, result_dtype

_BATCHES = frozenset(  # dtypes of x and batch for which the core reduces directly from the batch vector
    (x, batch) for x in DTYPES for batch in (torch.int64, torch.int32) if core.isa is not None
)
_KEEPING = {"cuda"} if triton.supports(torch.float32) else set()  # devices whose kernels keep statistics


def reduce(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str]) -> Tensor:
    """Reduce the rows of x [N, F] that share an index to [B, R, F], a block for every name in ELEMENTARY.

    An empty graph gives 0. The values are defined by `readouts.kernels.reference`.
    """
    if (
        x.requires_grad
        and x.device.type in _KEEPING
        and x.dtype in FLOATS
        and needs_x(names)
        and triton.keeps(names)
        and torch.is_grad_enabled()
        and not is_transforming()
        and not torch.compiler.is_exporting()  # another device may run the graph, without gradients
    ):
        return _REDUCE_KEEPING(x, index, ptr, order, names)[0]
    return _REDUCE(x, index, ptr, order, names)


def reduce_batch(x: Tensor, batch: Tensor, size: int | None, names: tuple[str, ...]) -> Tensor | None:
    """Reduce the rows of x [N, F] to [B, R * F] directly from a batch vector [N], in eager mode on the CPU.

    Return None where this path is unavailable: on another device, while tracing, or for an invalid argument.
    """
    if not (
        (x.dtype, batch.dtype) in _BATCHES
        and is_plain(x, batch)
        and batch.dim() == 1
        and batch.shape[0] == x.shape[0]
        and x.numel() > 0
        and native.NAMES.issuperset(names)
        and (size is None or (type(size) is int and 0 < size <= MANY))
        and batch.layout == torch.strided
    ):
        return None
    if size is None:
        size = native_grouping.greatest(batch) + 1
        if not 0 < size <= MANY:
            return None
    if x.requires_grad and torch.is_grad_enabled():
        return _apply_flat(x, batch, None, None, size, names)
    if not x.is_floating_point():
        return native.reduce(x, batch, *native_grouping.group(batch, size), names).view(size, -1)
    return native.reduce_batch(x, batch, size, names)


def reduce_flat(
    x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, names: tuple[str, ...]
) -> Tensor:
    """Reduce the rows of x [N, F] that share an index to [B, R * F], a block for every name in ELEMENTARY."""
    if (
        is_plain(x)
        and needs_grad(x)
        and native.supports(x.dtype)
        and native.NAMES.issuperset(names)
        and x.numel() > 0
        and ptr.shape[0] > 1
    ):
        return _apply_flat(x, index, ptr, order, ptr.shape[0] - 1, names)
    return reduce(x, index, ptr, order, names).flatten(1)


class _Flat(torch.autograd.Function):
    """`reduce` of floats [N, F] as [B, R * F]; without ptr, backward groups the nodes again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        index: Tensor,
        ptr: Tensor | None,
        order: Tensor | None,
        size: int,
        names: tuple[str, ...],
    ) -> Tensor | None:
        if ptr is None:
            out = native.reduce_batch(x, index, size, names)
            if out is None:
                return None
        else:
            out = native.reduce(x, index, ptr, order, names).view(size, -1)
        ctx.size, ctx.names = size, names
        if needs_x(names):
            ctx.save_for_backward(index, ptr, order, x, out if needs_out(names) else None)
        elif ptr is None:
            ctx.save_for_backward(index)
        else:
            ctx.save_for_backward(index, ptr, order)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        index, *rest = ctx.saved_tensors
        ptr, order, x, out = rest + [None] * (4 - len(rest))
        if ptr is None and not torch.is_grad_enabled() and is_plain(grad):
            found = native.reduce_backward_batch(grad, x, out, index, ctx.size, ctx.names)
            return found, None, None, None, None, None
        blocks = ctx.size, len(ctx.names), -1
        if ptr is None:
            index = index.long()
            ptr, order = group(index, ctx.size)
        out = None if out is None else out.detach().view(blocks)
        found = reduce_backward(grad.view(blocks), x, out, index, ptr, order, ctx.names)
        return found, None, None, None, None, None


# `Function.apply` without its check for torch.func, which `is_plain` has already ruled out
_apply_flat: Any = super(torch.autograd.Function, _Flat).apply


def reduce_backward(
    grad: Tensor,
    x: Tensor | None,
    out: Tensor | None,
    index: Tensor,
    ptr: Tensor,
    order: Tensor | None,
    names: Sequence[str],
    kept: Tensor | None = None,
) -> Tensor:
    """Return the gradient [N, F] of `reduce` for x, given that of its output, and `out` [B, R, F] itself.

    x may be None for sum and mean. `out` may be None unless max or min are among the names. `kept` is what
    the kernel of the forward pass has kept, if it does.
    """
    return _REDUCE_BACKWARD(grad, x, out, index, ptr, order, names, kept)


def share_among_ties(
    grad: Tensor, x: Tensor, values: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None
) -> Tensor:
    """Return the gradient [N, F] for x of values [B, K, F] of graphs, shared equally among tied nodes."""
    return reduce_backward(grad, x, values, index, ptr, order, extremes(values.shape[1]))


def extremes(number: int) -> tuple[str, ...]:
    """Return reductions that share gradients among ties; kernels are fastest with one max and one min."""
    return ("max", "min")[:number] if number <= 2 else ("max",) * number


class Derivatives:
    """First and second directional derivatives, made of operators that are differentiable themselves.

    With v a direction, a = x - mean(x), s = std(x) and z = a / s, the derivative along v is sum(v) for the
    sum, mean(v) for the mean, the mean of v over the tied nodes for max and min, 2 mean(v a) for the variance
    and mean(v z) for the standard deviation. The gradients of the last two, 2 g a / n and g z / n, have the
    derivatives 2 g / n (v - mean(v)) and g / (n s) (v - mean(v) - z mean(v z)).
    """

    def __init__(
        self,
        x: Tensor | None,
        out: Tensor | None,
        index: Tensor,
        ptr: Tensor,
        order: Tensor | None,
        names: Sequence[str],
    ) -> None:
        """Set features, output (None if the names do not need them), graphs and names."""
        self.groups, self.names = (index, ptr, order), names
        self.x, self.out = (None if t is None else t.to(wide_dtype(t)) for t in (x, out))

    def jvp(self, v: Tensor) -> Tensor:
        """Return the derivative [B, R, F] of the output along a direction v [N, F] of x."""
        wide = v.to(wide_dtype(v))
        blocks = [self._jvp(name, block, v, wide).to(v.dtype) for block, name in enumerate(self.names)]
        return torch.stack(blocks, dim=1)

    def _jvp(self, name: str, block: int, v: Tensor, wide: Tensor) -> Tensor:
        match name:
            case "sum" | "mean":
                return self._over_graphs(v, name)
            case "max" | "min":
                assert self.out is not None
                assert self.x is not None
                winner = self.out[:, block : block + 1]
                shares = share_among_ties(torch.ones_like(winner), self.x, winner, *self.groups)
                return self._over_graphs(wide * shares, "sum")
            case "var":
                return 2 * self._over_graphs(wide * self._deviations)
            case "std":
                return self._over_graphs(wide * self._scores)
            case _:
                raise ValueError(f"reduce: expected one of {', '.join(ELEMENTARY)}, got {name!r}")

    def second_order(self, grad: Tensor, v: Tensor) -> Tensor:
        """Return the derivative [N, F] of the gradient of x along v, given the gradient of the output."""
        wide = v.to(wide_dtype(v))
        nodes = self.groups[1].diff().clamp(min=1).view(-1, 1)
        total = torch.zeros_like(wide)
        for g, name in zip(grad.to(wide.dtype).unbind(1), self.names, strict=True):
            match name:
                case "sum" | "mean" | "max" | "min":
                    pass  # the gradient does not change
                case "var":
                    total = total + self._to_nodes(2 * g / nodes) * self._centred(wide)
                case "std":
                    parallel = self._scores * self._to_nodes(self._over_graphs(wide * self._scores))
                    slope = self._to_nodes(g * self._inverse_std / nodes)
                    total = total + slope * (self._centred(wide) - parallel)
                case _:
                    raise ValueError(f"reduce: expected one of {', '.join(ELEMENTARY)}, got {name!r}")
        return total.to(v.dtype)

    @functools.cached_property
    def _deviations(self) -> Tensor:
        assert self.x is not None
        return self._centred(self.x)

    @functools.cached_property
    def _inverse_std(self) -> Tensor:
        assert self.x is not None
        std = self._over_graphs(self.x, "std")
        return torch.where(std == 0, 0, 1 / torch.where(std == 0, 1, std))

    @functools.cached_property
    def _scores(self) -> Tensor:
        return self._deviations * self._to_nodes(self._inverse_std)

    def _centred(self, values: Tensor) -> Tensor:
        return values - self._to_nodes(self._over_graphs(values))

    def _over_graphs(self, values: Tensor, name: str = "mean") -> Tensor:
        return reduce(values, *self.groups, (name,))[:, 0]

    def _to_nodes(self, values: Tensor) -> Tensor:
        return reduce_backward(values.unsqueeze(1), None, None, *self.groups, ("sum",))


def _reduce(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str]) -> Tensor:
    if x.numel() == 0 or len(ptr) == 1:
        return _reduce_shape(x, index, ptr, order, names).zero_()
    return _kernel(x.device, x.dtype, names).reduce(x, index, ptr, order, names)


def _kernel(device: torch.device, dtype: torch.dtype, names: Sequence[str]) -> Any:
    """Return the fastest module that supports all of the reductions."""
    kernel = kernel_for(device, dtype, "elementary")
    return kernel if kernel.NAMES.issuperset(names) else portable


def _reduce_shape(
    x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str]
) -> Tensor:
    dtype = functools.reduce(torch.promote_types, (result_dtype(name, x.dtype) for name in names))
    return x.new_empty(ptr.shape[0] - 1, len(names), x.shape[1], dtype=dtype)


def _save(inputs: tuple[Any, ...], output: Tensor) -> tuple[tuple[Tensor | None, ...], tuple[Any]]:
    x, index, ptr, order, names = inputs
    kept = x if needs_x(names) else None, output if needs_out(names) else None
    return (*kept, index, ptr, order), (names,)


def _backward(grad: Tensor, x: Tensor | None, out: Tensor | None, *rest: Any) -> tuple[Tensor]:
    out = None if out is None else out.detach()  # only identifies tied nodes: no derivative
    return (reduce_backward(grad, x, out, *rest),)


def _jvp(tangents: tuple[Tensor | None, ...], *saved: Any) -> Tensor:
    assert tangents[0] is not None
    return Derivatives(*saved).jvp(tangents[0])


def _reduce_backward(
    grad: Tensor,
    x: Tensor | None,
    out: Tensor | None,
    index: Tensor,
    ptr: Tensor,
    order: Tensor | None,
    names: Sequence[str],
    kept: Tensor | None = None,
) -> Tensor:
    if grad.numel() == 0 or len(index) == 0:
        return _reduce_backward_shape(grad, x, out, index, ptr, order, names)
    kernel = _kernel(grad.device, grad.dtype, names)
    if kernel is triton and kept is not None and kept.shape[2] == grad.shape[2]:  # else vmap added features
        return triton.reduce_backward(grad, x, out, index, ptr, order, names, kept)
    return kernel.reduce_backward(grad, x, out, index, ptr, order, names)


def _reduce_backward_shape(
    grad: Tensor, x: Tensor | None, out: Tensor | None, index: Tensor, *rest: Any
) -> Tensor:
    return grad.new_empty(index.shape[0], grad.shape[2])


def _reduce_keeping(x: Tensor, *batch: Any) -> tuple[Tensor, Tensor]:
    return triton.reduce_keeping(x, *batch)


def _reduce_keeping_shape(
    x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str]
) -> tuple[Tensor, Tensor]:
    size, features = ptr.shape[0] - 1, x.shape[1]
    kept = x.new_empty(size, triton.kept_blocks(names), features, dtype=torch.int64)
    return x.new_empty(size, len(names), features), kept


def _save_kept(
    inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]
) -> tuple[tuple[Tensor | None, ...], tuple[Any]]:
    tensors, constants = _save(inputs, output[0])
    return (output[1], *tensors), constants


def _backward_from_kept(
    grad: Tensor | None, grad_of_kept: None, kept: Tensor, x: Tensor, out: Tensor | None, *batch: Any
) -> tuple[Tensor | None]:
    if grad is None:
        return (None,)
    index, ptr, order, names = batch
    out = None if out is None else out.detach()
    return (reduce_backward(grad, x, out, index, ptr, order, names, kept),)


def _double_backward(
    tangent: Tensor, grad: Tensor, x: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor | None]:
    derivatives = Derivatives(x, *rest)
    of_x = None if x is None else derivatives.second_order(grad, tangent)
    return derivatives.jvp(tangent), of_x


def _backward_jvp(tangents: tuple[Tensor | None, ...], grad: Tensor, *rest: Any) -> Tensor:
    of_grad, of_x, *_ = tangents
    changes = []
    if of_grad is not None:
        changes.append(reduce_backward(of_grad, *rest))
    if of_x is not None:
        changes.append(Derivatives(*rest).second_order(grad, of_x))
    return sum(changes[1:], changes[0])


_REDUCE = Operator(
    "reduce(Tensor x, Tensor index, Tensor ptr, Tensor? order, str[] reduce) -> Tensor",
    _reduce,
    _reduce_shape,
    onnx=onnx.reduce,
    features=1,
    save=_save,
    backward=_backward,
    jvp=_jvp,
)
_REDUCE_KEEPING = Operator(
    "reduce_keeping(Tensor x, Tensor index, Tensor ptr, Tensor? order, str[] reduce) -> (Tensor, Tensor)",
    _reduce_keeping,
    _reduce_keeping_shape,
    onnx=lambda *arguments: (onnx.reduce(*arguments), _reduce_keeping_shape(*arguments)[1]),
    features=1,
    save=_save_kept,
    backward=_backward_from_kept,
)
_REDUCE_BACKWARD = Operator(
    "reduce_backward(Tensor grad, Tensor? x, Tensor? out, Tensor index, Tensor ptr, Tensor? order, "
    "str[] reduce, Tensor? kept=None) -> Tensor",
    _reduce_backward,
    _reduce_backward_shape,
    onnx=onnx.reduce_backward,
    features=3,
    save=lambda inputs, output: (inputs[:6], inputs[6:7]),
    backward=_double_backward,
    jvp=_backward_jvp,
)
