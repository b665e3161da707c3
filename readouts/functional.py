"""The readouts as functions: mathematics, value contract, validation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from readouts import ops
from readouts.reductions import ELEMENTARY
from readouts.segments import Segments, check_size

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
REDUCTIONS = (*ELEMENTARY, "median")


def readout(
    x: Tensor,
    batch: Tensor | Segments | None = None,
    reduce: str | Sequence[str] = "mean",
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    empty: float = 0,
) -> Tensor:
    r"""Reduce the nodes of every graph to one row: the same bits for every order of the nodes.

    With n the number of nodes of a graph and mu the float64 mean:

    - ``sum``: sum_i x_i, ``mean``: sum_i x_i / n; the exact values, rounded once to the dtype of x;
    - ``max``, ``min``: the extreme value as it is, with -0 below +0;
    - ``var``: sum_i (x_i - mu)^2 / n, the exact mean of the float64 squares, rounded once (ddof = 0);
    - ``std``: the square root of ``var`` in float64, rounded once;
    - ``median``: the middle value, or the mean of the two middle values, rounded once.

    NaN makes its graph and feature NaN and nothing else; infinities follow IEEE 754; a sum that is
    zero is +0. Gradients flow to first and second order; ties of max, min and median share theirs equally,
    and the gradient of ``std`` is 0 where ``std`` is 0.

    Args:
        x: node features [N, *features], any real dtype. float16 and bfloat16 are accumulated
            without loss and rounded once.
        batch: graph of every node, int64 or int32 [N], in any order, or `Segments` to share among
            readouts; None, with `ptr` None, for one graph.
        reduce: ``"sum"``, ``"mean"``, ``"max"``, ``"min"``, ``"var"``, ``"std"``, ``"median"``, or several
            of them, all but the median made in one pass over x.
        ptr: offsets of sorted graphs, int64 or int32 [B + 1], instead of `batch`.
        size: number of graphs B; by default taken from `batch`, which makes a GPU wait.
        empty: value of a graph without nodes.

    Returns:
        [B, *features]; for several reductions [B, *features[:-1], R * features[-1]] (and [B, R] for
        one-dimensional x), blocks in the order given. The dtype is that of x; integers and bool give
        int64 sums and mean, var, std and median in the default float dtype.

    Raises:
        TypeError: an argument has a type or dtype that cannot be used.
        ValueError: an argument has a value or shape that cannot be used.
        IndexError: `batch` names a graph that is not there.

    Source: Xu et al., "How powerful are graph neural networks?" (arXiv 1810.00826) for what sum, mean
    and max can tell apart.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [4.0]])
        >>> readout(x, torch.tensor([0, 0, 1]), reduce=("sum", "mean", "max"))
        tensor([[3.0000, 1.5000, 2.0000],
                [4.0000, 4.0000, 4.0000]])
    """
    check_x(x)
    names = reduce_names(reduce)
    check_empty(empty)
    if isinstance(batch, Tensor) and x.dim() == 2 and ptr is None and empty == 0 and "median" not in names:
        out = ops.reduce_batch(x, batch, size, names)
        if out is not None:
            return out
    segments = segments_of(x, batch, ptr, size)
    if x.dim() == 2 and empty == 0 and "median" not in names:
        return ops.reduce_flat(x, segments.index, segments.ptr, segments.order, names)
    rows = x if x.dim() == 2 else x.flatten(1) if x.dim() > 2 else x.unsqueeze(1)
    return arranged(_blocks(rows, segments, names), x, segments, isinstance(reduce, str), empty)


def arranged(out: Tensor, x: Tensor, segments: Segments, single: bool, empty: float) -> Tensor:
    """Fill empty graphs of blocks [B, R, F], restore the feature shape of x, concatenate the blocks."""
    if empty != 0:
        check_fits(empty, out.dtype)
        out = out.masked_fill((segments.count == 0).view(-1, 1, 1), empty)
    if x.dim() == 2:
        return out.flatten(1)
    out = out.unflatten(2, x.shape[1:]) if x.dim() > 1 else out
    if single:
        return out.squeeze(1).squeeze(1) if x.dim() == 1 else out.squeeze(1)
    return out.movedim(1, -2).flatten(-2)


def global_add_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """Sum the nodes of every graph; the signature of `torch_geometric.nn.global_add_pool`.

    Nodes lie along dimension -2 of x (-1 if there is only one), as in PyG. See `readout`.
    """
    return _global_pool(x, batch, size, "sum")


def global_mean_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """Average the nodes of every graph; the signature of `torch_geometric.nn.global_mean_pool`.

    Nodes lie along dimension -2 of x (-1 if there is only one), as in PyG. See `readout`.
    """
    return _global_pool(x, batch, size, "mean")


def global_max_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """Take the maximum over the nodes of every graph; the signature of `torch_geometric.nn.global_max_pool`.

    Nodes lie along dimension -2 of x (-1 if there is only one), as in PyG. See `readout`.
    """
    return _global_pool(x, batch, size, "max")


def _global_pool(x: Tensor, batch: Tensor | None, size: int | None, reduce: str) -> Tensor:
    check_x(x)
    dim = -1 if x.dim() == 1 else -2
    size = None if batch is None else size  # PyG, too, looks at the size of a batch only
    out = readout(x.movedim(dim, 0), batch, reduce, size=size).movedim(0, dim)
    return out.squeeze(dim) if batch is None and x.dim() > 2 else out


def _blocks(rows: Tensor, segments: Segments, names: tuple[str, ...]) -> Tensor:
    """Return a block for every name, [B, R, F]: one pass for the medians, one for all others."""
    fused = tuple(name for name in names if name != "median")
    groups = segments.index, segments.ptr, segments.order
    out = ops.reduce(rows, *groups, fused) if fused else None
    if out is not None and fused == names:
        return out
    medians = ops.midpoint(rows, *groups)
    blocks = iter(() if out is None else out.unbind(1))
    return torch.stack([medians if name == "median" else next(blocks) for name in names], dim=1)


def check_x(x: Tensor) -> None:
    """Raise unless x is a dense tensor of node features with a real dtype."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x: expected a tensor, got {type(x).__name__}")
    if x.dtype not in FLOATS + INTEGERS:
        raise TypeError(f"x: expected a real dtype, one of {_listed(FLOATS + INTEGERS)}, got {x.dtype}")
    if x.layout != torch.strided:
        raise TypeError(f"x: expected a dense tensor, got layout {x.layout}")
    if x.dim() == 0:
        raise ValueError("x: expected node features [N, *features], got a scalar")


