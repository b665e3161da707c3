"""The kernels of a GPU against those of the CPU: forward and backward, bit by bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.gpu.inputs import Case, cases, make
from experiments.gpu.rows import Run
from readouts import ops
from readouts.kernels.triton import elementary

BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
SHOWN = 3
ALONE = ("cut", "ragged")  # sizes for which forward and backward also run without what forward keeps


def measure(run: Run, share: float) -> None:
    """Compare case by case until a share of the budget is spent, and sum up."""
    right, wrong = 0, 0
    for case in cases():
        if run.left(share) < 0:
            run.row("correctness", stopped="the time is up")
            break
        found = run.attempt("correctness", {"case": str(case)}, partial(compare, case, run.device))
        good = bool(found.get("right"))
        right, wrong = right + good, wrong + (not good)
    run.row("correctness", cases_right=right, cases_wrong=wrong)


def compare(case: Case, device: str) -> dict[str, Any]:
    """Compute a case on the CPU and on the device; hashes of the CPU's results are the same everywhere."""
    x, index, grad = make(case)
    ptr, order = ops.group(index, len(grad))
    out = ops.reduce(x, index, ptr, order, case.names)
    slope = ops.reduce_backward(grad, x, out, index, ptr, order, case.names)
    order = None if order is None else order.to(device)
    batch = index.to(device), ptr.to(device), order, case.names
    found = on_device(grad.to(device), x.to(device), batch, out, slope, case.sizes in ALONE)
    return judged(dict(found))


def on_device(
    grad: Tensor,
    x: Tensor,
    batch: tuple[Tensor, Tensor, Tensor | None, tuple[str, ...]],
    forward: Tensor,
    backward: Tensor,
    alone: bool,
) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """The results of the kernels, on the CPU, beside those expected.

    In training, forward keeps what backward needs. Alone, they are compiled for some cases, to save time.
    """
    out, kept = elementary.reduce_keeping(x, *batch)
    yield "forward", (out.cpu(), forward)
    yield "backward", (elementary.reduce_backward(grad, x, out, *batch, kept=kept).cpu(), backward)
    if alone and x.dtype == torch.float32:
        yield "forward_alone", (elementary.reduce(x, *batch).cpu(), forward)
        yield "backward_alone", (elementary.reduce_backward(grad, x, out, *batch).cpu(), backward)


def judged(pairs: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """What a row says of results and those expected: hashes, and the first numbers that differ."""
    found: dict[str, Any] = {"right": True, "same_nan": True}
    for direction, (actual, expected) in pairs.items():
        differs, as_nan = difference(actual, expected)
        found["right"] &= not differs.any()
        found["same_nan"] &= not as_nan.any()
        found[f"{direction}_hash"] = digest(expected)
        if differs.any():
            found[f"{direction}_wrong"] = int(differs.sum())
            places = differs.nonzero()[:SHOWN].tolist()
            found[f"{direction}_first"] = [
                (place, actual[tuple(place)].item(), expected[tuple(place)].item()) for place in places
            ]
    return found


def difference(actual: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """Where bits differ although not both are NaN, and where they differ because both are NaN."""
    bits = BITS[expected.element_size()]
    unequal = actual.contiguous().view(bits) != expected.contiguous().view(bits)
    both = actual.isnan() & expected.isnan()
    return unequal & ~both, unequal & both


def digest(tensor: Tensor) -> str:
    """A hash of the bits, of which NaN has one kind."""
    tensor = tensor.where(~tensor.isnan(), torch.nan).contiguous()
    return hashlib.sha256(tensor.view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
