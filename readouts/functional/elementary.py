"""Sum, mean, max, min, variance, standard deviation and median of every graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from readouts import ops
from readouts.functional.checks import check_empty, check_fits, check_x, reduce_names, segments_of
from readouts.keywords import explain_keywords
from readouts.segments import Segments, flat


@explain_keywords
def readout(
    x: Tensor,
    batch: Tensor | Segments | None = None,
    reduce: str | Sequence[str] = "mean",
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    empty: float = 0,
) -> Tensor:
    """Reduce the nodes of every graph to one row, with the same bits for every order of the nodes.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [4.0]])
        >>> readout(x, torch.tensor([0, 0, 1]), reduce=("sum", "mean", "max"))
        tensor([[3.0000, 1.5000, 2.0000],
                [4.0000, 4.0000, 4.0000]])

    With n the number of nodes of a graph and mu their mean in float64:

    - ``sum``: sum_i x_i, ``mean``: sum_i x_i / n; the exact value, rounded once to the dtype of x;
    - ``max``, ``min``: the greatest and the least value, unchanged, with -0 below +0;
    - ``var``: sum_i (x_i - mu)^2 / n, the exact mean of the float64 squares, rounded once (ddof = 0);
    - ``std``: the square root of ``var`` in float64, rounded once;
    - ``median``: the middle value, or the mean of the two middle values, rounded once.

    A NaN makes only its own graph and feature NaN; infinities follow IEEE 754; a sum of zero is +0. First
    and second derivatives exist. The gradient of max, min and median is shared equally among tied nodes, and
    the gradient of ``std`` is 0 where ``std`` is 0.

    Args:
        x: node features [N, *features], any real dtype. float16 and bfloat16 are accumulated
            without loss and rounded once.
        batch: graph of every node, int64 or int32 [N], in any order; or `Segments`, built once for
            several readouts; or None, with `ptr` None, for one graph.
        reduce: ``"sum"`` (or ``"add"``), ``"mean"``, ``"max"``, ``"min"``, ``"var"``, ``"std"``,
            ``"median"``, or several of them. All but the median are computed in one pass over x.
        ptr: offsets of sorted graphs (CSR pointer), int64 or int32 [B + 1], instead of `batch`.
        size: number of graphs B; default `batch.max() + 1`, which makes the CPU wait for a GPU.
        empty: value of a graph without nodes.

    Returns:
        [B, *features]; for several reductions [B, *features[:-1], R * features[-1]] (and [B, R] for
        one-dimensional x), blocks in the order given. The dtype is that of x; for integers and bool, sums
        are int64, and mean, var, std and median have the default float dtype.

    Raises:
        TypeError: an argument has an unsupported type or dtype.
        ValueError: an argument has an invalid value or shape.
        IndexError: an index in `batch` is negative or not below `size`.

    Source: Xu et al., "How powerful are graph neural networks?" (arXiv 1810.00826) for what sum, mean
    and max can distinguish.
    """
    check_x(x)
    names = reduce_names(reduce)
    check_empty(empty)
    if isinstance(batch, Tensor) and x.dim() == 2 and ptr is None and empty == 0 and "median" not in names:
        out = ops.reduce_batch(x, batch, size, names)
        if out is not None:
            return out
    segments = segments_of(x, batch, ptr, size)
    return reduced(segments.nodes(x), segments, names[0] if isinstance(reduce, str) else names, empty)


def reduced(x: Tensor, segments: Segments, reduce: str | Sequence[str], empty: float = 0) -> Tensor:
    """Return `readout` of values that `Segments.nodes` has returned."""
    names, rows = (reduce,) if isinstance(reduce, str) else tuple(reduce), flat(x)
    if "median" in names:
        blocks = _with_medians(rows, segments, names)
    elif x.dim() == 2 and empty == 0:
        return segments.reduce(rows, names)
    else:
        blocks = segments.reduce(rows, names).view(segments.size, len(names), rows.shape[1])
    return finish(blocks, x, segments, isinstance(reduce, str), empty)


def _with_medians(rows: Tensor, segments: Segments, names: tuple[str, ...]) -> Tensor:
    """Return a block for every name, [B, R, F]: medians in one pass, all other reductions in another."""
    others = tuple(name for name in names if name != "median")
    blocks = iter(segments.reduce(rows, others).chunk(len(others), dim=1) if others else ())
    medians = segments.midpoint(rows)
    if not others and len(names) == 1:
        return medians.unsqueeze(1)
    return torch.stack([medians if name == "median" else next(blocks) for name in names], dim=1)


def finish(out: Tensor, x: Tensor, segments: Segments, single: bool, empty: float) -> Tensor:
    """Fill empty graphs of blocks [B, R, F], restore the feature shape of x, concatenate the blocks."""
    if empty != 0:
        check_fits(empty, out.dtype)
        out = segments.fill_empty(out, empty)
    if x.dim() == 2:
        return out.flatten(1)
    out = out.unflatten(2, x.shape[1:]) if x.dim() > 1 else out
    if single:
        return out.squeeze(1).squeeze(1) if x.dim() == 1 else out.squeeze(1)
    return out.movedim(1, -2).flatten(-2)


@explain_keywords
def global_add_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """Sum the nodes of every graph; replaces `torch_geometric.nn.global_add_pool`.

    Nodes lie along dimension -2 of x (-1 if x has one dimension), as in PyG. See `readout`.

    Example:
        >>> global_add_pool(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1]))
        tensor([[3.],
                [4.]])
    """
    return _global_pool(x, batch, size, "sum")


@explain_keywords
def global_mean_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """Average the nodes of every graph; replaces `torch_geometric.nn.global_mean_pool`.

    Nodes lie along dimension -2 of x (-1 if x has one dimension), as in PyG. See `readout`.

    Example:
        >>> global_mean_pool(torch.tensor([[1.0], [3.0], [4.0]]), torch.tensor([0, 0, 1]))
        tensor([[2.],
                [4.]])
    """
    return _global_pool(x, batch, size, "mean")


@explain_keywords
def global_max_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """Take the maximum over the nodes of every graph; replaces `torch_geometric.nn.global_max_pool`.

    Nodes lie along dimension -2 of x (-1 if x has one dimension), as in PyG. See `readout`.

    Example:
        >>> global_max_pool(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1]))
        tensor([[2.],
                [4.]])
    """
    return _global_pool(x, batch, size, "max")


def nodes_first(x: Tensor, dim: int) -> tuple[Tensor, int | None]:
    """Move the dimension of the nodes to the front; return x and where to move it back, None for nowhere."""
    if dim in (0, -x.dim()):  # an unnecessary view takes as long as a small batch
        return x, None
    if not -x.dim() <= dim < x.dim():
        raise ValueError(f"dim: expected from {-x.dim()} to {x.dim() - 1}, a dimension of x, got {dim}")
    return x.movedim(dim, 0), dim


def nodes_back(out: Tensor, back: int | None) -> Tensor:
    """Move the dimension of the graphs to where `nodes_first` found that of the nodes; contiguous."""
    return out if back is None else out.movedim(0, back).contiguous()


def _global_pool(x: Tensor, batch: Tensor | None, size: int | None, reduce: str) -> Tensor:
    check_x(x)
    x, back = nodes_first(x, -1 if x.dim() == 1 else -2)
    size = None if batch is None else size  # PyG, too, ignores `size` without a batch
    out = readout(x, batch, reduce, size=size)
    if back is None:
        return out
    return out.squeeze(0) if batch is None else nodes_back(out, back)
