"""`exact_scatter`: PyTorch's own scatter operators, exact and independent of the order of their sources."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from readouts import ops
from readouts.reductions import FLOATS

Kernel = Callable[..., Tensor]
Update = Callable[..., bool]  # changes its first argument in place and returns True, or leaves it alone
_BACKENDS = ("CPU", "CUDA")
_CACHE_TAG = " readouts.exact_scatter"  # torch.compile's caches on disk know nothing of decompositions
_aten = torch.ops.aten
_busy = threading.local()  # operators that the exact kernels call themselves are PyTorch's


class exact_scatter(contextlib.ContextDecorator):  # noqa: N801 - used like torch.no_grad
    """Make PyTorch's scatter operators exact: the same bits for every order of edges, threads and runs.

    Example:
        >>> x, index = torch.tensor([1e8, 1.0, -1e8]), torch.tensor([0, 0, 0])
        >>> with exact_scatter():
        ...     torch.zeros(1).index_add_(0, index, x)
        tensor([1.])

    While it is on, these operators on CPU and CUDA compute the exact sum of the old value and all new ones,
    rounded once, in all their overloads and for all shapes of an index: `scatter_add`, `index_add`,
    `scatter_reduce` and `index_reduce` (sum, mean, amax, amin), `scatter` with reduce="add", `index_put` and
    `put` with accumulate, `segment_reduce`, and the backward of `embedding`, `index_select`, `gather`, `take`
    and indexing. A source that is multiplied by `alpha` is rounded before it is added. The gradient of amax
    and amin is shared equally among tied entries. A sum of zero is +0. Integers are left to PyTorch, which
    sums them exactly.

    Not covered: matrix products and sums over all edges (`loss.mean()`, a normalisation over edges, the
    weight gradient of a linear layer that is applied to edges), `embedding_bag`, sparse matrices, operators
    of other libraries (CUDA kernels of torch-scatter, pyg-lib), ``reduce="prod"``, complex numbers.

    Args:
        enabled: None: on inside `with exact_scatter():` and in functions that it decorates. True or False:
            switch the whole process at once, as `torch.set_grad_enabled` does; the end of a `with` block
            restores the switch. False does not end blocks that are open.

    The operators belong to the process: while one thread is in a block, all threads use the exact ones.
    Blocks may be nested. A function that is compiled by `torch.compile` while they are on keeps the exact
    operators, one that was compiled before keeps PyTorch's: call `torch.compiler.reset()` in between.

    Raises:
        RuntimeError: PyTorch is too old to call the kernels that are replaced (before 2.10).
        TypeError: `enabled` is neither None nor a bool.
    """

    def __init__(self, enabled: bool | None = None) -> None:
        """Switch the whole process if `enabled` is given."""
        if enabled is not None and not isinstance(enabled, bool):
            raise TypeError(f"enabled: expected True, False or None, got {enabled!r}")
        self._previous = None if enabled is None else _operators.switch(enabled)

    def __enter__(self) -> exact_scatter:
        """Turn the exact operators on, unless `enabled` was given."""
        if self._previous is None:
            _operators.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore what was on before."""
        if self._previous is None:
            _operators.close()
        else:
            _operators.switch(self._previous)

    @staticmethod
    def is_enabled() -> bool:
        """Return whether PyTorch's scatter operators are exact now."""
        return _operators.are_registered


class _Operators:
    """The exact kernels, registered while the switch is on or a block is open."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._switch, self._blocks = False, 0
        self._library: torch.library.Library | None = None
        self._decompositions: dict[Any, Any] = {}

    @property
    def are_registered(self) -> bool:
        return self._library is not None

    def switch(self, enabled: bool) -> bool:
        with self._lock:
            before, self._switch = self._switch, enabled
            self._update()
            return before

    def open(self) -> None:
        with self._lock:
            self._blocks += 1
            self._update()

    def close(self) -> None:
        with self._lock:
            self._blocks -= 1
            self._update()

    def _update(self) -> None:
        wanted = self._switch or self._blocks > 0
        if wanted and self._library is None:
            if not hasattr(torch.library, "get_kernel"):
                self._switch, self._blocks = False, 0
                raise RuntimeError(f"exact_scatter: expected PyTorch 2.10 or newer, got {torch.__version__}")
            self._library = _register()
            self._decompositions = _exchange_decompositions(_exact_decompositions())
            torch.compiler.config.cache_key_tag += _CACHE_TAG
        elif not wanted and self._library is not None:
            self._library._destroy()
            self._library = None
            _exchange_decompositions(self._decompositions)
            tag = torch.compiler.config.cache_key_tag
            torch.compiler.config.cache_key_tag = tag.replace(_CACHE_TAG, "")
            ops.groupings.clear()


_operators = _Operators()


def _register() -> torch.library.Library:
    """Register the exact kernels over PyTorch's own; destroying the library restores these."""
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch warns that kernels are overridden
        for backend in _BACKENDS:
            for prefix, kernels in (("", _KERNELS), ("Autograd", _DERIVATIVES)):
                for name, make in kernels.items():
                    if torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", backend):
                        original = torch.library.get_kernel(f"aten::{name}", prefix + backend)
                        library.impl(name, make(original.call_boxed), prefix + backend, with_keyset=True)
    return library


