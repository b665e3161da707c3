"""Register operators, choose their kernels, and decide when PyTorch's dispatcher can be skipped.

Operators are registered with `torch.library`, so that torch.compile, torch.export and torch.func see each of
them as one opaque node. Arguments have been checked by `readouts.functional`: x [N, F]; index, ptr and order
as in `Segments`.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any, Literal

import torch
from torch import Tensor
from torch._decomp import register_decomposition
from torch.autograd import forward_ad

from readouts.kernels.devices import through_cpu
from readouts.kernels.native import elementary as native_elementary
from readouts.kernels.native import grouping as native_grouping
from readouts.kernels.native import order as native_order
from readouts.kernels.native import superaccumulator as native_superaccumulator
from readouts.kernels.native import weighted as native_weighted
from readouts.kernels.onnx import refusal
from readouts.kernels.portable import elementary, grouping, order, superaccumulator, weighted
from readouts.kernels.triton import elementary as triton_elementary
from readouts.kernels.triton import grouping as triton_grouping
from readouts.kernels.triton import order as triton_order

Family = Literal["grouping", "elementary", "order", "weighted", "superaccumulator"]
Derivative = Callable[..., tuple[Tensor | None, ...]]
Save = Callable[[tuple[Any, ...], Any], tuple[tuple[Tensor | None, ...], tuple[Any, ...]]]
_MODULES: dict[Family, tuple[Any, Any]] = {
    "grouping": (grouping, native_grouping),
    "elementary": (elementary, native_elementary),
    "order": (order, native_order),
    "weighted": (weighted, native_weighted),
    "superaccumulator": (superaccumulator, native_superaccumulator),
}
_PLAIN = (Tensor, torch.nn.Parameter)
_is_batched = torch._C._functorch.is_legacy_batchedtensor  # by torch.autograd.grad(is_grads_batched=True)
_library = torch.library.Library("readouts", "DEF")
_chosen: dict[tuple[str, torch.dtype, Family], Any] = {}  # no functools.cache: torch.compile warns of it


class Operator:
    """An operator of `torch.ops.readouts`: a call goes to the kernel, the dispatcher or torch.func.

    Args:
        schema: name, arguments and results, in the language of `torch.library`.
        kernel: computes the result; has no derivative of its own.
        shape: returns uninitialised results of the right shape and dtype, from the same arguments.
        features: number of leading arguments [..., F] that hold features; the other arguments describe
            graphs. `torch.func.vmap` maps the former as additional features and calls the operator once;
            if another argument is mapped, vmap calls the operator once per entry.
        save: returns what derivatives need, a tuple of tensors and a tuple of constants, from the
            arguments and the result; `saved` is the concatenation of both.
        backward: backward(grad of each result, *saved) returns the gradients of the leading arguments.
        jvp: jvp(tangents of all arguments, *saved) returns the tangent of the result. If an operator has
            `backward` but no `jvp`, callers must not use it while `is_transforming`.
        onnx: computes the result, up to rounding, with operations that ONNX has, for `torch.onnx.export`
            alone; without it the export is refused.
    """

    def __init__(
        self,
        schema: str,
        kernel: Callable[..., Any],
        shape: Callable[..., Any],
        *,
        features: int = 0,
        save: Save | None = None,
        backward: Derivative | None = None,
        jvp: Callable[..., Tensor] | None = None,
        onnx: Callable[..., Any] | None = None,
    ) -> None:
        """Register the operator, its shapes and its derivatives."""
        name = schema.partition("(")[0]
        _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        _library.impl(name, through_cpu(kernel), "CompositeExplicitAutograd")
        torch.library.register_fake(f"readouts::{name}", shape, lib=_library)
        self._kernel = kernel
        self._overload: Any = getattr(torch.ops.readouts, name).default
        register_decomposition(self._overload)(_for_onnx(onnx or refusal(f"the operator readouts::{name}")))
        register_decomposition(self._overload, type="meta")(shape)  # or fake tensors would be decomposed, too
        self._transformed: Callable[..., Any] = self._overload
        self._eager: Callable[..., Any] = self._overload
        self._watched = max(features, 1)
        rule = _vmap_rule(self, shape, features)
        if save is None or backward is None:
            torch.library.register_vmap(f"readouts::{name}", rule, lib=_library)
            return
        derivative = _Autograd(self._overload, save, backward, jvp)
        torch.library.register_autograd(
            f"readouts::{name}", derivative.backward, setup_context=derivative.save, lib=_library
        )
        self._eager = _eager_function_of(name, kernel, derivative).apply
        if jvp is not None:
            self._transformed = _function_of(name, self._overload, derivative, rule).apply

    def __call__(self, *arguments: Any) -> Any:
        """Compute the result."""
        watched = arguments[: self._watched]
        if is_direct(*watched):
            return self._eager(*arguments) if needs_grad(*watched) else self._kernel(*arguments)
        if not is_transforming():
            return self._overload(*arguments)
        if torch.compiler.is_compiling():  # compiled, the operator would lose its derivative
            torch._dynamo.graph_break()
        return self._transformed(*arguments)


class _Autograd:
    """The derivatives of an operator, with the signatures that PyTorch expects."""

    def __init__(
        self,
        overload: Any,
        save: Save,
        backward: Derivative,
        jvp: Callable[..., Tensor] | None,
    ) -> None:
        self._save, self._backward, self._jvp = save, backward, jvp
        self._arguments = len(overload._schema.arguments)
        self._results = len(overload._schema.returns)

    def save(self, ctx: Any, inputs: tuple[Any, ...], output: Any, forward_mode: bool = False) -> None:
        """Save tensors through autograd, which detects in-place changes, and constants as attributes."""
        tensors, ctx.constants = self._save(inputs, output)
        ctx.save_for_backward(*tensors)
        if forward_mode:
            ctx.save_for_forward(*tensors)
        if self._results > 1:
            ctx.set_materialize_grads(False)

    def backward(self, ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return a gradient, or None, for every argument."""
        found = self._backward(*grads, *ctx.saved_tensors, *ctx.constants)
        return found + (None,) * (self._arguments - len(found))

    def jvp(self, ctx: Any, *tangents: Tensor | None) -> Tensor:
        """Return the tangent of the result."""
        assert self._jvp is not None
        return self._jvp(tangents, *ctx.saved_tensors, *ctx.constants)


