"""Memory for the core: results, contiguous arguments, and how many threads a call is worth."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

GRAIN = 2**15  # numbers that are worth a thread
_HUGE = 2**20  # numbers, of about 4 MB, from which NumPy asks for huge pages


def threads_for(numbers: int) -> int:
    """Return on how many threads to work on so many numbers."""
    return 1 if numbers < 2 * GRAIN else min(torch.get_num_threads(), numbers // GRAIN, 64)


def new_tensor(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return an uninitialised tensor on the CPU, of the dtype of another one if none is given.

    NumPy asks the system for huge pages and PyTorch does not: the first touch of small pages takes several
    times as long as reading x.
    """
    numbers = 1
    for length in shape:
        numbers *= length
    if numbers >= _HUGE:
        dtype = dtype or like.dtype
        return torch.from_numpy(np.empty(numbers * dtype.itemsize, np.uint8)).view(dtype).view(shape)
    return like.new_empty(*shape) if dtype is None else like.new_empty(*shape, dtype=dtype)


def ready(x: Tensor) -> Tensor:
    """Return a tensor whose memory holds its numbers one after the other."""
    return (x.resolve_neg() if x.is_neg() else x).contiguous()
