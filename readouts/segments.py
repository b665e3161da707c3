"""`Segments`: the graph of every node, and the operations over graphs that readouts are built from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from readouts import ops
from readouts.keywords import explain_keywords
from readouts.reductions import INDEX_DTYPES


class Segments:
    """The graphs of a batch: built and checked once, shared by all readouts of the batch.

    Example:
        >>> graphs = Segments.from_batch(torch.tensor([0, 2, 0]), size=3)
        >>> graphs.count
        tensor([2, 0, 1])

    Attributes:
        index: graph of every node, int64 [N].
        ptr: offsets of the graphs in `order` (CSR pointer), int64 [B + 1].
        order: nodes grouped by graph, int64 [N]: graph b has the nodes order[ptr[b] : ptr[b + 1]]; None if
            the nodes are known to be sorted. On a GPU the nodes of a graph are in any order, which may
            differ from call to call; `torch.use_deterministic_algorithms(True)` makes it ascending.

    Use `from_batch`, `from_ptr` or `single`; the constructor itself checks nothing.

    Every readout is computed by the methods `nodes`, `count`, `reduce`, `greatest`, `select`, `midpoint`,
    `trimmed_mean`, `weighted_mean`, `totals` and `expand`. `readouts.distributed` overrides them for nodes
    that are spread over many processes.
    """

    def __init__(self, index: Tensor, ptr: Tensor, order: Tensor | None = None) -> None:
        """Store the tensors without checking them."""
        self.index = index
        self.ptr = ptr
        self.order = order
        self._watched = _versions(index, ptr, order)

    @classmethod
    @explain_keywords
    def from_batch(cls, batch: Tensor, size: int | None = None) -> Segments:
        """Make segments from a batch vector, which is copied.

        On a GPU the nodes of a graph are in no particular order inside `order`.

        Args:
            batch: graph of every node, int64 or int32 [N], in any order.
            size: number of graphs B; default `batch.max() + 1`, which makes the CPU wait for a GPU. With
                `size` given nothing waits; then, on a GPU, PyTorch's device-side assertion reports an index
                that is out of range, instead of an exception.

        Raises:
            TypeError: `batch` is not a tensor or has another dtype, `size` is not an integer.
            ValueError: `batch` is not one-dimensional, `size` is negative.
            IndexError: an index is negative or not below `size`; without `size`, an index is so large that
                offsets of all graphs would fill the memory.
        """
        return cls.shared(batch, size, copied=True)

    @classmethod
    def shared(cls, batch: Tensor, size: int | None, copied: bool) -> Segments:
        """Make segments as `from_batch` does; without a copy if only the current call uses them."""
        _check_index("batch", batch)
        check_size(size)
        index = _copied(batch) if copied or not ops.is_direct(batch) else batch.resolve_neg().long()
        if size is None:  # at least 1 if there are nodes: the operator reports a negative index
            size = torch.sym_max(ops.greatest(index) + 1, 1) if index.shape[0] else 0
            ops.check_greatest(size - 1, index.shape[0])
        known = size if isinstance(size, torch.SymInt) else int(size)
        segments = cls(index, *ops.group(index, known))  # type: ignore[arg-type]
        segments._watched += _versions(batch)
        return segments

    @classmethod
    def from_ptr(cls, ptr: Tensor, num_nodes: int) -> Segments:
        """Make segments from the offsets of sorted graphs: graph b has the nodes ptr[b] to ptr[b + 1] - 1.

        Args:
            ptr: int64 or int32 [B + 1], from 0 to `num_nodes`, not decreasing; copied.
            num_nodes: number of nodes N.

        Raises:
            TypeError: `ptr` is not a tensor or has another dtype, `num_nodes` is not an integer.
            ValueError: `ptr` is not one-dimensional, is empty, decreases, or does not run from 0 to N.
        """
        _check_index("ptr", ptr)
        _check_number_of_nodes(num_nodes)
        if ptr.shape[0] == 0:
            raise ValueError("ptr: expected B + 1 offsets, got an empty tensor")
        ptr = _copied(ptr)
        return cls(ops.expand_ptr(ptr, num_nodes), ptr)

    @classmethod
    def single(cls, num_nodes: int, device: torch.device | None = None) -> Segments:
        """Make the segments of one graph that contains all nodes."""
        _check_number_of_nodes(num_nodes)
        index = torch.zeros(num_nodes, dtype=torch.int64, device=device)
        return cls(index, torch.arange(2, device=device) * num_nodes)

    @property
    def size(self) -> int:
        """Number of graphs B."""
        return self.ptr.shape[0] - 1

    @property
    def num_nodes(self) -> int:
        """Number of nodes N."""
        return self.index.shape[0]

    @property
    def count(self) -> Tensor:
        """Number of nodes of every graph, int64 [B]; a graph without nodes has count 0."""
        return self.ptr.diff()

    def nodes(self, x: Tensor) -> Tensor:
        """Return node features [N, *features] as given; readouts call this before any other method."""
        return x

    def reduce(self, rows: Tensor, names: Sequence[str]) -> Tensor:
        """Reduce rows [N, F] to [B, R * F], a block for every elementary name; see `readouts.ops.reduce`."""
        return ops.reduce_flat(rows, *self._groups, tuple(names))

    def greatest(self, x: Tensor) -> Tensor:
        """Return the maximum over the nodes of every graph, [B, *features], without a derivative."""
        return self.reduce(flat(x.detach()), ("max",)).view(self.size, *x.shape[1:])

    def select(self, rows: Tensor, ranks: Tensor) -> Tensor:
        """Return order statistics [B, K, F] of rows [N, F] at ranks [B, K]; see `readouts.ops.select`."""
        return ops.select(rows, *self._groups, ranks)

    def midpoint(self, rows: Tensor) -> Tensor:
        """Return the mean of the two middle values of rows [N, F], rounded once, as [B, F]."""
        return ops.midpoint(rows, *self._groups)

    def trimmed_mean(self, rows: Tensor, cut: Tensor) -> Tensor:
        """Return the means [B, F] of rows [N, F] without the `cut` [B] least and greatest of every graph."""
        ranks = torch.stack([cut, self.count - 1 - cut], dim=1)
        bounds = ops.select(rows.detach(), *self._groups, ranks)
        return ops.trimmed_mean(rows, bounds, *self._groups, cut)

    def weighted_mean(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return sum_i w_i x_i / sum_i w_i and sum_i w_i (1 for an empty graph); float64, no derivative.

        x is [N, *features]; weight broadcasts to x and has as many dimensions.
        """
        if x.shape == weight.shape or has_one_weight(x, weight):
            kernel = ops.kernel_for(x.device, x.dtype, "weighted")
            means, totals = kernel.weighted_mean(flat(x), flat(weight), *self._groups)
            return means.view(self.size, *x.shape[1:]), totals.view(self.size, *weight.shape[1:])
        return self.quotient(x, weight)

    def quotient(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same from differentiable operators."""
        above, total = self.totals(ops.product(weight, x), weight.to(ops.wide_dtype(weight)))
        total = self.fill_empty(total, 1)
        return above / total, total

    def totals(self, *values: Tensor) -> list[Tensor]:
        """Return the sums over every graph, [B, *features], of several tensors [N, *features]."""
        return [self.reduce(flat(v), ("sum",)).reshape(self.size, *v.shape[1:]) for v in values]

    def fill_empty(self, out: Tensor, empty: float) -> Tensor:
        """Set the rows of `out` [B, *features] that belong to graphs without nodes to `empty`."""
        empty = float(empty) if out.is_floating_point() else empty  # PyTorch takes no integers above 2**63
        return out.masked_fill((self.count == 0).view(self.size, *[1] * (out.dim() - 1)), empty)

    def expand(self, values: Tensor) -> Tensor:
        """Copy the row [B, *features] of every graph to its nodes; the gradient is an exact sum."""
        rows = flat(values).unsqueeze(1)
        nodes = ops.reduce_backward(rows, None, None, *self._groups, ("sum",))
        return nodes.reshape(self.num_nodes, *values.shape[1:])

    @property
    def _groups(self) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.index, self.ptr, self.order

    def check_unchanged(self) -> None:
        """Raise an IndexError if `index`, `ptr`, `order` or the batch vector were modified in place.

        Changes of the batch vector that PyTorch does not see, through NumPy or `.data`, have no effect. Under
        torch.compile no change is seen.
        """
        if torch.compiler.is_compiling():
            return
        for tensor, version in self._watched:
            if tensor._version != version:
                raise IndexError(
                    "batch: expected the graphs that were counted when the segments were made, "
                    "got an index that was modified in place since"
                )

    def __getstate__(self) -> dict[str, Tensor | None]:
        self.check_unchanged()  # a copy has a version counter of its own
        return {"index": self.index, "ptr": self.ptr, "order": self.order}

    def __setstate__(self, state: dict[str, Tensor | None]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        """Show the sizes."""
        return f"Segments(size={self.size}, num_nodes={self.num_nodes})"


def flat(values: Tensor) -> Tensor:
    """Return values [N, *features] as rows [N, F]."""
    if values.dim() == 2:
        return values
    return values.flatten(1) if values.dim() > 2 else values.unsqueeze(1)


def has_one_weight(x: Tensor, weight: Tensor) -> bool:
    """Return whether every node has a single weight for all of its features."""
    return x.dim() > 1 and weight.shape[1:].numel() == 1


def check_size(size: int | None, name: str = "size") -> None:
    """Raise unless a number of graphs or nodes is a non-negative integer or None."""
    if size is None:
        return
    if isinstance(size, bool) or not isinstance(size, int | np.integer | torch.SymInt):
        raise TypeError(f"{name}: expected an integer, got {type(size).__name__}")
    if isinstance(size, torch.SymInt):
        torch._check(size >= 0)  # a number that is not known while tracing
    elif size < 0:
        raise ValueError(f"{name}: expected an integer that is not negative, got {size}")


def _check_number_of_nodes(num_nodes: int) -> None:
    if num_nodes is None:
        raise TypeError("num_nodes: expected an integer, got NoneType")
    check_size(num_nodes, "num_nodes")


def _copied(index: Tensor) -> Tensor:
    """Return a copy as int64. Threads of PyTorch, which would hang in a forked child, are not needed."""
    if ops.is_plain(index):
        return torch.from_numpy(np.array(index.resolve_neg().numpy(), dtype=np.int64))
    return index.to(torch.int64, copy=True)


def _versions(*tensors: Tensor | None) -> tuple[tuple[Tensor, int], ...]:
    """Return tensors with their version counters, as far as autograd tracks one."""
    if torch.compiler.is_compiling():
        return ()
    return tuple((t, t._version) for t in tensors if t is not None and not t.is_inference())


def _check_index(name: str, index: Tensor) -> None:
    if not isinstance(index, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(index).__name__}")
    if index.layout != torch.strided or index.is_nested:
        kind = "a nested tensor of " if index.is_nested else ""
        raise TypeError(f"{name}: expected a dense tensor, got {kind}layout {index.layout}")
    if index.dtype not in INDEX_DTYPES:
        raise TypeError(f"{name}: expected int64 or int32, got {index.dtype}")
    if index.dim() != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {tuple(index.shape)}")
