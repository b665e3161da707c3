"""Memory for the core: uninitialised results, contiguous arguments; and the number of threads of a call."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

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


def ready(x: Tensor) -> Tensor:
    """Return a contiguous tensor without a pending negation."""
    return (x.resolve_neg() if x.is_neg() else x).contiguous()
