"""The last rounding: of float64 values to a result's dtype, and of square roots."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def sqrt(x: Tensor) -> Tensor:
    """Round the square root correctly; PyTorch's own is off by a unit now and then on the CPU."""
    return torch.from_numpy(np.sqrt(x.numpy())) if x.device.type == "cpu" else x.sqrt()


def narrowed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Round float64 once to `dtype`; a zero is +0, NaN is the default NaN.

    PyTorch converts float64 to the 16-bit dtypes by way of float32, which rounds twice; rounding
    to the float32 with an odd last bit first ("round to odd") makes the second rounding the right one.
    """
    result = x.float() if dtype.itemsize == 2 else x.to(dtype)
    if dtype.itemsize == 2:
        even = result.view(torch.int32) % 2 == 0
        inexact = result.isfinite() & (result.double() != x)
        toward = torch.where(x > result.double(), torch.inf, -torch.inf).float()
        result = torch.where(even & inexact, result.nextafter(toward), result)
    return result.masked_fill(x.isnan(), torch.nan).to(dtype) + 0.0


def scaled(x: Tensor, exponent: Tensor) -> Tensor:
    """Return x * 2**exponent in float64, exact wherever the result is representable."""
    first = exponent.clamp(-1000, 1000)
    second = (exponent - first).clamp(-1000, 1000)
    return x * power_of_two(first) * power_of_two(second)


def power_of_two(exponent: Tensor) -> Tensor:
    """Return 2**exponent in float64, for int64 exponents of normal numbers."""
    return ((exponent + 1023) << 52).view(torch.float64)
