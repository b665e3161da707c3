"""Readouts of graphs whose nodes are spread over the ranks of a process group, as functions.

Every function is that of the same name in `readouts`, with its value contract, for nodes of many processes:
every rank gives its own nodes, all get the result, and its bits are those of one process that has all nodes.
What goes between ranks grows with graphs and features, never with nodes. All ranks have to make the same
calls in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.distributed import ProcessGroup

from readouts import functional
from readouts.distributed.shard import agree_on_call
from readouts.functional.checks import check_empty, check_values, check_x, reduce_names
from readouts.functional.order import (
    INTERPOLATIONS,
    MIDDLES,
    check_choice,
    check_proportion,
    level_tensors,
    levels_of,
)
from readouts.segments import Segments


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
    """Reduce the nodes of every graph, on all ranks, to one row: the bits of `readouts.readout`.

    Sums are added up in integers and rounded once, max and min are taken of ordered bit patterns, medians
    are bisected. If every rank computes the same loss from the result, its nodes get their rows of the
    single-process gradient, to the bit, and backward sends nothing. First derivatives only.

    Args:
        x: features of the nodes of this rank [N, *features], any real dtype; N may differ from rank to
            rank, and be 0.
        batch: graph of every node of this rank, among those of all ranks; or `Segments`; or None, with `ptr`
            None, for one graph.
        reduce, empty: as for `readouts.readout`, and the same on all ranks.
        ptr: offsets of the graphs among the nodes of this rank, sorted; [B + 1] on all ranks.
        size: number of graphs B, the same on all ranks; None on all for the greatest that any rank sees.
        group: process group; None for the default one. Messages are made of int64, on the device of x.
        ddp: whether what comes before the readout is under DistributedDataParallel, which averages
            gradients over ranks. Every rank has a part of the nodes, so they should be added up: with True,
            gradients of nodes are multiplied by the number of ranks. Parameters behind the readout get
            whole gradients on every rank and need nothing.

    Returns:
        [B, *features], the same on every rank; shapes and dtypes as for `readouts.readout`.

    Raises:
        TypeError, ValueError, IndexError: on all ranks, if an argument of one cannot be used, or if their
            calls differ.
        RuntimeError: a rank is gone, or did not answer within the timeout of the group.
    """

    def check() -> str:
        check_x(x)
        check_empty(empty)
        return f"readout(reduce={reduce_names(reduce)}, empty={empty})"

    shard = agree_on_call(check, (x,), batch, ptr, size, group, ddp)
    return functional.readout(x, shard, reduce, empty=empty)


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
    """Take the median over the nodes of every graph on all ranks; see `readouts.median` and `readout`."""

    def check() -> str:
        check_x(x)
        check_empty(empty)
        check_choice("interpolation", interpolation, MIDDLES)
        return f"median(interpolation={interpolation}, empty={empty})"

    shard = agree_on_call(check, (x,), batch, ptr, size, group, ddp)
    return functional.median(x, shard, interpolation=interpolation, empty=empty)


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

    q is the same on all ranks; a tensor gets its whole gradient on every rank.
    """

    def check() -> str:
        check_x(x)
        check_empty(empty)
        check_choice("interpolation", interpolation, INTERPOLATIONS)
        levels = [float(level) for level in (level_tensors(q) if isinstance(q, Tensor) else levels_of(q))]
        return f"quantile(q={levels}, interpolation={interpolation}, empty={empty})"

    shard = agree_on_call(check, (x,), batch, ptr, size, group, ddp, (q,) if isinstance(q, Tensor) else ())
    return functional.quantile(x, shard, q, interpolation=interpolation, empty=empty)


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
    """Average what trimming keeps of every graph on all ranks; see `readouts.trimmed_mean` and `readout`."""

    def check() -> str:
        check_x(x)
        check_empty(empty)
        check_proportion(proportion)
        return f"trimmed_mean(proportion={proportion}, empty={empty})"

    shard = agree_on_call(check, (x,), batch, ptr, size, group, ddp)
    return functional.trimmed_mean(x, shard, proportion, empty=empty)


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
    """Average the nodes of all ranks with weights; see `readouts.weighted_mean` and `readout`."""

    def check() -> str:
        check_values("weight", weight, x)
        check_empty(empty)
        return f"weighted_mean(empty={empty})"

    shard = agree_on_call(check, (x, weight), batch, ptr, size, group, ddp)
    return functional.weighted_mean(x, weight, shard, empty=empty)


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

    The bits are those of one process as long as its `exp` is that of every rank: same PyTorch, same kind of
    processor.
    """

    def check() -> str:
        check_values("scores", scores, x)
        check_empty(empty)
        return f"softmax_mean(empty={empty})"

    shard = agree_on_call(check, (x, scores), batch, ptr, size, group, ddp)
    return functional.softmax_mean(x, scores, shard, empty=empty)


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
    """Return log sum_i exp(x_i) over the nodes of all ranks; see `readouts.logsumexp` and `softmax_mean`."""

    def check() -> str:
        check_x(x)
        check_empty(empty)
        return f"logsumexp(empty={empty})"

    shard = agree_on_call(check, (x,), batch, ptr, size, group, ddp)
    return functional.logsumexp(x, shard, empty=empty)
