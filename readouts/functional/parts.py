"""Compute readouts of large inputs part by part, so that temporaries take little memory beside the inputs.

A part is a run of whole graphs or, of a larger graph, some of its features. Graphs and features are
independent of each other, so the bits are those of the undivided computation. Only the inputs are saved;
backward computes every part again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from readouts import ops
from readouts.segments import Segments

LARGE = 2**25  # bytes of an input from which it is divided
HEAVY = 2**28  # bytes of temporaries from which it is, too
LEAST = 2**21  # bytes of temporaries of a part, at least
COLUMNS = 16  # columns in a part, at least: kernels are slow on narrow rows
SHARE = 12  # temporaries may take so many times less memory than the inputs


def in_parts(
    function: Callable[..., Tensor],
    segments: Segments,
    nodes: Sequence[Tensor],
    graphs: Sequence[Tensor] = (),
    *,
    temporaries: int,
    by_columns: bool = True,
) -> Tensor:
    """Return function(segments, *nodes, *graphs) [B, *, F], in parts if an input is large and on the CPU.

    The function treats every graph separately, and has no other inputs with a gradient.

    Args:
        nodes: values of nodes [N, ...]; the columns of some may have size 1, to be broadcast.
        graphs: values of graphs [B, ...].
        temporaries: bytes that function and backward need at once for every number of a part.
        by_columns: whether the function also treats every column, the last dimension of two or more,
            separately; then a graph that is larger than a part can be divided, too.
    """
    values = *nodes, *graphs
    divisible = type(segments) is Segments and ops.is_plain(*values)  # first: sizes may be symbols
    if divisible and any(_is_large(value, temporaries) for value in nodes):
        return _InParts.apply(function, temporaries, by_columns, segments, len(nodes), *values)
    return function(segments, *values)


def _is_large(value: Tensor, temporaries: int) -> bool:
    return value.nbytes >= LARGE or temporaries * value.numel() >= HEAVY


def derivatives(
    function: Callable[..., Tensor], values: Sequence[Tensor], wanted: Sequence[bool], grad: Tensor
) -> list[Tensor | None]:
    """Return the gradients of wanted values by a differentiable function; they have derivatives in turn."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        views = [value.view_as(value) for value in values]  # one may be made of another
        sources = [view for view, want in zip(views, wanted, strict=True) if want]
        found = iter(torch.autograd.grad(function(*views), sources, grad, create_graph=again))
    return [next(found) if want else None for want in wanted]


class _InParts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[..., Tensor],
        temporaries: int,
        by_columns: bool,
        segments: Segments,
        nodes: int,
        *values: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(*values)
        ctx.function, ctx.segments, ctx.nodes = function, segments, nodes
        columns = _columns(values, ctx.needs_input_grad[5:]) if by_columns else 0
        width = torch.broadcast_shapes(*(value.shape[1:] for value in values[:nodes])).numel()
        ctx.cut = columns, temporaries * max(width, 1)
        out = torch.empty(0)
        for part in _parts(segments, values, *ctx.cut):
            found = function(part.segments, *part.taken(values, nodes))
            if out.numel() == 0:
                shape = segments.size, *found.shape[1:-1], ctx.cut[0] or found.shape[-1]
                out = found.new_empty(shape if found.dim() > 1 else shape[:1])
            part.put(out, found, False)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, wanted, nodes = ctx.saved_tensors, ctx.needs_input_grad[5:], ctx.nodes
        if torch.is_grad_enabled() or not ops.is_eager(grad):  # or several gradients at once
            undivided = lambda *values: ctx.function(ctx.segments, *values)  # noqa: E731
            return *[None] * 5, *derivatives(undivided, values, wanted, grad)
        ctx.segments.check_unchanged()
        gradients = [
            ops.new_tensor(value, *value.shape) if want else None
            for value, want in zip(values, wanted, strict=True)
        ]
        for part in _parts(ctx.segments, values, *ctx.cut):
            taken = [
                value.detach().requires_grad_(want)
                for value, want in zip(part.taken(values, nodes), wanted, strict=True)
            ]
            with torch.enable_grad():
                out = ctx.function(part.segments, *taken)
            sources = [value for value in taken if value.requires_grad]
            found = iter(torch.autograd.grad(out, sources, part.of(grad, False)))
            for place, gradient in enumerate(gradients):
                if gradient is not None:
                    part.put(gradient, next(found), place < nodes)
        return *[None] * 5, *gradients


class _Part:
    """Some graphs, `first` to `last` - 1, and some of the columns, or None for all."""

    def __init__(
        self, whole: Segments, graphs: slice, nodes: slice, columns: tuple[int, slice] | None
    ) -> None:
        self._graphs, self._nodes, self._columns = graphs, nodes, columns
        self._order = None if whole.order is None else whole.order[self._nodes]
        index = whole.index[self._nodes] if self._order is None else whole.index[self._order]
        ptr = whole.ptr[graphs.start : graphs.stop + 1]
        self.segments = Segments(index - graphs.start, ptr - nodes.start)

    def taken(self, values: Sequence[Tensor], nodes: int) -> list[Tensor]:
        """Return this part of values, of which so many belong to nodes."""
        return [self.of(value, place < nodes) for place, value in enumerate(values)]

    def of(self, value: Tensor, of_nodes: bool) -> Tensor:
        """Return this part of a value of nodes or graphs."""
        value = self._in_columns(value)
        if of_nodes and self._order is not None:
            return value.index_select(0, self._order)
        return value[self._nodes if of_nodes else self._graphs].contiguous()

    def put(self, whole: Tensor, part: Tensor, of_nodes: bool) -> None:
        """Write this part of a value of nodes or graphs."""
        whole = self._in_columns(whole)
        if of_nodes and self._order is not None:
            whole.index_copy_(0, self._order, part)
        else:
            whole[self._nodes if of_nodes else self._graphs] = part

    def _in_columns(self, value: Tensor) -> Tensor:
        if self._columns is None or value.dim() < 2 or value.shape[-1] != self._columns[0]:
            return value
        return value[..., self._columns[1]]


def _columns(values: Sequence[Tensor], wanted: Sequence[bool]) -> int:
    """Return the number of columns, or 0 if a gradient is a sum over columns or there is but one."""
    most = max(value.shape[-1] if value.dim() > 1 else 1 for value in values)
    summed = any(want and value.shape[1:][-1:] != (most,) for value, want in zip(values, wanted, strict=True))
    return 0 if most == 1 or summed else most


def _parts(segments: Segments, values: Sequence[Tensor], columns: int, temporaries: int) -> Iterator[_Part]:
    """Yield the parts, whose function needs so many bytes of temporaries for every node."""
    memory = max(LEAST, sum(value.nbytes for value in values) // SHARE)
    room = memory // temporaries
    ptr, first = segments.ptr.numpy(), 0
    offsets = ptr + np.arange(len(ptr))  # with a place for every graph, too
    while first < segments.size:
        last = max(first + 1, int(offsets.searchsorted(offsets[first] + room, "right")) - 1)
        graphs, nodes = slice(first, last), slice(int(ptr[first]), int(ptr[last]))
        step = max(room * columns // int(offsets[last] - offsets[first]), COLUMNS)
        for start in range(0, columns, step) if step < columns else (None,):
            cut = None if start is None else (columns, slice(start, start + step))
            yield _Part(segments, graphs, nodes, cut)
        first = last
