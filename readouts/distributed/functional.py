"""Readouts of graphs whose nodes are spread over the ranks of a process group, as functions.

Every function corresponds to the function of the same name in `readouts` and has the same value contract.
Every rank passes its own nodes, and every rank gets the result, with the bits of a single process that has
all nodes. The amount of data sent grows with the numbers of graphs and features, not with the number of
nodes. All ranks must make the same calls in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.distributed import ProcessGroup

import readouts
from readouts.distributed.shard import agree_on_call
from readouts.functional.checks import check_empty, check_values, check_x, reduce_names
from readouts.functional.order import (
    INTERPOLATIONS,
    MIDDLES,
    all_levels_of,
    check_choice,
    check_proportion,
)
from readouts.keywords import explain_keywords
from readouts.segments import Segments


@explain_keywords
def readout(
    x: Tensor,
    batch: Tensor | Segments | None = None,
    reduce: str | Sequence[str] = "mean",
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    empty: float = 0,
    group: ProcessGroup | None = None,
    ddp: bool = False,
) -> Tensor:
    """Reduce the nodes of every graph, on all ranks, to one row, with the bits of `readouts.readout`.

    Example:
        >>> x, batch = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1])  # the nodes of this rank
        >>> readout(x, batch, "mean", size=2)  # on every rank
        tensor([[1.5000],
                [4.0000]])

    Sums are accumulated in integers and rounded once, max and min compare ordered bit patterns, medians are
    found by bisection. If every rank computes the same loss from the result, each node gets its row of the
    single-process gradient, to the bit, and backward sends nothing. First derivatives only.

    Args:
        x: features of the nodes of this rank [N, *features], any real dtype; N may differ between ranks
            and may be 0.
        batch: graph of every node of this rank, with the same numbers on all ranks; or `Segments`; or None,
            with `ptr` None, for one graph.
        reduce, empty: as for `readouts.readout`, and the same on all ranks.
        ptr: offsets of the graphs among the nodes of this rank, sorted; [B + 1] on all ranks.
        size: number of graphs B, the same on all ranks; or None on all ranks for the maximum over ranks.
        group: process group; None for the default one. Messages are int64 tensors on the device of x.
        ddp: whether the layers before the readout are under DistributedDataParallel, which averages
            gradients over ranks. Every rank has a part of the nodes, so the gradients must be summed
            instead; with True, gradients of nodes are multiplied by the number of ranks. Parameters after
            the readout get full gradients on every rank and need no correction.

    Returns:
        [B, *features], the same on every rank; shapes and dtypes as for `readouts.readout`.

    Raises:
        TypeError, ValueError, IndexError: on all ranks, if an argument is invalid on one of them or if their
            calls differ.
        RuntimeError: a rank has failed, or did not answer within the timeout of the group.
    """

    def check() -> str:
        check_x(x)
        check_empty(empty)
        return f"readout(reduce={reduce_names(reduce)}, empty={empty})"

    shard = agree_on_call(check, (x,), batch, ptr, size, group, ddp)
    return readouts.readout(x, shard, reduce, empty=empty)


@explain_keywords
def median(
    x: Tensor,
    batch: Tensor | Segments | None = None,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    interpolation: str = "midpoint",
    empty: float = 0,
    group: ProcessGroup | None = None,
    ddp: bool = False,
) -> Tensor:
    """Take the median over the nodes of every graph on all ranks; see `readouts.median` and `readout`.

    Example:
        >>> x, batch = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1])  # the nodes of this rank
        >>> median(x, batch, size=2)  # on every rank
        tensor([[1.5000],
                [4.0000]])
    """

    def check() -> str:
        check_x(x)
        check_empty(empty)
        check_choice("interpolation", interpolation, MIDDLES)
        return f"median(interpolation={interpolation}, empty={empty})"

    shard = agree_on_call(check, (x,), batch, ptr, size, group, ddp)
    return readouts.median(x, shard, interpolation=interpolation, empty=empty)


@explain_keywords
def quantile(
    x: Tensor,
    batch: Tensor | Segments | None,
    q: float | Sequence[float] | Tensor,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    interpolation: str = "linear",
    empty: float = 0,
    group: ProcessGroup | None = None,
    ddp: bool = False,
) -> Tensor:
    """Take quantiles over the nodes of every graph on all ranks; see `readouts.quantile` and `readout`.

    Example:
        >>> x, batch = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1])  # the nodes of this rank
        >>> quantile(x, batch, 0.25, size=2)  # on every rank
        tensor([[1.2500],
                [4.0000]])

    q must be the same on all ranks; if q is a tensor, every rank gets its full gradient.
    """

    def check() -> str:
        check_x(x)
        check_empty(empty)
        check_choice("interpolation", interpolation, INTERPOLATIONS)
        levels = [float(level) for level in all_levels_of(q)]
        return f"quantile(q={levels}, interpolation={interpolation}, empty={empty})"

    shard = agree_on_call(check, (x,), batch, ptr, size, group, ddp, (q,) if isinstance(q, Tensor) else ())
    return readouts.quantile(x, shard, q, interpolation=interpolation, empty=empty)


@explain_keywords
def trimmed_mean(
    x: Tensor,
    batch: Tensor | Segments | None,
    proportion: float,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    empty: float = 0,
    group: ProcessGroup | None = None,
    ddp: bool = False,
) -> Tensor:
    """Take the trimmed mean of every graph over all ranks; see `readouts.trimmed_mean` and `readout`.

    Example:
        >>> x, batch = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1])  # the nodes of this rank
        >>> trimmed_mean(x, batch, 0.2, size=2)  # on every rank
        tensor([[1.5000],
                [4.0000]])
    """

    def check() -> str:
        check_x(x)
        check_empty(empty)
        check_proportion(proportion)
        return f"trimmed_mean(proportion={proportion}, empty={empty})"

    shard = agree_on_call(check, (x,), batch, ptr, size, group, ddp)
    return readouts.trimmed_mean(x, shard, proportion, empty=empty)


@explain_keywords
def weighted_mean(
    x: Tensor,
    weight: Tensor,
    batch: Tensor | Segments | None = None,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    empty: float = 0,
    group: ProcessGroup | None = None,
    ddp: bool = False,
) -> Tensor:
    """Average the nodes of all ranks with weights; see `readouts.weighted_mean` and `readout`.

    Example:
        >>> x, batch = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1])  # the nodes of this rank
        >>> weighted_mean(x, torch.tensor([1.0, 3.0, 1.0]), batch, size=2)  # on every rank
        tensor([[1.7500],
                [4.0000]])
    """

    def check() -> str:
        check_values("weight", weight, x)
        check_empty(empty)
        return f"weighted_mean(empty={empty})"

    shard = agree_on_call(check, (x, weight), batch, ptr, size, group, ddp)
    return readouts.weighted_mean(x, weight, shard, empty=empty)


@explain_keywords
def softmax_mean(
    x: Tensor,
    scores: Tensor,
    batch: Tensor | Segments | None = None,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    empty: float = 0,
    group: ProcessGroup | None = None,
    ddp: bool = False,
) -> Tensor:
    """Average the nodes of all ranks with the softmax of scores; see `readouts.softmax_mean` and `readout`.

    Example:
        >>> x, batch = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1])  # the nodes of this rank
        >>> softmax_mean(x, torch.zeros(3), batch, size=2)  # on every rank
        tensor([[1.5000],
                [4.0000]])

    The bits are those of a single process if `exp` returns the same bits on every rank: same version of
    PyTorch, same kind of processor.
    """

    def check() -> str:
        check_values("scores", scores, x)
        check_empty(empty)
        return f"softmax_mean(empty={empty})"

    shard = agree_on_call(check, (x, scores), batch, ptr, size, group, ddp)
    return readouts.softmax_mean(x, scores, shard, empty=empty)


@explain_keywords
def logsumexp(
    x: Tensor,
    batch: Tensor | Segments | None = None,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    empty: float = 0,
    group: ProcessGroup | None = None,
    ddp: bool = False,
) -> Tensor:
    """Return log sum_i exp(x_i) over the nodes of all ranks; see `readouts.logsumexp` and `softmax_mean`.

    Example:
        >>> x, batch = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1])  # the nodes of this rank
        >>> logsumexp(x, batch, size=2)  # on every rank
        tensor([[2.3133],
                [4.0000]])
    """

    def check() -> str:
        check_x(x)
        check_empty(empty)
        return f"logsumexp(empty={empty})"

    shard = agree_on_call(check, (x,), batch, ptr, size, group, ddp)
    return readouts.logsumexp(x, shard, empty=empty)
