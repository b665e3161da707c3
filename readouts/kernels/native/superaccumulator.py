"""Superaccumulators in the native core; threads divide the features."""

from __future__ import annotations

import torch
from torch import Tensor

from readouts.kernels.native.grouping import check
from readouts.kernels.native.library import DTYPES, core, is_available
from readouts.kernels.native.memory import ready, threads_for
from readouts.numerics.superaccumulator import Layout


def supports(dtype: torch.dtype) -> bool:
    """Return whether numbers of this dtype can be added."""
    return dtype.is_floating_point and dtype in DTYPES and is_available()


def add(limbs: Tensor, rows: Tensor, index: Tensor, layout: Layout) -> None:
    """Add rows of numbers, or their squares, to the limbs of their graphs, in place."""
    nodes, features = rows.shape
    index = ready("batch", index, (nodes,), torch.int64)
    check(
        core.add_limbs(
            rows.data_ptr(), rows.element_size(), index.data_ptr(), nodes, features, limbs.data_ptr(),
            len(limbs) - 1, limbs.shape[1], *layout, threads_for(rows.numel()),
        )
    )  # fmt: skip
