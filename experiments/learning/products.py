"""Message passing as a product with a sparse matrix that is known in both directions."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag


class SparseMatrix:
    """A constant sparse matrix [R, C]; `matrix @ x` maps rows [C, F] to [R, F], and its gradient back.

    Row r has the entries `ptr[r]` to `ptr[r + 1] - 1`: `weight` [M], or ones, in the columns `column` [M].
    The transposed matrix is laid out beside it, so that both directions read their rows in order.
    """

    def __init__(self, ptr: Tensor, column: Tensor, columns: int, weight: Tensor | None = None) -> None:
        """Lay out the matrix and the transposed one."""
        order = column.argsort(stable=True)
        row = torch.arange(len(ptr) - 1, device=ptr.device).repeat_interleave(ptr.diff())
        self.forward = column, ptr, weight
        self.backward = row[order], ptr_of(column.bincount(minlength=columns)), at(weight, order)

    def repeated(self, times: int) -> SparseMatrix:
        """Return the block diagonal matrix that has this one so many times."""
        if times == 1:
            return self
        matrix = copy.copy(self)
        rows, columns = len(self.forward[1]) - 1, len(self.backward[1]) - 1
        matrix.forward = blocks(self.forward, columns, times)
        matrix.backward = blocks(self.backward, rows, times)
        return matrix

    def __matmul__(self, x: Tensor) -> Tensor:
        """Multiply with x, float [C, F]."""
        return _Product.apply(x, self)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, matrix: SparseMatrix) -> Tensor:
        context.matrix = matrix
        return sums(x, *matrix.forward)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return sums(gradient.contiguous(), *context.matrix.backward), None


def sums(x: Tensor, column: Tensor, ptr: Tensor, weight: Tensor | None) -> Tensor:
    """For every row of a matrix, the weighted sum of the rows of x that its entries name."""
    return embedding_bag(
        column, x, ptr, mode="sum", per_sample_weights=at(weight, ...), include_last_offset=True
    )


def blocks(
    matrix: tuple[Tensor, Tensor, Tensor | None], columns: int, times: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Repeat columns, offsets and weights of one direction along the diagonal."""
    column, ptr, weight = matrix
    shift = columns * torch.arange(times, device=ptr.device)[:, None]
    return (
        (column + shift).flatten(),
        repeated(ptr, times),
        None if weight is None else weight.repeat(times),
    )


def repeated(ptr: Tensor, times: int) -> Tensor:
    """Offsets of all segments so many times, one after the other."""
    return ptr_of(ptr.diff().repeat(times))


def ptr_of(count: Tensor) -> Tensor:
    """Offsets [B + 1] of segments with these counts [B]."""
    return torch.cat([count.new_zeros(1), count.cumsum(0)])


def at(weight: Tensor | None, place: Any) -> Tensor | None:
    """Entries of a tensor that may be missing."""
    return None if weight is None else weight[place]
