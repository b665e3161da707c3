"""Memory for the core: results, contiguous arguments, and how many threads a call is worth."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

GRAIN = 2**17  # numbers that are worth a thread
_HUGE = 2**22  # bytes from which NumPy asks for huge pages


def threads_for(numbers: int) -> int:
    """Return on how many threads to work on so many numbers."""
    return 1 if numbers < 2 * GRAIN else min(torch.get_num_threads(), numbers // GRAIN, 64)


def new_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor on the CPU.

    NumPy asks the system for huge pages and PyTorch does not: the first touch of small pages takes several
    times as long as reading x.
    """
    numbers = 1
    for length in shape:
        numbers *= length
    size = numbers * dtype.itemsize
    if size < _HUGE:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(np.empty(size, np.uint8)).view(dtype).view(shape)


def ready(x: Tensor) -> Tensor:
    """Return a tensor whose memory holds its numbers one after the other."""
    return (x.resolve_neg() if x.is_neg() else x).contiguous()