def reduce_names(reduce: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of reductions as a tuple; raise if there are none, or unknown ones."""
    names = (reduce,) if isinstance(reduce, str) else reduce
    if not isinstance(names, tuple | list):
        raise TypeError(f"reduce: expected a name or a sequence of names, got {type(reduce).__name__}")
    if not names:
        raise ValueError(f"reduce: expected at least one of {_listed(REDUCTIONS)}, got none")
    for name in names:
        if name not in REDUCTIONS:
            raise ValueError(f"reduce: expected one of {_listed(REDUCTIONS)}, got {name!r}")
    return tuple(names)


def segments_of(x: Tensor, batch: Tensor | Segments | None, ptr: Tensor | None, size: int | None) -> Segments:
    """Return the graphs of x, however they are given; raise where they do not fit it."""
    check_size(size)
    if batch is not None and ptr is not None:
        raise ValueError("batch, ptr: expected one of the two, got both")
    if ptr is not None:
        segments = Segments.from_ptr(ptr, x.shape[0])
    elif isinstance(batch, Segments):
        segments = batch
        segments.check_unchanged()
    elif batch is not None:
        segments = Segments.from_batch(batch, size)
    else:
        segments = Segments.single(x.shape[0], x.device)
    if segments.num_nodes != x.shape[0]:
        raise ValueError(
            f"batch: expected one graph index for each of the {x.shape[0]} nodes, got {segments.num_nodes}"
        )
    if segments.index.device != x.device:
        raise ValueError(
            f"batch: expected a tensor on the device of x, {x.device}, got {segments.index.device}"
        )
    if size is not None and segments.size != size:
        raise ValueError(f"size: expected {segments.size}, the number of graphs, got {size}")
    return segments


def graphs_of(
    x: Tensor, batch: Tensor | Segments | None, ptr: Tensor | None, size: int | None, empty: float
) -> Segments:
    """Return the graphs of x; raise where x, they, or the value of an empty graph cannot be used."""
    check_x(x)
    check_empty(empty)
    return segments_of(x, batch, ptr, size)


def check_empty(empty: float) -> None:
    """Raise unless `empty` is a real number."""
    if not isinstance(empty, int | float):
        raise TypeError(f"empty: expected a real number, got {type(empty).__name__}")


def check_fits(empty: float, dtype: torch.dtype) -> None:
    """Raise unless a number of this dtype is, or for floats is next to, `empty`."""
    if dtype.is_floating_point:
        fits = not math.isfinite(empty) or abs(empty) <= torch.finfo(dtype).max
    elif dtype == torch.bool:
        fits = empty in (0, 1)
    else:
        limits = torch.iinfo(dtype)
        fits = math.isfinite(empty) and empty == int(empty) and limits.min <= empty <= limits.max
    if not fits:
        raise ValueError(f"empty: expected a value of dtype {dtype}, got {empty}")


def _listed(names: Sequence[object]) -> str:
    return ", ".join(str(name) for name in names)
