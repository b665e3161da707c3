"""The operators behind every readout: schema, shapes, derivatives, and the one choice of a kernel.

They are registered with `torch.library`, so that torch.compile, torch.export and torch.func see
one opaque node each. Arguments are as `readouts.functional` has checked them: x [N, F]; index, ptr
and order as in `Segments`; reduce a sequence of the names in `ELEMENTARY`.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._pytree import tree_map

from readouts.kernels import plain
from readouts.kernels.contract import result_dtype

_library = torch.library.Library("readouts", "DEF")
_NEEDS_X, _NEEDS_OUT = {"max", "min", "var", "std"}, {"max", "min"}  # what gradients depend on
_WITHOUT_FLOAT64 = {"mps"}


def group(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return ptr [B + 1] and order [N], int64: graph b has the nodes order[ptr[b] : ptr[b + 1]].

    Raises:
        IndexError: on the CPU, if an index is negative or not below `size`.
    """
    return _group(index, size) if is_unwatched(index) else torch.ops.readouts.group.default(index, size)


def expand_ptr(ptr: Tensor, num_nodes: int) -> Tensor:
    """Return the graph of every node, int64 [N], from the borders of the graphs, int64 [B + 1].

    Raises:
        ValueError: on the CPU, if ptr decreases or does not run from 0 to `num_nodes`.
    """
    return torch.ops.readouts.expand_ptr.default(ptr, num_nodes)


def reduce(
    x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, reduce: Sequence[str], exact: bool
) -> Tensor:
    """Reduce the rows of x [N, F] that share an index to [B, R, F], a block for every name in `reduce`.

    An empty graph gives 0. The exact values are those of `readouts.kernels.reference`.
    """
    if is_unwatched(x):
        return _reduce(x, index, ptr, order, reduce, exact)
    call = _Reduce.apply if is_transforming() else torch.ops.readouts.reduce.default
    return call(x, index, ptr, order, reduce, exact)


def reduce_backward(
    grad: Tensor,
    x: Tensor | None,
    out: Tensor | None,
    index: Tensor,
    ptr: Tensor,
    order: Tensor | None,
    reduce: Sequence[str],
    exact: bool,
) -> Tensor:
    """Return the gradient [N, F] of `reduce` for x, given that of its output, and `out` [B, R, F] itself.

    x may be None for sum and mean, and out for all but max and min, whose gradients do not depend on it.
    """
    call = _ReduceBackward.apply if is_transforming() else torch.ops.readouts.reduce_backward.default
    return call(grad, x, out, index, ptr, order, reduce, exact)


