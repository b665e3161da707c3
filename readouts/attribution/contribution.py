"""Per-node contributions to a readout, and the weights of averages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeGuard

import torch
from torch import Tensor, nn

from readouts.functional.checks import check_x, segments_of
from readouts.keywords import explain_keywords
from readouts.nn import MultiReadout, QuantileReadout, readout_resolver
from readouts.nn.base import Readout
from readouts.segments import Segments

NAMES = ("sum", "add", "mean", "max", "min", "median")
EXPECTED = "sum, add, mean, max, min, median, or a module of `readouts.nn`"


@explain_keywords
def contributions(
    reduce: str | nn.Module | Sequence[str | nn.Module],
    x: Tensor,
    batch: Tensor | Segments | None = None,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    r"""Split the readout of every graph into one part per node; the parts add up to the readout.

    With n the number of nodes of a graph:

    - ``sum``: x_i;
    - ``mean``: x_i / n;
    - ``max``, ``min``: the extreme value divided by the number of nodes that have it, for each of these;
      0 for all others;
    - ``median``, `MedianReadout`, `QuantileReadout`, `TrimmedMeanReadout`: the same for each of the values
      that the readout averages, times its share in the average;
    - `WeightedMeanReadout`, `SoftmaxReadout`, `AttentionReadout`: a_i v_i, the weight times the value.

    The parts of a sum add up to the bit. The others are rounded to the dtype of the result, and add up to
    that rounding; those of mean, max and min to the bit where n, or the number of tied nodes, is a power of
    two. If the output is NaN or infinite, so are the parts of the nodes that caused this. Parts have no
    gradient.

    Args:
        reduce: one of these names, a module of `readouts.nn`, or several of both.
        x: node features [N, *features], any real dtype.
        batch: graph of every node, int64 or int32 [N], in any order, or `Segments`; None, with `ptr`
            None, for one graph.
        ptr: offsets of sorted graphs, int64 or int32 [B + 1], instead of `batch`.
        size: number of graphs B; by default taken from `batch`.
        weight: the weights for `WeightedMeanReadout`, if it has no gate.

    Returns:
        [N, *features], or the features that a module returns; several readouts side by side along the last
        dimension, as in `readout`. The dtype is that of x; integers and bool give int64 for the sum, else
        the default float dtype. A graph without nodes has no contributions, whatever its value.

    Raises:
        TypeError: an argument has a type or dtype that cannot be used.
        ValueError: `reduce` has no such parts, or `batch`, `ptr` or `weight` do not fit x.
        IndexError: an index in `batch` is negative or not below `size`.

    Example:
        >>> x = torch.tensor([[1.0], [4.0], [4.0]])
        >>> contributions(("mean", "max"), x, torch.tensor([0, 0, 0])).T
        tensor([[0.3333, 1.3333, 1.3333],
                [0.0000, 2.0000, 2.0000]])
    """
    several = list(reduce.readouts) if _is_side_by_side(reduce) else reduce
    with _ordinary_tensors(x, batch, ptr, size, weight) as (x, graphs, weight):
        columns = x.unsqueeze(1) if x.dim() == 1 else x
        if isinstance(several, str | nn.Module):
            blocks = isinstance(several, QuantileReadout) and not isinstance(several.q, int | float)
            return _parts(several, columns if blocks else x, graphs, weight)
        if not isinstance(several, tuple | list) or not several:
            raise ValueError(f"reduce: expected {EXPECTED}, or several of these, got {reduce!r}")
        return torch.cat([_parts(member, columns, graphs, weight) for member in several], dim=-1)


@explain_keywords
def attention_weights(
    readout: Readout,
    x: Tensor,
    batch: Tensor | Segments | None = None,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Return the weights with which a readout averages the nodes: they add up to 1 in every graph and column.

    Example:
        >>> from readouts.nn import SoftmaxReadout
        >>> x = torch.tensor([[1.0], [1.0], [5.0]])
        >>> attention_weights(SoftmaxReadout(), x, torch.tensor([0, 0, 1]))
        tensor([[0.5000],
                [0.5000],
                [1.0000]])

    Args:
        readout: `AttentionReadout`, `MultiheadAttentionReadout`, `Set2SetReadout`, `SoftmaxReadout` or
            `WeightedMeanReadout`.
        x: node features [N, F], as the readout takes them.
        batch, ptr, size: as for `contributions`.
        weight: the weights for `WeightedMeanReadout`, if it has no gate.

    Returns:
        One row for each node. `AttentionReadout`: [N, 1], or [N, F'] with one score for each feature.
        `MultiheadAttentionReadout`: [N, seeds * heads], the heads of a seed side by side. `Set2SetReadout`:
        [N, T], one column for each step. `SoftmaxReadout` and `WeightedMeanReadout`: [N, F]. Weights have
        no gradient.

    Raises:
        TypeError: `readout` is no readout module, or an argument has an unsupported type.
        ValueError: the readout has no weights, or an argument does not fit x.

    Source: Li et al., arXiv 1511.05493; Lee et al., arXiv 1810.00825; Vinyals et al., arXiv 1511.06391.
    """
    if not isinstance(readout, Readout):
        raise TypeError(f"readout: expected a module of `readouts.nn`, got {type(readout).__name__}")
    with _ordinary_tensors(x, batch, ptr, size, weight) as (x, graphs, weight):
        return readout.attention(x, graphs, weight).detach()


def _is_side_by_side(reduce: object) -> TypeGuard[MultiReadout]:
    return isinstance(reduce, MultiReadout) and reduce.mode == "cat"


@contextmanager
def _ordinary_tensors(
    x: Tensor,
    batch: Tensor | Segments | None,
    ptr: Tensor | None,
    size: int | None,
    weight: Tensor | None,
) -> Iterator[tuple[Tensor, Segments, Tensor | None]]:
    """Yield constants that derivatives may be taken of, also in inference mode: slopes are derivatives."""
    check_x(x)
    with torch.inference_mode(False), torch.no_grad():
        graphs = segments_of(x, batch, ptr, size)
        order = None if graphs.order is None else _ordinary(graphs.order)
        graphs = Segments(_ordinary(graphs.index), _ordinary(graphs.ptr), order)
        yield _ordinary(x.detach()), graphs, None if weight is None else _ordinary(weight)


def _ordinary(tensor: Tensor) -> Tensor:
    """Return a tensor that derivatives may be taken of, which one that was made in inference mode is not."""
    return tensor.clone() if tensor.is_inference() else tensor


def _parts(reduce: str | nn.Module, x: Tensor, graphs: Segments, weight: Tensor | None) -> Tensor:
    if isinstance(reduce, str) and reduce in NAMES:
        reduce = readout_resolver(reduce)
    if not isinstance(reduce, Readout):
        raise ValueError(f"reduce: expected {EXPECTED}, got {reduce!r}")
    return reduce.contribution(x, graphs, weight)
