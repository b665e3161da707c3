"""Add or reduce rows into an existing tensor exactly: what PyTorch's scatter operators do in any order.

Every function changes `target` in place and returns whether it has: it leaves alone, and returns False for,
what PyTorch computes without rounding (integers), what it does not define (an index out of range, shapes that
do not fit) and what readouts do not know (complex numbers, products).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from readouts.kernels.native import elementary as native
from readouts.ops.grouping import expand_ptr, group
from readouts.ops.registry import Operator, kernel_for
from readouts.reductions import FLOATS, INDEX_DTYPES

_NAMES = {
    "sum": "sum",
    "add": "sum",
    "mean": "mean",
    "amax": "max",
    "max": "max",
    "amin": "min",
    "min": "min",
}
_SPARSE = 4  # fewer than one row in four of the target is written: read and write only these


class Groupings:
    """The groups of the last index vectors: one index serves every layer of a model, forward and backward.

    An index is found again by its storage, place and version counter. On the CPU its values are compared
    too: NumPy and `.data` change them without a new version.
    """

    def __init__(self, capacity: int = 64) -> None:
        """Remember up to `capacity` index vectors; their storages may be freed meanwhile."""
        self._capacity = capacity
        self._found: dict[tuple[Any, ...], tuple[StorageWeakRef, Tensor, Tensor, Tensor | None]] = {}

    def __call__(self, index: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return index int64 [N], ptr [B + 1] and order [N]; see `readouts.ops.group`."""
        if index.is_inference():
            return self._group(index, size)
        storage = index.untyped_storage()
        place = index.storage_offset(), index.stride(0), index.shape[0], index.dtype
        key = storage._cdata, *place, index._version, size
        if key in self._found:
            reference, copy, ptr, order = self._found[key]
            if not reference.expired() and not (index.is_cpu and not torch.equal(index, copy)):
                return copy, ptr, order
        copy, ptr, order = self._group(index, size)
        if len(self._found) >= self._capacity:
            self._found.pop(next(iter(self._found)))
        self._found[key] = StorageWeakRef(storage), copy, ptr, order
        return copy, ptr, order

    def clear(self) -> None:
        """Forget every index."""
        self._found.clear()

    def _group(self, index: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor | None]:
        copy = index.to(torch.int64, copy=True, memory_format=torch.contiguous_format)
        return copy, *group(copy, size)


groupings = Groupings()


def scatter_(
    target: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, include_self: bool = True
) -> bool:
    """Reduce source[i, j] into target[index[i, j], j] (for dim 0), as `Tensor.scatter_reduce_` does."""
    dims = target.dim()
    if not (
        _is_known(target, source, index, reduce)
        and index.dim() == source.dim() == dims > 0
        and -dims <= dim < dims
        and index.numel() > 0
    ):
        return False
    dim %= dims
    for d, n in enumerate(index.shape):
        if n > source.shape[d] or (d != dim and n > target.shape[d]):
            return False
    if source.shape != index.shape:
        source = source[tuple(slice(n) for n in index.shape)]
    part = target
    if any(d != dim and n != target.shape[d] for d, n in enumerate(index.shape)):
        part = target[tuple(slice(None if d == dim else n) for d, n in enumerate(index.shape))]
    lines = _lines(index, dim)
    if lines is not None:
        return _update(part.movedim(dim, 0), lines, source.movedim(dim, 0), reduce, include_self)
    columns = math.prod(index.shape) // index.shape[dim]
    cells = index.movedim(dim, 0).reshape(-1, columns) * columns + torch.arange(columns, device=index.device)
    if index.is_cpu and not _is_inside(index, target.shape[dim]):
        return False
    return _update_entries(part.movedim(dim, 0), cells, source.movedim(dim, 0), reduce, include_self)


def index_reduce_(
    target: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, include_self: bool = True
) -> bool:
    """Reduce source[i] into target[index[i]] (for dim 0), as `Tensor.index_reduce_` does."""
    dims = target.dim()
    if not (
        _is_known(target, source, index, reduce)
        and index.dim() == 1
        and source.dim() == dims > 0
        and -dims <= dim < dims
    ):
        return False
    dim %= dims
    if source.shape[dim] != index.shape[0] or any(
        d != dim and source.shape[d] != n for d, n in enumerate(target.shape)
    ):
        return False
    if dim:
        target, source = target.movedim(dim, 0), source.movedim(dim, 0)
    return _update(target, index, source, reduce, include_self)


