"""The operators behind every readout: schema, shapes, derivatives, and the one choice of a kernel.

They are registered with `torch.library`, so that torch.compile, torch.export and torch.func see
one opaque node each. Arguments are as `readouts.functional` has checked them: x [N, F], index
int64 [N] and count int64 [B] as in `Segments`, reduce a sequence of the names in `ELEMENTARY`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from readouts.kernels import plain, result_dtype

_library = torch.library.Library("readouts", "DEF")
_NEEDS_X = {"max", "min", "var", "std"}  # reductions whose gradient depends on x
_WITHOUT_FLOAT64 = {"mps"}


def count(index: Tensor, size: int) -> Tensor:
    """Return the number of nodes of every graph, int64 [B].

    Raises:
        IndexError: on the CPU, if an index is negative or not below `size`.
    """
    return torch.ops.readouts.count.default(index, size)


def expand_ptr(ptr: Tensor, num_nodes: int) -> Tensor:
    """Return the graph of every node, int64 [N], from the borders of the graphs, int64 [B + 1].

    Raises:
        ValueError: on the CPU, if ptr decreases or does not run from 0 to `num_nodes`.
    """
    return torch.ops.readouts.expand_ptr.default(ptr, num_nodes)


def reduce(x: Tensor, index: Tensor, count: Tensor, reduce: Sequence[str], exact: bool) -> Tensor:
    """Reduce the rows of x [N, F] that share an index to [B, R, F], a block for every name in `reduce`.

    An empty graph gives 0. The exact values are those of `readouts.kernels.reference`.
    """
    return _call_reduce(x, index, count, reduce, exact)


def reduce_backward(
    grad: Tensor, x: Tensor | None, index: Tensor, count: Tensor, reduce: Sequence[str], exact: bool
) -> Tensor:
    """Return the gradient [N, F] of `reduce` for x, given that of its output [B, R, F]."""
    return _call_reduce_backward(grad, x, index, count, reduce, exact)


def _count(index: Tensor, size: int) -> Tensor:
    if index.device.type == "cpu" and len(index):
        least, largest = (int(bound) for bound in index.aminmax())
        if least < 0 or largest >= size:
            wrong = least if least < 0 else largest
            raise IndexError(f"batch: expected graphs from 0 to {size - 1} (size {size}), got {wrong}")
    return index.new_zeros(size).scatter_add_(0, index, torch.ones_like(index))


def _expand_ptr(ptr: Tensor, num_nodes: int) -> Tensor:
    if ptr.device.type == "cpu":
        if ptr[0] != 0 or ptr[-1] != num_nodes:
            ends = f"{int(ptr[0])} to {int(ptr[-1])}"
            raise ValueError(f"ptr: expected borders from 0 to the number of nodes {num_nodes}, got {ends}")
        if (ptr.diff() < 0).any():
            first = int((ptr.diff() < 0).nonzero()[0])
            steps = f"{int(ptr[first])} before {int(ptr[first + 1])} at position {first + 1}"
            raise ValueError(f"ptr: expected borders that do not decrease, got {steps}")
    nodes = torch.arange(num_nodes, device=ptr.device)
    return torch.bucketize(nodes, ptr[1:].contiguous(), right=True)


def _reduce(x: Tensor, index: Tensor, count: Tensor, reduce: Sequence[str], exact: bool) -> Tensor:
    if x.numel() == 0 or len(count) == 0:
        return _reduce_shape(x, index, count, reduce, exact).zero_()
    return plain.reduce(x, index, count, reduce, exact)


def _reduce_backward(
    grad: Tensor, x: Tensor | None, index: Tensor, count: Tensor, reduce: Sequence[str], exact: bool
) -> Tensor:
    if grad.numel() == 0 or len(index) == 0:
        return _reduce_backward_shape(grad, x, index, count, reduce, exact)
    return plain.reduce_backward(grad, x, index, count, reduce, exact)


def _through_cpu(kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Run a kernel on the CPU for tensors of devices without float64."""

    def run(*arguments: Any) -> Tensor:
        device = arguments[0].device
        if device.type not in _WITHOUT_FLOAT64:
            return kernel(*arguments)
        return kernel(*(a.cpu() if isinstance(a, Tensor) else a for a in arguments)).to(device)

    return run


def _reduce_shape(x: Tensor, index: Tensor, count: Tensor, reduce: Sequence[str], exact: bool) -> Tensor:
    dtype = functools.reduce(torch.promote_types, (result_dtype(name, x.dtype) for name in reduce))
    return x.new_empty(count.shape[0], len(reduce), x.shape[1], dtype=dtype)


def _reduce_backward_shape(
    grad: Tensor, x: Tensor | None, index: Tensor, count: Tensor, reduce: Sequence[str], exact: bool
) -> Tensor:
    return grad.new_empty(index.shape[0], grad.shape[2])


def _define(schema: str, kernel: Callable[..., Tensor], shape: Callable[..., Tensor]) -> None:
    name = schema.partition("(")[0]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, _through_cpu(kernel), "CompositeExplicitAutograd")
    torch.library.register_fake(f"readouts::{name}", shape, lib=_library)


_define("count(Tensor index, SymInt size) -> Tensor", _count, lambda index, size: index.new_empty(size))
_define(
    "expand_ptr(Tensor ptr, SymInt num_nodes) -> Tensor", _expand_ptr, lambda ptr, num: ptr.new_empty(num)
)
_define(
    "reduce(Tensor x, Tensor index, Tensor count, str[] reduce, bool exact) -> Tensor", _reduce, _reduce_shape
)
_define(
    "reduce_backward(Tensor grad, Tensor? x, Tensor index, Tensor count, str[] reduce, bool exact) -> Tensor",
    _reduce_backward,
    _reduce_backward_shape,
)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, index, count, ctx.reduce, ctx.exact = inputs
    ctx.save_for_backward(x if _NEEDS_X.intersection(ctx.reduce) else None, index, count)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, index, count = ctx.saved_tensors
    return reduce_backward(grad, x, index, count, ctx.reduce, ctx.exact), None, None, None, None


