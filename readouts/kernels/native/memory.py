"""Memory for the core: uninitialised results, contiguous arguments; and the number of threads of a call."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from readouts.kernels.native.library import core

GRAIN = 2**15  # numbers per thread
_HUGE = 2**20  # numbers (about 4 MB) from which NumPy requests huge pages


def threads_for(numbers: int) -> int:
    """Return the number of threads for a call on so many numbers."""
    return 1 if numbers < 2 * GRAIN else min(torch.get_num_threads(), numbers // GRAIN, 64)


def new_tensor(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return an uninitialised tensor on the CPU, by default with the dtype of `like`.

    NumPy requests huge pages from the system and PyTorch does not. The first write to small pages takes
    several times as long as reading x.
    """
    numbers = 1
    for length in shape:
        numbers *= length
    if numbers >= _HUGE:
        dtype = dtype or like.dtype
        return torch.from_numpy(np.empty(numbers * dtype.itemsize, np.uint8)).view(dtype).view(shape)
    return like.new_empty(*shape) if dtype is None else like.new_empty(*shape, dtype=dtype)


def ready(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a contiguous tensor without a pending negation, of the shape and dtype that the core will read.

    Arguments were checked by the callers. Those that are read here again, in backward or from `Segments`,
    may have got other memory since.
    """
    if tensor.shape != shape or tensor.dtype is not dtype or not tensor.is_cpu:
        expected = f"{dtype} {tuple(shape)}, as when it was checked"
        raise ValueError(f"{name}: expected {expected}, got {tensor.dtype} {tuple(tensor.shape)}")
    return contiguous(tensor)


def contiguous(tensor: Tensor) -> Tensor:
    """Return a contiguous tensor without a pending negation."""
    return (tensor.resolve_neg() if tensor.is_neg() else tensor).contiguous()


def graphs_ready(ptr: Tensor, order: Tensor | None, nodes: int) -> tuple[Tensor, Tensor | None]:
    """Return offsets [B + 1] and the order [N] of the nodes, as the core will read them."""
    ptr = ready("ptr", ptr, (ptr.numel(),), torch.int64)
    if ptr.shape[0] == 0:
        raise ValueError("ptr: expected B + 1 offsets, got an empty tensor")
    return ptr, None if order is None else ready("order", order, (nodes,), torch.int64)


def address(tensor: Tensor | None) -> int | None:
    """Return the address of the memory of a contiguous tensor."""
    return None if tensor is None else tensor.data_ptr()


class DefaultWord:
    """A block in which this thread rounds to nearest and keeps subnormal numbers, for operations of PyTorch.

    The core does so by itself.
    """

    def __enter__(self) -> None:
        """Set the control word."""
        self._before = core.default_word() if core.isa else None

    def __exit__(self, *problem: object) -> None:
        """Restore the caller's control word."""
        if self._before is not None:
            core.restore_word(self._before)
