"""`Shard`: `Segments` for nodes that are spread over many ranks, and the agreement on a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from readouts import ops
from readouts.distributed import elementary, order
from readouts.distributed.nodes import RankNodes, first_derivative
from readouts.distributed.ranks import Ranks
from readouts.distributed.sums import sum_over
from readouts.functional.checks import segments_of
from readouts.segments import Segments, flat


class Shard(RankNodes):
    """The nodes of this rank; methods return values over the nodes of all ranks."""

    def __init__(self, segments: Segments, ranks: Ranks, wants_grad: bool, scale: int) -> None:
        """Count the nodes of every graph; gradients of nodes are multiplied by `scale`."""
        super().__init__(segments, ranks, wants_grad)
        self.scale = scale

    def nodes(self, x: Tensor) -> Tensor:
        """Return values of nodes [N, ...] whose gradient is scaled, and computed if any rank wants gradients.

        Thus a rank without parameters before the readout sends the same messages in backward as the others.
        """
        if not torch.is_grad_enabled() or not x.is_floating_point():
            return x
        if self.wants_grad and not x.requires_grad:
            x = x.detach().requires_grad_()
        return x if self.scale == 1 else _Scale.apply(x, self.scale)

    def reduce(self, rows: Tensor, names: Sequence[str]) -> Tensor:
        """Reduce rows [N, F] of all ranks to [B, R * F]."""
        return elementary.reduce(rows, self, tuple(names)).flatten(1)

    def greatest(self, x: Tensor) -> Tensor:
        """Return the maximum over the nodes of all ranks, [B, *features], without a derivative."""
        return elementary.extremes_of(flat(x.detach()), self, ("max",)).view(self.size, *x.shape[1:])

    def select(self, rows: Tensor, ranks: Tensor) -> Tensor:
        """Return order statistics [B, K, F] of rows [N, F] of all ranks."""
        return order.select(rows, self, ranks)

    def midpoint(self, rows: Tensor) -> Tensor:
        """Return the mean [B, F] of the two middle values of all ranks, rounded once."""
        middle = self.select(rows, torch.stack([(self.count - 1) // 2, self.count // 2], dim=1))
        return ops.mean_of_two(*middle.unbind(1))

    def trimmed_mean(self, rows: Tensor, cut: Tensor) -> Tensor:
        """Return the means [B, F] of the rows of all ranks without the `cut` least and greatest values."""
        return order.trimmed_mean(rows, self, cut)

    def weighted_mean(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return weighted means and sums of weights over all ranks, without a derivative."""
        return self.quotient(x, weight)

    def totals(self, *values: Tensor) -> list[Tensor]:
        """Return the sums over all ranks of several tensors of one dtype, in the messages of one."""
        rows = [flat(value) for value in values]
        sums = self.reduce(torch.cat(rows, dim=1), ("sum",)).split([row.shape[1] for row in rows], dim=1)
        return [part.reshape(self.size, *v.shape[1:]) for part, v in zip(sums, values, strict=True)]

    def expand(self, values: Tensor) -> Tensor:
        """Copy the row of every graph to its nodes; backward is an exact sum over ranks, in two messages."""
        return _Expand.apply(values, self) if values.requires_grad else super().expand(values)


def agree_on_call(
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
        check: raises if this rank cannot take part; otherwise returns a description of the call.
        tensors: values of the nodes of this rank, all [N, ...], x first.
        batch, ptr, size, group, ddp: as for `readouts.distributed.readout`.
        parameters: other tensors that may require gradients.
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
    most, wants_grad = ranks.agree(call, problem, device, most, wanted)
    assert segments is not None
    ptr = torch.nn.functional.pad(segments.ptr, (0, most - segments.size), value=segments.num_nodes)
    segments = Segments(segments.index, ptr, segments.order)
    return Shard(segments, ranks, bool(wants_grad), ranks.number if ddp else 1)


def _device(tensors: tuple[Any, ...], group: ProcessGroup | None) -> torch.device:
    """Return the device of the messages of this call; NCCL requires a GPU."""
    if dist.get_backend(group) == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return tensors[0].device if isinstance(tensors[0], Tensor) else torch.device("cpu")


def _in_words(
    text: str, tensors: tuple[Tensor, ...], device: torch.device, size: int | None, ddp: bool
) -> str:
    """Describe everything about a call that must be the same on all ranks."""
    for tensor in tensors:
        if tensor.device != device:
            raise ValueError(f"x: expected a tensor on {device}, where the group sends, got {tensor.device}")
    shapes = ", ".join(
        f"{str(tensor.dtype).removeprefix('torch.')} [{', '.join(['N', *map(str, tensor.shape[1:])])}]"
        for tensor in tensors
    )
    default = "" if tensors[0].is_floating_point() else f", {torch.get_default_dtype()} for averages"
    return f"{text} of {shapes}{default}, size={size}{', ddp=True' if ddp else ''}"


class _Scale(torch.autograd.Function):
    """The identity, with a gradient multiplied by a number."""

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
        return Segments.expand(shard, values)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        shard = ctx.shard
        total = sum_over(shard.ranks, flat(grad), shard.index, shard.size).rounded(grad.dtype)
        return total.view(shard.size, *grad.shape[1:]), None
