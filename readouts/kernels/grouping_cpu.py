"""Which nodes each graph has, on the CPU, in Numba."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from readouts.kernels import compiled
from readouts.kernels.portable.grouping import expand_ptr, index_error, supports

__all__ = ["expand_ptr", "group", "supports"]


def group(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return ptr [B + 1] and order [N], int64; see `readouts.ops.group`."""
    ptr, order = np.empty(size + 1, np.int64), np.empty(len(index), np.int64)
    if not compiled.group(index.contiguous().numpy(), ptr, order):
        least, largest = (int(bound) for bound in index.aminmax())
        raise index_error(least, largest, size)
    return torch.from_numpy(ptr), torch.from_numpy(order)
