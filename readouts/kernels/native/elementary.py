"""The elementary reductions in the native core: one pass over x forward, one pass backward."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from readouts.kernels.native.grouping import check
from readouts.kernels.native.library import DTYPES, core, is_available
from readouts.kernels.native.memory import new_tensor, ready, threads_for
from readouts.kernels.portable import elementary as portable
from readouts.reductions import result_dtype

KINDS = ("sum", "mean", "max", "min", "var", "std")  # as numbered in the core
NAMES = frozenset(KINDS)


def supports(dtype: torch.dtype) -> bool:
    """Return whether this module computes readouts of this dtype."""
    return dtype in DTYPES and is_available()


def reduce(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str]) -> Tensor:
    """Reduce the rows of x [N, F] that share an index to [B, R, F]; see `readouts.ops.reduce`."""
    if not x.is_floating_point():
        return torch.stack([_reduce_integers(x, index, ptr, order, name) for name in names], dim=1)
    (nodes, features), size = x.shape, ptr.shape[0] - 1
    kinds, blocks, _ = _entries(tuple(names))
    x, ptr = ready(x), ptr.contiguous()
    out = new_tensor(x, size, len(names), features)
    check(
        core.reduce(
            x.data_ptr(), DTYPES[x.dtype], nodes, features, ptr.data_ptr(), address(order), size,
            kinds, blocks, len(names), out.data_ptr(), threads_for(nodes * features),
        )
    )  # fmt: skip
    return out


def reduce_batch(x: Tensor, batch: Tensor, size: int, names: tuple[str, ...]) -> Tensor | None:
    """Reduce floats directly from a batch vector to [B, R * F]; None if an index is out of range."""
    nodes, features = x.shape
    kinds, blocks, _ = _entries(names)
    x, batch = ready(x), batch.contiguous()
    out = new_tensor(x, size, len(names) * features)
    status = core.reduce_batch(
        x.data_ptr(), DTYPES[x.dtype], nodes, features, batch.data_ptr(), batch.element_size(), size,
        kinds, blocks, len(names), out.data_ptr(), threads_for(nodes * features),
    )  # fmt: skip
    return out if status == 0 else None


def _reduce_integers(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, name: str) -> Tensor:
    (nodes, features), size = x.shape, ptr.shape[0] - 1
    x, ptr, dtype = ready(x), ptr.contiguous(), result_dtype(name, x.dtype)
    if dtype in (torch.float16, torch.bfloat16):  # the default dtype has 16 bits
        return portable.reduce(x, index, ptr, order, (name,))[:, 0]
    out = new_tensor(x, size, features, dtype=dtype)
    check(
        core.reduce_integers(
            x.data_ptr(), DTYPES[x.dtype], DTYPES[out.dtype], nodes, features, ptr.data_ptr(), address(order),
            size, KINDS.index(name), out.data_ptr(), threads_for(nodes * features),
        )
    )  # fmt: skip
    return out


def reduce_backward(
    grad: Tensor,
    x: Tensor | None,
    out: Tensor | None,
    index: Tensor,
    ptr: Tensor,
    order: Tensor | None,
    names: Sequence[str],
) -> Tensor:
    """Return the gradient [N, F] of `reduce` for x; see `readouts.ops.reduce_backward`."""
    kinds, blocks, _ = _entries(tuple(names))
    nodes, features, size = index.shape[0], grad.shape[2], ptr.shape[0] - 1
    grad, index, ptr = ready(grad), index.contiguous(), ptr.contiguous()
    x, out = (None if tensor is None else ready(tensor) for tensor in (x, out))
    result = new_tensor(grad, nodes, features)
    check(
        core.reduce_backward(
            grad.data_ptr(), address(x), address(out), DTYPES[grad.dtype], nodes, features, ptr.data_ptr(),
            address(order), index.data_ptr(), size, kinds, blocks, len(names), result.data_ptr(),
            threads_for(nodes * features),
        )
    )  # fmt: skip
    return result


def reduce_backward_batch(
    grad: Tensor, x: Tensor | None, out: Tensor | None, batch: Tensor, size: int, names: tuple[str, ...]
) -> Tensor:
    """Return the gradient [N, F] of `reduce_batch` for x, given that of its output [B, R * F]."""
    kinds, blocks, _ = _entries(names)
    nodes, features = batch.shape[0], grad.shape[1] // len(names)
    grad, batch = ready(grad), batch.contiguous()
    x = None if x is None else ready(x)
    result = new_tensor(grad, nodes, features)
    check(
        core.reduce_backward_batch(
            grad.data_ptr(), address(x), address(out), DTYPES[grad.dtype], nodes, features, batch.data_ptr(),
            batch.element_size(), size, kinds, blocks, len(names), result.data_ptr(),
            threads_for(nodes * features),
        )
    )  # fmt: skip
    return result


def address(tensor: Tensor | None) -> int | None:
    """Return the address of the memory of a contiguous tensor."""
    return None if tensor is None else tensor.data_ptr()


@functools.cache
def _entries(names: tuple[str, ...]) -> tuple[int, int, Tensor]:
    """Return the addresses of the reductions' numbers, ascending, and of their blocks.

    The third value is the table behind both addresses, kept alive by the cache.
    """
    places = sorted((KINDS.index(name), block) for block, name in enumerate(names))
    table = torch.tensor(list(zip(*places, strict=True)), dtype=torch.int64)
    return table[0].data_ptr(), table[1].data_ptr(), table
