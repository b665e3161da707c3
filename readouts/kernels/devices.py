"""Devices without float64, and how operators are computed for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

WITHOUT_FLOAT64 = {"mps"}


def wide_dtype(x: Tensor) -> torch.dtype:
    """Return float64 if the device of a tensor supports it, else float32."""
    return torch.float32 if x.device.type in WITHOUT_FLOAT64 else torch.float64


def through_cpu(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a kernel so that it runs on the CPU for tensors on devices without float64."""

    def run(*arguments: Any) -> Any:
        device = arguments[0].device
        if device.type not in WITHOUT_FLOAT64:
            return kernel(*arguments)
        result = kernel(*(a.cpu() if isinstance(a, Tensor) else a for a in arguments))
        return tree_map(lambda tensor: tensor.to(device), result)

    return run
