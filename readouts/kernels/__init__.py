"""One file a way of computing the operators of `readouts.ops`; all of them give the same bits."""

import torch

ELEMENTARY = ("sum", "mean", "max", "min", "var", "std")  # gradients add up in this order


def result_dtype(reduce: str, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of a reduction of `dtype`: integers add up to int64 and average to floats."""
    if dtype.is_floating_point or reduce in ("max", "min"):
        return dtype
    return torch.int64 if reduce == "sum" else torch.get_default_dtype()