def _save_for_double_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, x, index, count, ctx.reduce, ctx.exact = inputs
    ctx.save_for_backward(grad, x, index, count)


def _double_backward(ctx: Any, tangent: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiate `reduce_backward`, in terms of operators that can be differentiated again.

    With v the tangent, a = x - mean(x), s = std(x) and z = a / s: the gradient of the sum sees
    sum(v), of the mean mean(v), of max and min the mean of v over the ties, of the variance
    2 mean(v a), of the standard deviation mean(v z). Only the last two depend on x:
    2 g / n (v - mean(v)), and g / (n s) (v - mean(v) - z mean(v z)).
    """
    grad, x, index, count = ctx.saved_tensors
    v, nodes = tangent.double(), count.clamp(min=1).view(-1, 1)

    def over_graphs(values: Tensor, name: str = "mean") -> Tensor:
        return reduce(values, index, count, (name,), ctx.exact)[:, 0]

    def to_nodes(values: Tensor) -> Tensor:
        return reduce_backward(values.unsqueeze(1), None, index, count, ("sum",), ctx.exact)

    blocks: list[Tensor] = []
    grad_x = torch.zeros_like(v)
    for g, name in zip(grad.double().unbind(1), ctx.reduce, strict=True):
        if name in ("sum", "mean"):
            blocks.append(over_graphs(v, name))
        elif name in ("max", "min"):
            shares = reduce_backward(
                torch.ones_like(g).unsqueeze(1), x.double(), index, count, (name,), ctx.exact
            )
            blocks.append(over_graphs(v * shares, "sum"))
        else:
            a = x.double() - to_nodes(over_graphs(x.double()))
            centred = v - to_nodes(over_graphs(v))
            if name == "var":
                blocks.append(2 * over_graphs(v * a))
                grad_x = grad_x + to_nodes(2 * g / nodes) * centred
            else:
                std = over_graphs(x.double(), "std")
                inverse = torch.where(std == 0, 0, 1 / torch.where(std == 0, 1, std))
                z = a * to_nodes(inverse)
                blocks.append(over_graphs(v * z))
                grad_x = grad_x + to_nodes(g * inverse / nodes) * (centred - z * to_nodes(blocks[-1]))
    grad_grad = torch.stack(blocks, dim=1).to(grad.dtype)
    return grad_grad, None if x is None else grad_x.to(grad.dtype), None, None, None, None


def _map(operator: Callable[..., Tensor], floats: int) -> Callable[..., tuple[Tensor, int]]:
    """Make the rule by which torch.func.vmap maps an operator.

    It maps the first `floats` arguments as more features, and the others one by one.
    """

    def rule(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
        if floats == 0 or any(isinstance(dim, int) for dim in in_dims[floats:]):
            return torch.stack([operator(*_select(arguments, in_dims, i)) for i in range(info.batch_size)]), 0
        wide = [
            _as_features(a, d, info.batch_size) for a, d in zip(arguments, in_dims[:floats], strict=False)
        ]
        out = operator(*wide, *arguments[floats:])
        out = out.unflatten(-1, (info.batch_size, out.shape[-1] // info.batch_size))
        return out, out.dim() - 2

    return rule


def _as_features(x: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    """Merge the mapped dimension, or `size` repetitions, with the last."""
    if x is None:
        return None
    x = x.unsqueeze(-2).expand(*x.shape[:-1], size, x.shape[-1]) if dim is None else x.movedim(dim, -2)
    return x.flatten(-2)


def _select(arguments: tuple[Any, ...], in_dims: tuple[Any, ...], position: int) -> list[Any]:
    pairs = zip(arguments, in_dims, strict=True)
    return [a.select(dim, position) if isinstance(dim, int) else a for a, dim in pairs]


def _differentiable(
    name: str,
    wrapper: Callable[..., Tensor],
    floats: int,
    backward: Callable[..., Any],
    save: Callable[..., Any],
) -> Callable[..., Tensor]:
    """Give an operator its derivative twice.

    Once through the dispatcher, quick and known to torch.compile and torch.export; once as an
    autograd Function for the transforms of torch.func, which refuse the first.
    """
    operator = getattr(torch.ops.readouts, name).default
    torch.library.register_autograd(f"readouts::{name}", backward, setup_context=save, lib=_library)
    members = {"forward": lambda *inputs: operator(*inputs), "backward": backward, "setup_context": save}
    members["vmap"] = _map(wrapper, floats)
    function = type(
        name, (torch.autograd.Function,), {key: staticmethod(value) for key, value in members.items()}
    )

    def call(*inputs: Any) -> Tensor:
        if torch._C._are_functorch_transforms_active():
            return function.apply(*inputs)  # type: ignore[attr-defined]
        return operator(*inputs)

    return call


for _name, _wrapper in (("count", count), ("expand_ptr", expand_ptr)):
    torch.library.register_vmap(f"readouts::{_name}", _map(_wrapper, floats=0), lib=_library)
_call_reduce = _differentiable("reduce", reduce, 1, _backward, _save_for_backward)
_call_reduce_backward = _differentiable(
    "reduce_backward", reduce_backward, 2, _double_backward, _save_for_double_backward
)