def _exactly(compute: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call an exact kernel, unless it is an exact kernel that calls; then return None."""
    if getattr(_busy, "now", False):
        return None
    _busy.now = True
    try:
        return compute(*arguments, **options)
    finally:
        _busy.now = False


def _in_place(update: Update) -> Callable[[Kernel], Kernel]:
    def make(original: Kernel) -> Kernel:
        def kernel(keys: Any, target: Tensor, *arguments: Any, **options: Any) -> Tensor:
            if not _exactly(update, target, *arguments, **options):
                original(keys, target, *arguments, **options)
            return target

        return kernel

    return make


def _functional(update: Update) -> Callable[[Kernel], Kernel]:
    def make(original: Kernel) -> Kernel:
        def kernel(keys: Any, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
            target = x.clone()
            if _exactly(update, target, *arguments, **options):
                return target
            return original(keys, x, *arguments, **options)

        return kernel

    return make


def _out(update: Update) -> Callable[[Kernel], Kernel]:
    def make(original: Kernel) -> Kernel:
        def kernel(keys: Any, x: Tensor, *arguments: Any, out: Tensor, **options: Any) -> Tensor:
            if out.dtype == x.dtype and out.device == x.device and (out.shape == x.shape or out.numel() == 0):
                target = x.clone()
                if _exactly(update, target, *arguments, **options):
                    return out.resize_(x.shape).copy_(target)
            original(keys, x, *arguments, out=out, **options)
            return out

        return kernel

    return make


def _returning(compute: Callable[..., Tensor | None]) -> Callable[[Kernel], Kernel]:
    def make(original: Kernel) -> Kernel:
        def kernel(keys: Any, *arguments: Any, **options: Any) -> Tensor:
            result = _exactly(compute, *arguments, **options)
            return original(keys, *arguments, **options) if result is None else result

        return kernel

    return make


def _scatter_add(target: Tensor, dim: int, index: Tensor, source: Tensor) -> bool:
    return ops.scatter_(target, dim, index, source, "sum")


def _scatter(target: Tensor, dim: int, index: Tensor, source: Tensor, *, reduce: str) -> bool:
    return reduce == "add" and ops.scatter_(target, dim, index, source, "sum")


def _index_add(target: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> bool:
    return ops.index_reduce_(target, dim, index, source if alpha == 1 else source * alpha, "sum")


def _index_put(
    target: Tensor, indices: list[Tensor | None], values: Tensor, accumulate: bool = False, *_: bool
) -> bool:
    return accumulate and ops.index_put_(target, indices, values)


def _put(target: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> bool:
    return accumulate and ops.put_(target, index, source)


def _overloads(name: str, update: Update, overload: str = "", out: str = "out") -> dict[str, Any]:
    suffix = f".{overload}" if overload else ""
    return {
        f"{name}{suffix}": _functional(update),
        f"{name}_{suffix}": _in_place(update),
        f"{name}.{out}": _out(update),
    }


_KERNELS: dict[str, Callable[[Kernel], Kernel]] = {
    **_overloads("scatter_add", _scatter_add),
    **_overloads("index_add", _index_add),
    **_overloads("scatter", _scatter, "reduce", "reduce_out"),
    **_overloads("scatter_reduce", ops.scatter_, "two", "two_out"),
    **_overloads("index_reduce", ops.index_reduce_),
    "_index_put_impl_": _in_place(_index_put),
    "put_": _in_place(_put),
    "embedding_dense_backward": _returning(ops.embedding_backward),
    "segment_reduce": _returning(ops.segment_reduce),
}


class _Extreme(torch.autograd.Function):
    """The greatest or least values; their gradient is shared equally among tied entries.

    PyTorch counts the old values as tied even where `include_self` is False.
    """

    @staticmethod
    def forward(
        ctx: Any, target: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, include_self: bool
    ) -> Tensor:
        out = target.scatter_reduce(dim, index, source, reduce, include_self=include_self)
        ctx.save_for_backward(target if include_self else None, index, source, out)
        ctx.dim = dim
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved: list[Any] = [None if t is None else t.detach() for t in ctx.saved_tensors]
        target, index, source, out = saved
        dim, part = ctx.dim, source[tuple(slice(n) for n in index.shape)]
        wins = _equal(part, out.gather(dim, index))
        counts = out.dtype if out.dtype == torch.float64 else torch.float32
        ties = torch.zeros_like(out, dtype=counts).scatter_add_(dim, index, wins.to(counts))
        if target is None:
            of_target = grad.masked_fill(ties > 0, 0)
        else:
            kept = _equal(target, out)
            ties = ties + kept
            of_target = torch.where(kept, grad / ties, 0)
        of_source = torch.where(wins, (grad / ties.clamp(min=1)).gather(dim, index), 0)
        if part.shape != source.shape:
            padding = [room for n, m in zip(index.shape, source.shape, strict=True) for room in (m - n, 0)]
            of_source = torch.nn.functional.pad(of_source, padding[::-1])
        return of_target.to(grad.dtype), None, None, of_source.to(grad.dtype), None, None


def _equal(x: Tensor, y: Tensor) -> Tensor:
    return (x == y) | (x.isnan() & y.isnan())


def _extreme(name: str) -> Callable[[Kernel], Kernel]:
    """Return the maker of the kernel with derivatives for an overload of scatter_reduce or index_reduce."""
    of_rows, in_place = name.startswith("index"), "_reduce_" in name

    def make(original: Kernel) -> Kernel:
        def kernel(
            keys: Any,
            target: Tensor,
            dim: int,
            index: Tensor,
            source: Tensor,
            reduce: str,
            *,
            include_self: bool = True,
        ) -> Tensor:
            if (
                reduce not in ("amax", "amin")
                or not (torch.is_grad_enabled() and (target.requires_grad or source.requires_grad))
                or target.dim() == 0
                or target.dtype not in FLOATS
                or ops.is_transforming()
            ):
                return original(keys, target, dim, index, source, reduce, include_self=include_self)
            if of_rows:
                shape = [-1 if d == dim % target.dim() else 1 for d in range(target.dim())]
                index = index.view(shape).expand_as(source)
            old = target.clone() if in_place and include_self else target
            out: Any = _Extreme.apply(old, dim, index, source, reduce, include_self)
            return target.copy_(out) if in_place else out

        return kernel

    return make


_DERIVATIVES = {
    name: _extreme(name)
    for name in ("scatter_reduce.two", "scatter_reduce_.two", "index_reduce", "index_reduce_")
}


def _exact_decompositions() -> dict[Any, Any]:
    """Return what torch.compile is to make of PyTorch's operators: opaque operators of readouts."""

    def scatter_add(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Any:
        return ops.scatter_reduce(x, dim, index, source, "sum", True)

    def scatter_reduce(
        x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
    ) -> Any:
        return (
            NotImplemented
            if reduce == "prod"
            else ops.scatter_reduce(x, dim, index, source, reduce, include_self)
        )

    def index_put(x: Tensor, indices: list[Tensor | None], values: Tensor, accumulate: bool = False) -> Any:
        return ops.index_put(x, indices, values) if accumulate else NotImplemented

    return {
        _aten.scatter_add.default: scatter_add,
        _aten.scatter_reduce.two: scatter_reduce,
        _aten.index_put.default: index_put,
        _aten._unsafe_index_put.default: index_put,
    }


def _exchange_decompositions(new: dict[Any, Any]) -> dict[Any, Any]:
    """Put decompositions into the table of torch.compile, None for no entry; return those that were there."""
    try:
        from torch._inductor import decomposition as table
    except ImportError:
        return {}
    before = {operator: table.decompositions.get(operator) for operator in new}
    for operator, function in new.items():
        if function is None:
            table.decompositions.pop(operator, None)
        else:
            table.decompositions[operator] = function
    table.fast_random_decomps.cache_clear()
    return before