def index_put_(target: Tensor, indices: Sequence[Tensor | None], values: Tensor) -> bool:
    """Add values to target[indices], as `Tensor.index_put_` with accumulate does."""
    if not _is_known(target, values, None, "sum") or target.numel() == 0:
        return False
    first = indices[0] if len(indices) == 1 and target.dim() else None
    if first is not None and first.dtype in INDEX_DTYPES and first.dim() == 1:
        rows = values.expand(first.shape[0], *target.shape[1:])
        if _update(target, first, rows, "sum", True):
            return True  # else a negative index, which counts from the end
    chosen = tuple(slice(None) if i is None else i for i in indices)
    positions = torch.arange(target.numel(), device=target.device).view(target.shape)[chosen]
    return _update_entries(target, positions, values.expand(positions.shape), "sum", True)


def put_(target: Tensor, index: Tensor, source: Tensor) -> bool:
    """Add source to the entries of target that are numbered by index, as `Tensor.put_` does."""
    if source.shape != index.shape:
        return False
    return _into_entries(index_put_, target, [index.reshape(-1)], source.reshape(-1))


def segment_reduce(
    data: Tensor,
    reduce: str,
    *,
    lengths: Tensor | None = None,
    indices: Tensor | None = None,
    offsets: Tensor | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: float | None = None,
) -> Tensor | None:
    """Return `torch.segment_reduce` of consecutive rows; None for what is PyTorch's to find."""
    sizes = lengths if offsets is None else offsets
    if (
        not _is_known(data, data, sizes, reduce)
        or sizes is None
        or sizes.dim() != 1
        or sizes.numel() == 0
        or axis != 0
        or initial is not None
        or data.dim() == 0
        or data.numel() == 0
    ):
        return None
    ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]) if offsets is None else sizes
    try:
        index = expand_ptr(ptr.long(), data.shape[0])
    except ValueError:
        return None
    name = _NAMES[reduce]
    out = _reduced(data.reshape(data.shape[0], -1), index, ptr.long(), None, name)
    empty = {"sum": 0.0, "mean": math.nan, "max": -math.inf, "min": math.inf}[name]
    out = out.masked_fill((ptr.diff() == 0).unsqueeze(1), empty)
    return out.view(-1, *data.shape[1:])


def embedding_backward(
    grad: Tensor, indices: Tensor, num_weights: int, padding_idx: int, scale_grad_by_freq: bool
) -> Tensor | None:
    """Return the gradient [num_weights, F] of an embedding's weight, None where it is PyTorch's to find."""
    weight = grad.new_zeros(num_weights, grad.shape[-1])
    rows, reduce = grad.reshape(-1, grad.shape[-1]), "mean" if scale_grad_by_freq else "sum"
    if not _is_known(weight, rows, indices, reduce):
        return None
    if not _update(weight, indices.reshape(-1), rows, reduce, False):
        return None
    if 0 <= padding_idx < num_weights:
        weight[padding_idx] = 0
    return weight


def _is_known(target: Tensor, source: Tensor, index: Tensor | None, reduce: str) -> bool:
    """Return whether the dtypes, devices and the name of the reduction are those of readouts."""
    return (
        target.dtype in FLOATS
        and source.dtype == target.dtype
        and reduce in _NAMES
        and source.device == target.device
        and target.layout == source.layout == torch.strided
        and (index is None or (index.dtype in INDEX_DTYPES and index.device == target.device))
    )


def _lines(index: Tensor, dim: int) -> Tensor | None:
    """Return the vector of which an index is an expansion along all dimensions but one, None if it is not."""
    first = index[tuple(slice(None) if d == dim else 0 for d in range(index.dim()))]
    if all(index.stride(d) == 0 or n == 1 for d, n in enumerate(index.shape) if d != dim):
        return first
    if index.is_cpu and (index == first.view([-1 if d == dim else 1 for d in range(index.dim())])).all():
        return first
    return None


def _is_inside(index: Tensor, size: int) -> bool:
    least, greatest = index.aminmax()
    return int(least) >= 0 and int(greatest) < size


