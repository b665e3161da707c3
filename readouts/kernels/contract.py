"""What all kernels agree on: names, dtypes of results, order of contributions."""

import torch

ELEMENTARY = ("sum", "mean", "max", "min", "var", "std")  # gradients add up in this order


def result_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of a reduction of `dtype`: integers add up to int64 and average to floats."""
    if dtype.is_floating_point or name in ("max", "min"):
        return dtype
    return torch.int64 if name == "sum" else torch.get_default_dtype()
