"""Check arguments, choose the dtype to compute in; for functions, modules and distributed readouts."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from readouts import ops
from readouts.reductions import ELEMENTARY, FLOATS, result_dtype
from readouts.segments import Segments, check_size

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
REDUCTIONS = (*ELEMENTARY, "median")
PRODUCTS = ("mul", "prod")
NO_PRODUCT = "; for products of positive numbers take exp of the sum of their logarithms"


def check_x(x: Tensor) -> None:
    """Raise unless x is a dense tensor of node features with a real dtype."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x: expected a tensor, got {type(x).__name__}")
    if x.dtype not in FLOATS + INTEGERS:
        raise TypeError(f"x: expected a real dtype, one of {listed(FLOATS + INTEGERS)}, got {x.dtype}")
    if x.layout != torch.strided or x.is_nested:
        kind = "a nested tensor of " if x.is_nested else ""
        raise TypeError(f"x: expected a dense tensor, got {kind}layout {x.layout}")
    if x.dim() == 0:
        raise ValueError("x: expected node features [N, *features], got a scalar")


def reduce_names(reduce: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of reductions as a tuple; raise if there is none or one is unknown."""
    names = (reduce,) if isinstance(reduce, str) else reduce
    if not isinstance(names, tuple | list):
        raise TypeError(f"reduce: expected a name or a sequence of names, got {type(reduce).__name__}")
    if not names:
        raise ValueError(f"reduce: expected at least one of {listed(REDUCTIONS)}, got none")
    return tuple(_reduction(name) for name in names)


def _reduction(name: object) -> str:
    if name == "add":
        return "sum"
    if name not in REDUCTIONS:
        hint = NO_PRODUCT if name in PRODUCTS else ""
        raise ValueError(f"reduce: expected one of {listed(REDUCTIONS)}, got {name!r}{hint}")
    return str(name)


def segments_of(x: Tensor, batch: Tensor | Segments | None, ptr: Tensor | None, size: int | None) -> Segments:
    """Return the graphs of x from `batch`, `ptr` or neither; raise if they do not match x."""
    check_size(size)
    if batch is not None and ptr is not None:
        raise ValueError("batch, ptr: expected one of the two, got both")
    if ptr is not None:
        segments = Segments.from_ptr(ptr, x.shape[0])
    elif isinstance(batch, Segments):
        segments = batch
        segments.check_unchanged()
    elif batch is not None:
        has_backward = x.is_floating_point() or torch.is_grad_enabled()  # of weights, if not of x
        segments = Segments.shared(batch, size, copied=has_backward)
    else:
        segments = Segments.single(x.shape[0], x.device)
    if segments.num_nodes != x.shape[0]:
        raise ValueError(
            f"batch: expected one graph index for each of the {x.shape[0]} nodes, got {segments.num_nodes}"
        )
    if segments.index.device != x.device:
        raise ValueError(
            f"batch: expected a tensor on the device of x, {x.device}, got {segments.index.device}"
        )
    if size is not None and segments.size != size:
        raise ValueError(f"size: expected {segments.size}, the number of graphs, got {size}")
    return segments


def graphs_of(
    x: Tensor, batch: Tensor | Segments | None, ptr: Tensor | None, size: int | None, empty: float
) -> Segments:
    """Check x and `empty`, and return the graphs of x."""
    check_x(x)
    check_empty(empty)
    return segments_of(x, batch, ptr, size)


def averaged_graphs_of(
    x: Tensor, batch: Tensor | Segments | None, ptr: Tensor | None, size: int | None, empty: float
) -> Segments:
    """Check as `graphs_of` does, and that `empty` fits the dtype of a mean; return the graphs of x."""
    segments = graphs_of(x, batch, ptr, size, empty)
    check_fits(empty, result_dtype("mean", x.dtype))
    return segments


def check_empty(empty: float) -> None:
    """Raise unless `empty` is a real number."""
    if not isinstance(empty, int | float):
        raise TypeError(f"empty: expected a real number, got {type(empty).__name__}")
    if isinstance(empty, int) and abs(empty) > sys.float_info.max:
        raise ValueError(f"empty: expected a number that fits into a float, got {empty.bit_length()} bits")


def check_fits(empty: float, dtype: torch.dtype) -> None:
    """Raise unless this dtype can hold `empty`; a float may be rounded."""
    if dtype.is_floating_point:
        fits = not is_finite(empty) or abs(empty) <= torch.finfo(dtype).max
    elif dtype == torch.bool:
        fits = empty in (0, 1)
    else:
        limits = torch.iinfo(dtype)
        fits = is_finite(empty) and empty == int(empty) and limits.min <= empty <= limits.max
    if not fits:
        raise ValueError(f"empty: expected a value of dtype {dtype}, got {empty}")


def listed(names: Sequence[object]) -> str:
    """Return names joined by commas."""
    return ", ".join(str(name) for name in names)


def check_values(name: str, values: Tensor, x: Tensor) -> None:
    """Raise unless `values` has one entry per node of x, or a shape that broadcasts with the shape of x."""
    check_x(x)
    if not isinstance(values, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(values).__name__}")
    if values.is_complex():
        raise TypeError(f"{name}: expected a real dtype, got {values.dtype}")
    fits = all(
        own == theirs or 1 in (own, theirs) for own, theirs in zip(values.shape, x.shape, strict=False)
    )
    if values.dim() == 0 or values.dim() > x.dim() or values.shape[0] != x.shape[0] or not fits:
        expected = f"one for each of the {x.shape[0]} nodes, or a shape like that of x"
        raise ValueError(f"{name}: expected {expected}, {tuple(x.shape)}, got {tuple(values.shape)}")


def check_number(name: str, value: float) -> None:
    """Raise unless a value is a real number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")


def check_count(name: str, value: int, least: int = 1) -> None:
    """Raise unless a value is an integer that is at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")


def check_clamps(clamp_min: float, clamp_max: float | None) -> None:
    """Raise unless the bounds to which power means clamp x are positive and in order."""
    check_number("clamp_min", clamp_min)
    if not clamp_min > 0:
        raise ValueError(f"clamp_min: expected a positive number, got {clamp_min}")
    if clamp_max is not None:
        check_number("clamp_max", clamp_max)
        if not clamp_max >= clamp_min:
            raise ValueError(f"clamp_max: expected at least clamp_min, {clamp_min}, got {clamp_max}")


def is_finite(number: float) -> bool:
    """Return whether a number is finite; torch.compile may ask about a symbolic one."""
    return -math.inf < number < math.inf


def check_power(p: float | Tensor, x: Tensor | None = None) -> None:
    """Raise unless a power is finite, or a tensor that broadcasts to the features of x; not its entries."""
    if not isinstance(p, Tensor):
        check_number("p", p)
        if not is_finite(p):
            raise ValueError(f"p: expected a finite number, got {p}; max and min are readouts of their own")
    elif x is not None and p.numel() != 1:
        features = tuple(x.shape[1:])
        fits = p.dim() <= len(features) and all(
            own in (1, width) for own, width in zip(p.shape[::-1], features[::-1], strict=False)
        )
        if not fits:
            raise ValueError(
                f"p: expected one number, or a shape that broadcasts to the features of a node, {features}, "
                f"got shape {tuple(p.shape)}"
            )


def check_features(x: Tensor, features: int | None = None) -> None:
    """Raise unless x has a dimension of features, of size `features` if given."""
    if x.dim() < 2 or (features is not None and x.shape[-1] != features):  # a size may be symbolic
        wanted = "F" if features is None else features
        raise ValueError(f"x: expected node features [N, {wanted}], got shape {tuple(x.shape)}")


def to_compute_dtype(x: Tensor, least: torch.dtype = torch.float32) -> Tensor:
    """Cast x to the dtype to compute in: at least as wide as `least`, integers by way of the default dtype.

    On a device without float64, `least` is float32.
    """
    if not x.is_floating_point():
        x = x.to(torch.get_default_dtype())
    least = torch.float32 if ops.wide_dtype(x) == torch.float32 else least
    return x.to(torch.promote_types(x.dtype, least))


def cast_back(out: Tensor, x: Tensor) -> Tensor:
    """Cast a result to the dtype of x, or to the default float dtype if x has integers."""
    return out.to(result_dtype("mean", x.dtype))