def _eager_function_of(
    name: str, kernel: Callable[..., Any], derivative: _Autograd
) -> type[torch.autograd.Function]:
    """Make the autograd.Function of an operator for eager mode; it calls the kernel directly."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            output = kernel(*arguments)
            derivative.save(ctx, arguments, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            return derivative.backward(ctx, *grads)

    Function.__name__ = Function.__qualname__ = name
    return Function


def _function_of(
    name: str, overload: Any, derivative: _Autograd, rule: Callable[..., Any]
) -> type[torch.autograd.Function]:
    """Make the autograd.Function of an operator for torch.func and forward-mode derivatives."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*arguments: Any) -> Any:
            return overload(*arguments)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            derivative.save(ctx, inputs, output, forward_mode=True)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            return derivative.backward(ctx, *grads)

        @staticmethod
        def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
            return derivative.jvp(ctx, *tangents)

        vmap = staticmethod(rule)

    # torch.compile counts the parameters of `forward` to find out whether it takes a context
    names = [argument.name for argument in overload._schema.arguments]
    parameters = [Parameter(argument, Parameter.POSITIONAL_OR_KEYWORD) for argument in names]
    Function.forward.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    Function.__name__ = Function.__qualname__ = name
    return Function


def _for_onnx(decomposition: Callable[..., Any]) -> Callable[..., Any]:
    """Return a decomposition that the ONNX exporter takes and everybody else leaves alone."""
    return lambda *arguments: decomposition(*arguments) if torch.onnx.is_in_onnx_export() else NotImplemented