def _update_entries(target: Tensor, index: Tensor, source: Tensor, reduce: str, include_self: bool) -> bool:
    """Reduce every entry of source into the entry of target [*] with the number that index gives."""
    return _into_entries(_update, target, index.reshape(-1), source.reshape(-1), reduce, include_self)


def _into_entries(update: Callable[..., bool], target: Tensor, *arguments: Any) -> bool:
    """Call an update of target [*] as a vector of its entries."""
    flat = target.reshape(-1)
    done = update(flat, *arguments)
    if done and flat.data_ptr() != target.data_ptr():
        target.copy_(flat.view(target.shape))
    return done


def _update(target: Tensor, index: Tensor, source: Tensor, reduce: str, include_self: bool) -> bool:
    """Reduce source [E, *] into target [M, *] at the rows index [E]; False if an index is out of range."""
    if source.numel() == 0:
        return True
    name, size = _NAMES[reduce], target.shape[0]
    if _SPARSE * index.shape[0] < size and index.is_cpu:
        if not _is_inside(index, size):
            return False
        touched, index = index.unique(return_inverse=True)
        part = target[touched]
        _update(part, index, source, reduce, include_self)
        target[touched] = part
        return True
    rows, old = source.reshape(index.shape[0], -1), target.reshape(size, -1).contiguous()
    try:
        if rows.is_cpu and native.supports(rows.dtype):
            _update_natively(old, index, rows, name, include_self)
        else:
            old = _updated(old, index, rows, name, include_self)
    except IndexError:
        return False
    if old.data_ptr() != target.data_ptr():
        target.copy_(old.view(target.shape))
    return True


def _update_natively(old: Tensor, index: Tensor, rows: Tensor, name: str, include_self: bool) -> None:
    """Reduce rows [E, F] into old [M, F] with the native core."""
    if rows.untyped_storage()._cdata == old.untyped_storage()._cdata:
        rows = rows.clone()
    if include_self and name == "sum" and native.add_rows(old, rows, index):
        return
    _, ptr, order = groupings(index, old.shape[0])
    native.update(old, rows, ptr, order, name, include_self)


def _updated(old: Tensor, index: Tensor, rows: Tensor, name: str, include_self: bool) -> Tensor:
    """Return old [M, F] with rows [E, F] reduced into it, from the kernels of readouts."""
    size = old.shape[0]
    index, ptr, order = groupings(index, size)
    is_empty = (ptr.diff() == 0).unsqueeze(1)
    if include_self:
        index = torch.cat([torch.arange(size, device=index.device), index])
        rows = torch.cat([old, rows])
        ptr, order = group(index, size)
    return torch.where(is_empty, old, _reduced(rows, index, ptr, order, name))


def _reduced(rows: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, name: str) -> Tensor:
    kernel: Any = kernel_for(rows.device, rows.dtype, "elementary")
    return kernel.reduce(rows, index, ptr, order, (name,))[:, 0]


def _scatter_reduce(
    x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, include_self: bool
) -> Tensor:
    out = x.clone(memory_format=torch.contiguous_format)
    if not scatter_(out, dim, index, source, reduce, include_self):
        out.scatter_reduce_(dim, index, source, reduce, include_self=include_self)
    return out


def _index_put(x: Tensor, indices: Sequence[Tensor | None], values: Tensor) -> Tensor:
    out = x.clone(memory_format=torch.contiguous_format)
    if not index_put_(out, indices, values):
        out.index_put_(tuple(indices), values, accumulate=True)
    return out


scatter_reduce = Operator(
    "scatter_reduce(Tensor x, int dim, Tensor index, Tensor source, str reduce, bool include_self) -> Tensor",
    _scatter_reduce,
    lambda x, *_: torch.empty_like(x, memory_format=torch.contiguous_format),
    onnx=lambda x, *arguments: torch.scatter_reduce(x, *arguments[:-1], include_self=arguments[-1]),
)
index_put = Operator(
    "index_put(Tensor x, Tensor?[] indices, Tensor values) -> Tensor",
    _index_put,
    lambda x, *_: torch.empty_like(x, memory_format=torch.contiguous_format),
    onnx=lambda x, indices, values: torch.index_put(x, indices, values, accumulate=True),
)
