"""The operators as plain scatter operations, which ONNX has: for export only, values up to rounding.

`torch.onnx.export(..., dynamo=True)` replaces each operator by its function here. `torch.export` and
torch.compile keep the exact operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

import torch
from torch import Tensor

from readouts.reductions import result_dtype


def group(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the offsets of the graphs, and the nodes sorted by graph."""
    ends = _counts(index, size).cumsum(0)
    return torch.cat([ends.new_zeros(1), ends]), index.sort(stable=True)[1]


def expand_ptr(ptr: Tensor, num_nodes: int) -> Tensor:
    """Return the graph of every node: how many offsets after the first are not above its position."""
    return _counts(ptr[1:], num_nodes + 1)[:num_nodes].cumsum(0)


def reduce(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str]) -> Tensor:
    """Return the reductions [B, R, F] of the rows of x [N, F]; half precision is computed in float32."""
    size = ptr.shape[0] - 1
    count = ptr.diff().unsqueeze(1)
    wide = x.to(torch.promote_types(x.dtype, torch.float32) if x.is_floating_point() else torch.int64)
    blocks = [_reduce(wide, index, size, count, name, result_dtype(name, x.dtype)) for name in names]
    dtype = blocks[0].dtype
    for block in blocks[1:]:
        dtype = torch.promote_types(dtype, block.dtype)
    return torch.stack([block.to(dtype) for block in blocks], dim=1)


def _reduce(x: Tensor, index: Tensor, size: int, count: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    """Return one reduction [B, F]; count is [B, 1]."""
    if name in ("max", "min"):
        return _extremes(x, index, size, name).masked_fill(count == 0, 0).to(dtype)
    total = _sums(x, index, size)
    if name == "sum":
        return total.to(dtype)
    rows = x if x.is_floating_point() else x.to(dtype)
    mean = total.to(rows.dtype) / count.clamp(min=1)
    if name == "mean":
        return mean.to(dtype)
    var = _sums((rows - mean.index_select(0, index)).square(), index, size) / count.clamp(min=1)
    return (var if name == "var" else var.sqrt()).to(dtype)


def _extremes(x: Tensor, index: Tensor, size: int, name: str) -> Tensor:
    """Return the maxima or minima of graphs with nodes; runtimes skip a NaN, and here it is added again."""
    if x.is_floating_point():
        start = -torch.inf if name == "max" else torch.inf
    else:
        start = torch.iinfo(x.dtype).min if name == "max" else torch.iinfo(x.dtype).max
    rows = x.new_full((size, x.shape[1]), start)
    found = rows.scatter_reduce(0, _beside(index, x), x, f"a{name}")
    return found + _sums(x.where(x.isnan(), 0), index, size) if x.is_floating_point() else found


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
    """Copy the rows of graphs to their nodes, which is the gradient of a sum; there are no others in ONNX."""
    if tuple(names) != ("sum",):
        refusal("the gradient of a readout")()
    return grad.squeeze(1).index_select(0, index)


def refusal(what: str) -> Callable[..., NoReturn]:
    """Return a function that says that an operator has no counterpart in ONNX."""

    def refuse(*arguments: object) -> NoReturn:
        raise NotImplementedError(
            "torch.onnx.export: expected readouts made of sum, mean, max, min, var, std, softmax or "
            f"attention, got {what}, which has no counterpart in ONNX"
        )

    return refuse


def _counts(index: Tensor, size: int) -> Tensor:
    return index.new_zeros(size).scatter_add(0, index, torch.ones_like(index))


def _sums(x: Tensor, index: Tensor, size: int) -> Tensor:
    return x.new_zeros(size, x.shape[1]).scatter_add(0, _beside(index, x), x)


def _beside(index: Tensor, x: Tensor) -> Tensor:
    return index.unsqueeze(1).expand(x.shape)