def _group(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    if index.device.type == "cpu":
        from readouts.kernels import cpu  # loads Numba

        return cpu.group(index, size)
    ptr = index.new_zeros(size + 1).scatter_add_(0, index + 1, torch.ones_like(index))
    return ptr.cumsum_(0), index.argsort(stable=True)


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


def _reduce(
    x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, reduce: Sequence[str], exact: bool
) -> Tensor:
    if x.numel() == 0 or len(ptr) == 1:
        return _reduce_shape(x, index, ptr, order, reduce, exact).zero_()
    kernel = _kernel_for(x)
    if kernel is None:
        return plain.reduce(x, index, ptr.diff(), reduce, exact)
    return kernel.reduce(x, index, ptr, order, reduce, exact)


def _reduce_backward(
    grad: Tensor,
    x: Tensor | None,
    out: Tensor | None,
    index: Tensor,
    ptr: Tensor,
    order: Tensor | None,
    reduce: Sequence[str],
    exact: bool,
) -> Tensor:
    if grad.numel() == 0 or len(index) == 0:
        return _reduce_backward_shape(grad, x, out, index, ptr, order, reduce, exact)
    kernel = _kernel_for(grad)
    if kernel is None or (grad.is_cuda and len(set(reduce)) < len(reduce)):  # Triton's have one winner each
        return plain.reduce_backward(grad, x, out, index, ptr.diff(), reduce, exact)
    return kernel.reduce_backward(grad, x, out, index, ptr, order, reduce, exact)


def _kernel_for(x: Tensor) -> Any:
    """Return the fused kernel for a tensor's device and dtype, None where there is only the plain one."""
    if x.device.type == "cpu":
        from readouts.kernels import cpu  # loads Numba

        return cpu if cpu.supports(x.dtype) else None
    if x.device.type == "cuda" and _has_triton():
        from readouts.kernels import gpu  # loads Triton

        return gpu if gpu.supports(x.dtype) else None
    return None


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _through_cpu(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Run a kernel on the CPU for tensors of devices without float64."""

    def run(*arguments: Any) -> Any:
        device = arguments[0].device
        if device.type not in _WITHOUT_FLOAT64:
            return kernel(*arguments)
        result = kernel(*(a.cpu() if isinstance(a, Tensor) else a for a in arguments))
        return tree_map(lambda tensor: tensor.to(device), result)

    return run


def _reduce_shape(
    x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, reduce: Sequence[str], exact: bool
) -> Tensor:
    dtype = functools.reduce(torch.promote_types, (result_dtype(name, x.dtype) for name in reduce))
    return x.new_empty(ptr.shape[0] - 1, len(reduce), x.shape[1], dtype=dtype)


def _reduce_backward_shape(
    grad: Tensor,
    x: Tensor | None,
    out: Tensor | None,
    index: Tensor,
    ptr: Tensor,
    order: Tensor | None,
    reduce: Sequence[str],
    exact: bool,
) -> Tensor:
    return grad.new_empty(index.shape[0], grad.shape[2])


def define(schema: str, kernel: Callable[..., Any], shape: Callable[..., Any]) -> None:
    """Register an operator: what computes it, and what tells the shape of its result."""
    name = schema.partition("(")[0]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, _through_cpu(kernel), "CompositeExplicitAutograd")
    torch.library.register_fake(f"readouts::{name}", shape, lib=_library)


define(
    "group(Tensor index, SymInt size) -> (Tensor, Tensor)",
    _group,
    lambda index, size: (index.new_empty(size + 1), torch.empty_like(index)),
)
define("expand_ptr(Tensor ptr, SymInt num_nodes) -> Tensor", _expand_ptr, lambda ptr, num: ptr.new_empty(num))
define(
    "reduce(Tensor x, Tensor index, Tensor ptr, Tensor? order, str[] reduce, bool exact) -> Tensor",
    _reduce,
    _reduce_shape,
)
define(
    "reduce_backward(Tensor grad, Tensor? x, Tensor? out, Tensor index, Tensor ptr, Tensor? order, "
    "str[] reduce, bool exact) -> Tensor",
    _reduce_backward,
    _reduce_backward_shape,
)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, index, ptr, order, ctx.reduce, ctx.exact = inputs
    x = x if _NEEDS_X.intersection(ctx.reduce) else None
    out = output if _NEEDS_OUT.intersection(ctx.reduce) else None
    ctx.save_for_backward(x, out, index, ptr, order)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, out, index, ptr, order = ctx.saved_tensors
    out = None if out is None else out.detach()  # tells the winners, which have no derivative
    return (
        reduce_backward(grad, x, out, index, ptr, order, ctx.reduce, ctx.exact),
        None,
        None,
        None,
        None,
        None,
    )


def _save_for_double_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.reduce, ctx.exact = inputs
    ctx.save_for_backward(*tensors)


def _double_backward(ctx: Any, tangent: Tensor) -> tuple[Tensor | None, ...]:
    grad, x, out, index, ptr, order = ctx.saved_tensors
    slopes = Slopes(x, out, (index, ptr, order), ctx.reduce, ctx.exact)
    along = None if x is None else slopes.bend(grad, tangent)
    return slopes.along(tangent), along, None, None, None, None, None, None


class Slopes:
    """First and second directional derivatives, in terms of operators that can be differentiated again.

    With v a direction, a = x - mean(x), s = std(x) and z = a / s: along v the sum changes by sum(v),
    the mean by mean(v), max and min by the mean of v over the ties, the variance by 2 mean(v a), the
    standard deviation by mean(v z). The gradients of the last two, 2 g a / n and g z / n, change by
    2 g / n (v - mean(v)) and g / (n s) (v - mean(v) - z mean(v z)).
    """

    def __init__(
        self,
        x: Tensor | None,
        out: Tensor | None,
        groups: tuple[Tensor, Tensor, Tensor | None],
        names: Sequence[str],
        exact: bool,
    ) -> None:
        self.groups, self.names, self.exact = groups, names, exact
        self.x, self.out = (None if t is None else t.to(wide_dtype(t)) for t in (x, out))

    def along(self, v: Tensor) -> Tensor:
        """Return the change [B, R, F] of the output for a direction v [N, F] of x."""
        wide = v.to(wide_dtype(v))
        blocks = [self._along(name, block, v, wide).to(v.dtype) for block, name in enumerate(self.names)]
        return torch.stack(blocks, dim=1)

    def _along(self, name: str, block: int, v: Tensor, wide: Tensor) -> Tensor:
        if name in ("sum", "mean"):
            return self._over_graphs(v, name)
        if name in ("max", "min"):
            assert self.out is not None
            winner = self.out[:, block : block + 1]
            ones = torch.ones_like(winner)
            shares = reduce_backward(ones, self.x, winner, *self.groups, (name,), self.exact)
            return self._over_graphs(wide * shares, "sum")
        if name == "var":
            return 2 * self._over_graphs(wide * self._deviations)
        return self._over_graphs(wide * self._scores)

    def bend(self, grad: Tensor, v: Tensor) -> Tensor:
        """Return the change [N, F] of the gradient of x, given that of the output, for a direction v of x."""
        wide = v.to(wide_dtype(v))
        nodes = self.groups[1].diff().clamp(min=1).view(-1, 1)
        total = torch.zeros_like(wide)
        for g, name in zip(grad.to(wide.dtype).unbind(1), self.names, strict=True):
            if name not in ("var", "std"):
                continue
            centred = wide - self._to_nodes(self._over_graphs(wide))
            if name == "var":
                total = total + self._to_nodes(2 * g / nodes) * centred
            else:
                parallel = self._scores * self._to_nodes(self._over_graphs(wide * self._scores))
                total = total + self._to_nodes(g * self._inverse_std / nodes) * (centred - parallel)
        return total.to(v.dtype)

    @functools.cached_property
    def _deviations(self) -> Tensor:
        assert self.x is not None
        return self.x - self._to_nodes(self._over_graphs(self.x))

    @functools.cached_property
    def _inverse_std(self) -> Tensor:
        assert self.x is not None
        std = self._over_graphs(self.x, "std")
        return torch.where(std == 0, 0, 1 / torch.where(std == 0, 1, std))

    @functools.cached_property
    def _scores(self) -> Tensor:
        return self._deviations * self._to_nodes(self._inverse_std)

    def _over_graphs(self, values: Tensor, name: str = "mean") -> Tensor:
        return reduce(values, *self.groups, (name,), self.exact)[:, 0]

    def _to_nodes(self, values: Tensor) -> Tensor:
        grad = values.unsqueeze(1)
        return reduce_backward(grad, None, None, *self.groups, ("sum",), self.exact)


def wide_dtype(x: Tensor) -> torch.dtype:
    """Return float64 where the device of a tensor has it, else float32."""
    return torch.float32 if x.device.type in _WITHOUT_FLOAT64 else torch.float64


def mapped(operator: Callable[..., Tensor], floats: int) -> Callable[..., tuple[Tensor, int]]:
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
        out = out.unflatten(-1, (info.batch_size, out.shape[-1] // max(info.batch_size, 1)))
        return out, out.dim() - 2

    return rule


def _map_group(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], Any]:
    groups = [group(*_select(arguments, in_dims, i)) for i in range(info.batch_size)]
    return tuple(torch.stack(tensors) for tensors in zip(*groups, strict=True)), (0, 0)


def _as_features(x: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    """Merge the mapped dimension, or `size` repetitions, with the last."""
    if x is None:
        return None
    x = x.unsqueeze(-2).expand(*x.shape[:-1], size, x.shape[-1]) if dim is None else x.movedim(dim, -2)
    return x.flatten(-2)


def _select(arguments: tuple[Any, ...], in_dims: tuple[Any, ...], position: int) -> list[Any]:
    pairs = zip(arguments, in_dims, strict=True)
    return [a.select(dim, position) if isinstance(dim, int) else a for a, dim in pairs]


class _Reduce(torch.autograd.Function):
    """`reduce` for the transforms of torch.func and for forward-mode derivatives."""

    @staticmethod
    def forward(x: Any, index: Any, ptr: Any, order: Any, names: Any, exact: Any) -> Tensor:
        return torch.ops.readouts.reduce.default(x, index, ptr, order, names, exact)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _save_for_backward(ctx, inputs, output)
        ctx.save_for_forward(inputs[0], output, *inputs[1:4])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, grad)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *rest: None) -> Tensor:
        x, out, index, ptr, order = ctx.saved_tensors
        return Slopes(x, out, (index, ptr, order), ctx.reduce, ctx.exact).along(tangent)

    vmap = staticmethod(mapped(reduce, floats=1))


class _ReduceBackward(torch.autograd.Function):
    """`reduce_backward` for the transforms of torch.func and for forward-mode derivatives."""

    @staticmethod
    def forward(
        grad: Any, x: Any, out: Any, index: Any, ptr: Any, order: Any, names: Any, exact: Any
    ) -> Tensor:
        return torch.ops.readouts.reduce_backward.default(grad, x, out, index, ptr, order, names, exact)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _save_for_double_backward(ctx, inputs, output)
        ctx.save_for_forward(*inputs[:6])

    @staticmethod
    def backward(ctx: Any, tangent: Tensor) -> tuple[Tensor | None, ...]:
        return _double_backward(ctx, tangent)

    @staticmethod
    def jvp(ctx: Any, grad_tangent: Tensor | None, x_tangent: Tensor | None, *rest: None) -> Tensor:
        grad, x, out, index, ptr, order = ctx.saved_tensors
        changes = []
        if grad_tangent is not None:
            changes.append(reduce_backward(grad_tangent, x, out, index, ptr, order, ctx.reduce, ctx.exact))
        if x_tangent is not None:
            changes.append(Slopes(x, out, (index, ptr, order), ctx.reduce, ctx.exact).bend(grad, x_tangent))
        return sum(changes[1:], changes[0])

    vmap = staticmethod(mapped(reduce_backward, floats=3))


def is_unwatched(x: Tensor) -> bool:
    """Tell whether an ordinary call on the CPU has no derivative and no tracer to serve.

    Then the kernel is called without PyTorch's dispatcher, which takes as long as a small batch does.
    """
    return (
        not torch.compiler.is_compiling()
        and x.is_cpu
        and type(x) is Tensor
        and not (x.requires_grad and torch.is_grad_enabled())
        and not torch._C._len_torch_dispatch_stack()
        and not is_transforming()
    )


def new_tensor(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor on the CPU; a large one in huge pages, which are sooner there."""
    from readouts.kernels import cpu  # loads Numba

    return cpu.new_tensor(tuple(shape), dtype)


def is_transforming() -> bool:
    """Tell whether torch.func or forward-mode derivatives are at work, which pass operators by."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def differentiate(name: str, derivative: Callable[..., Any], save: Callable[..., Any]) -> None:
    """Register the derivative of an operator, and what it needs to be saved."""
    torch.library.register_autograd(f"readouts::{name}", derivative, setup_context=save, lib=_library)


differentiate("reduce", _backward, _save_for_backward)
differentiate("reduce_backward", _double_backward, _save_for_double_backward)
torch.library.register_vmap("readouts::expand_ptr", mapped(expand_ptr, floats=0), lib=_library)
torch.library.register_vmap("readouts::group", _map_group, lib=_library)