def _vmap_rule(
    operator: Callable[..., Any], shape: Callable[..., Any], features: int
) -> Callable[..., tuple[Any, Any]]:
    """Return the rule by which `torch.func.vmap` maps an operator; see `Operator`."""

    def rule(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        if info.batch_size == 0:
            return _mapped_over_nothing(shape(*_select(arguments, in_dims, None)))
        if features == 0 or any(isinstance(dim, int) for dim in in_dims[features:]):
            results = [operator(*_select(arguments, in_dims, i)) for i in range(info.batch_size)]
            if isinstance(results[0], tuple):
                stacked = tuple(torch.stack(tensors) for tensors in zip(*results, strict=True))
                return stacked, (0,) * len(stacked)
            return torch.stack(results), 0
        wide = [
            _as_features(a, d, info.batch_size) for a, d in zip(arguments, in_dims[:features], strict=False)
        ]
        out = operator(*wide, *arguments[features:])
        out = out.unflatten(-1, (info.batch_size, out.shape[-1] // info.batch_size))
        return out, out.dim() - 2

    return rule


def _as_features(x: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    """Merge the mapped dimension with the last one; an unmapped x is repeated `size` times."""
    if x is None:
        return None
    x = x.unsqueeze(-2).expand(*x.shape[:-1], size, x.shape[-1]) if dim is None else x.movedim(dim, -2)
    return x.flatten(-2)


def _mapped_over_nothing(results: Any) -> tuple[Any, Any]:
    """Return empty results of vmap from those of one entry."""
    if isinstance(results, tuple):
        return tuple(out.new_empty(0, *out.shape) for out in results), (0,) * len(results)
    return results.new_empty(0, *results.shape), 0


def _select(arguments: tuple[Any, ...], in_dims: tuple[Any, ...], position: int | None) -> list[Any]:
    """Return the arguments for one entry; for None, of the right shapes alone."""

    def entry(argument: Tensor, dim: int) -> Tensor:
        if position is None:
            return argument.new_empty(argument.shape[:dim] + argument.shape[dim + 1 :])
        return argument.select(dim, position)

    pairs = zip(arguments, in_dims, strict=True)
    return [entry(a, dim) if isinstance(dim, int) else a for a, dim in pairs]


def kernel_for(device: torch.device, dtype: torch.dtype, family: Family) -> Any:
    """Return the first module of a kernel family that supports a dtype on a device.

    All modules of a family have the same functions, and `supports(dtype)`.
    """
    key = device.type, dtype, family
    if key not in _chosen:
        _chosen[key] = next(kernel for kernel in _kernels(device.type, family) if kernel.supports(dtype))
    return _chosen[key]


def _kernels(device: str, family: Family) -> tuple[Any, ...]:
    """Return the modules of a kernel family for a device, the fastest first."""
    portable, native = _MODULES[family]
    match device, family:
        case "cpu", _:
            return native, portable
        case "cuda", "elementary":
            return triton_elementary, portable
        case "cuda", "grouping":
            return triton_grouping, portable
        case "cuda", "order":
            return triton_order, portable
        case _:
            return (portable,)


def is_eager(*tensors: Tensor | None) -> bool:
    """Return whether nothing but autograd observes a call: no tracing, torch.func, modes or subclasses."""
    if _is_watched():
        return False
    for tensor in tensors:  # loops here and below: a generator takes as long as a small batch
        if tensor is not None and (type(tensor) not in _PLAIN or _is_batched(tensor)):
            return False
    return True


def is_plain(*tensors: Tensor | None) -> bool:
    """Return whether the native core can be called: `is_eager`, and all tensors are on the CPU."""
    if _is_watched():
        return False
    for tensor in tensors:
        if tensor is not None and (type(tensor) not in _PLAIN or not tensor.is_cpu or _is_batched(tensor)):
            return False
    return True


def is_direct(*tensors: Tensor | None) -> bool:
    """Return whether the dispatcher can be skipped: `is_eager`, and all tensors are on the CPU or a GPU.

    The dispatcher takes longer than a small batch.
    """
    if _is_watched():
        return False
    for tensor in tensors:
        if tensor is not None and (
            type(tensor) not in _PLAIN or not (tensor.is_cpu or tensor.is_cuda) or _is_batched(tensor)
        ):
            return False
    return True


def _is_watched() -> bool:
    # torch.compiler.is_compiling would be true for all threads, and for forked children, of one that compiles
    return (
        torch.compiler.is_dynamo_compiling()
        or bool(torch._C._len_torch_dispatch_stack())
        or is_transforming()
    )


def needs_grad(*tensors: Tensor | None) -> bool:
    """Return whether autograd records operations on these tensors."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def is_transforming() -> bool:
    """Return whether torch.func or forward mode is active; these require an autograd.Function."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
