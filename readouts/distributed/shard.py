"""`Shard`: the nodes of this rank among the graphs of all ranks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from readouts import weighted
from readouts.distributed.ranks import Ranks
from readouts.distributed.sums import sum_over
from readouts.functional import segments_of
from readouts.segments import Segments


class Shard:
    """The nodes of this rank, and the graphs that all ranks have agreed on.

    Attributes:
        segments: the graphs of the nodes of this rank, all B of them.
        everywhere: `Segments` whose counts are those of all ranks; its nodes are nowhere.
        count: number of nodes of every graph on all ranks, int64 [B].
        watched: whether some rank wants gradients.
        scale: what gradients of nodes are multiplied with.
    """

    def __init__(self, segments: Segments, ranks: Ranks, watched: bool, scale: int) -> None:
        """Count the nodes of every graph, in one message."""
        self.segments, self.ranks, self.watched, self.scale = segments, ranks, watched, scale
        (self.count,) = ranks.sum(segments.count)
        borders = torch.nn.functional.pad(self.count.cumsum(0), (1, 0))
        self.everywhere = Segments(segments.index, borders)

    @property
    def groups(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Index, ptr and order of the nodes of this rank, as operators take them."""
        return self.segments.index, self.segments.ptr, self.segments.order

    def enter(self, x: Tensor) -> Tensor:
        """Return values of nodes [N, ...], with their gradient to be scaled, and wanted if any rank does.

        So a rank without parameters before the readout makes the same messages backward as all others.
        """
        if not torch.is_grad_enabled() or not x.is_floating_point():
            return x
        if self.watched and not x.requires_grad:
            x = x.detach().requires_grad_()
        return x if self.scale == 1 else _Scale.apply(x, self.scale)

    def expand(self, values: Tensor) -> Tensor:
        """Give every node the row of its graph, [B, ...] -> [N, ...].

        Backward is the exact sum over the nodes of all ranks, in two messages.
        """
        return _Expand.apply(values, self) if values.requires_grad else weighted.expand(values, self.segments)


def meet(
    check: Callable[[], str],
    tensors: tuple[Any, ...],
    batch: Tensor | Segments | None,
    ptr: Tensor | None,
    size: int | None,
    group: ProcessGroup | None,
    ddp: bool,
    parameters: tuple[Tensor, ...] = (),
) -> Shard:
    """Return the shard of x, the first of the tensors, or raise the same error on all ranks.

    Args:
        check: raises if this rank cannot take part; else it says in words what is to be computed.
        tensors: values of the nodes of this rank, all [N, ...], x first.
        batch, ptr, size, group, ddp: as for `readouts.distributed.readout`.
        parameters: what may want gradients beside the tensors.
    """
    ranks, segments, call, problem = Ranks(group), None, "", None
    device = _device(tensors, group)
    try:
        text = check()
        segments = segments_of(tensors[0], batch, ptr, size)
        known = size is not None or not isinstance(batch, Tensor)
        call = _in_words(text, tensors, device, segments.size if known else None, ddp)
    except Exception as error:
        problem = error
    involved = [tensor for tensor in (*tensors, *parameters) if isinstance(tensor, Tensor)]
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in involved)
    most = 0 if segments is None else segments.size
    most, watched = ranks.agree(call, problem, device, most, wanted)
    assert segments is not None
    borders = torch.nn.functional.pad(segments.ptr, (0, most - segments.size), value=segments.num_nodes)
    segments = Segments(segments.index, borders, segments.order)
    return Shard(segments, ranks, bool(watched), ranks.number if ddp else 1)


def _device(tensors: tuple[Any, ...], group: ProcessGroup | None) -> torch.device:
    """Return where the messages of this call lie; NCCL takes those on a GPU only."""
    if dist.get_backend(group) == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return tensors[0].device if isinstance(tensors[0], Tensor) else torch.device("cpu")


def _in_words(
    text: str, tensors: tuple[Tensor, ...], device: torch.device, size: int | None, ddp: bool
) -> str:
    """Describe a call by all that has to be the same on all ranks."""
    for tensor in tensors:
        if tensor.device != device:
            raise ValueError(f"x: expected a tensor on {device}, where the group sends, got {tensor.device}")
    shapes = ", ".join(
        f"{str(tensor.dtype).removeprefix('torch.')} [{', '.join(['N', *map(str, tensor.shape[1:])])}]"
        for tensor in tensors
    )
    default = "" if tensors[0].is_floating_point() else f", {torch.get_default_dtype()} for averages"
    return f"{text} of {shapes}{default}, size={size}{', ddp=True' if ddp else ''}"


def first_derivative(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Make a backward that raises a RuntimeError where it is to be differentiated in turn."""

    @functools.wraps(backward)
    def checked(ctx: Any, *grads: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("readouts.distributed: expected a first derivative, got create_graph=True")
        return backward(ctx, *grads)

    return checked


class _Scale(torch.autograd.Function):
    """The values as they are, their gradient times a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: int) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.scale, None


class _Expand(torch.autograd.Function):
    """`Shard.expand`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, shard: Shard) -> Tensor:
        ctx.shard = shard
        return weighted.expand(values, shard.segments)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        segments = ctx.shard.segments
        rows = grad.flatten(1) if grad.dim() > 1 else grad.unsqueeze(1)
        total = sum_over(ctx.shard.ranks, rows, segments.index, segments.size).rounded(grad.dtype)
        return total.view(segments.size, *grad.shape[1:]), None
