"""The elementary reductions on CUDA devices: one launch forward and one backward, in Triton.

A program has one graph and a block of features, and reads its rows tile by tile. If there are more than
LONG nodes, large graphs are split into pieces of a fixed number of nodes, so that a large graph occupies
many programs; a second launch merges the partial states of the pieces. The grid depends only on the numbers
of nodes, graphs and features, and programs find their rows from `ptr` on the device. So no value is copied to
the CPU, and there are no atomics. Offsets that lead outside of x give wrong results, but no access outside
of the tensors.

Exact sums are computed as on the CPU (`docs/exactness.md`). float32, float16 and bfloat16 numbers are
added in float64, tile by tile, if the largest and the least magnitude prove that this is exact. Other tiles,
float64 numbers and squared deviations are pre-rounded to grids, from the largest magnitude down until
nothing is left. Sums of tiles and pieces are kept as three float64 numbers, with the error of every
addition. If the third addition has an error, or if the numbers are so large or so small that a division might
not be exact, the same program recomputes the column in integer limbs of 32 bits, as many as the dtype
needs. Infinities and NaN are detected from the greatest and the least number.

A kernel is compiled, or loaded, in its first call, which must not happen while a CUDA graph is captured: before
a capture, run a batch of the same dtype, features, reductions and order of magnitude of nodes, forward and
backward, on the same device.

Everything is rounded once: for narrow results, the float64 is rounded to odd first. Numbers are passed
as their bits, so that no hardware mode can flush subnormal numbers, and the kernels are compiled without
fused multiply-add, which would round differently from the reference.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from readouts.kernels.portable import elementary as portable
from readouts.reductions import (
    ELEMENTARY,
    needs_out,
    tracks_extremes,
    tracks_squares,
    tracks_sums,
)

LONG = 4096  # up to so many nodes, no graph is split
PROGRAMS = 2048  # number of programs that keeps a device busy
TILE = 2048  # elements of a tile
BLOCK = 64  # features of a tile
PARTS = 4  # log2 of the number of pieces merged at once
_MANTISSA = {torch.float64: 52, torch.float32: 23, torch.float16: 10, torch.bfloat16: 7}
_ONLY_SQUARES: dict[str, Any] = {
    "SUMS": False,
    "EXTREMES": False,
    "TIES": False,
    "MAX_BLOCK": -1,
    "MIN_BLOCK": -1,
}
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}

NAMES = frozenset(("sum", "mean", "max", "min", "var", "std"))


def supports(dtype: torch.dtype) -> bool:
    """Return whether this module computes readouts of this dtype; requires Triton."""
    return dtype in _MANTISSA and _has_triton()


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def reduce(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str]) -> Tensor:
    """Reduce the nodes order[ptr[b]:ptr[b + 1]] of every graph b, rows of x [N, F], to [B, R, F].

    `order` is None if the nodes are sorted by graph; `index` is ignored.
    """
    from readouts.kernels.triton import loops  # loads Triton

    out = x.new_empty(len(ptr) - 1, len(names), x.shape[1])
    if out.numel() == 0 or len(x) == 0:
        return out.zero_()
    sums, squares = tracks_sums(names), tracks_squares(names)
    flags = {"SUMS": sums, "EXTREMES": sums or tracks_extremes(names)}
    batch = _Batch(x, ptr, order, names)
    inputs = _bits(x), batch.order, batch.ptr, _bits(out)
    batch.launch(loops.forward, *inputs, batch.states, batch.keys, **flags, SQUARES=squares)
    if batch.split:
        batch.merge(*inputs, write=True, **flags, SQUARES=False, TIES=False)
        if squares:
            batch.survey(*inputs, write=True, SQUARES=True, **_ONLY_SQUARES)
    return out


def reduce_backward(
    grad: Tensor,
    x: Tensor | None,
    out: Tensor | None,
    index: Tensor,
    ptr: Tensor,
    order: Tensor | None,
    names: Sequence[str],
) -> Tensor:
    """Return the gradient [N, F] of `reduce` for x, given that of its output, and `out` [B, R, F] itself.

    x may be None for sum and mean. `out` may be None unless max or min are among the names. A program keeps
    one maximum and one minimum, so if max or min occur twice the portable kernel is used.
    """
    from readouts.kernels.triton import loops  # loads Triton

    if any(names.count(name) > 1 for name in names if needs_out((name,))):
        return portable.reduce_backward(grad, x, out, index, ptr, order, names)
    result = grad.new_empty(len(index), grad.shape[2])
    if result.numel() == 0:
        return result
    sums, ties = tracks_squares(names), needs_out(names)
    squares = "std" in names
    batch = _Batch(result, ptr, order, names)
    slopes = _bits(grad)
    rows, results = (slopes if tensor is None else _bits(tensor) for tensor in (x, out))
    flags: dict[str, Any] = {"SUMS": sums, "EXTREMES": sums, "TIES": ties}
    flags |= {"MAX_BLOCK": _find("max", names), "MIN_BLOCK": _find("min", names)}
    inputs = rows, batch.order, batch.ptr, results
    if batch.split and (sums or ties):
        batch.survey(*inputs, **flags, SQUARES=False)
        if squares:
            batch.survey(*inputs, SQUARES=True, **_ONLY_SQUARES)
    tensors = slopes, rows, results, batch.order, batch.ptr, _bits(result), batch.stats
    batch.launch(loops.backward, *tensors, **flags, SQUARES=squares)
    return result


class _Batch:
    """The assignment of rows to programs, and the memory for the states of pieces."""

    def __init__(self, x: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str]) -> None:
        (nodes, self.features), self.size, self.device = x.shape, len(ptr) - 1, x.device
        self.nodes = nodes
        self.ptr, self.order = ptr.contiguous(), ptr if order is None else order.contiguous()
        width = min(BLOCK, _power_of_two(self.features))
        self.columns = -(-self.features // width)
        self.split = nodes > LONG
        self.piece = max(LONG // 8, _power_of_two(nodes * self.columns // PROGRAMS)) if self.split else nodes
        self.chunks = nodes // self.piece + 1 if self.split else 0
        self.states = x.new_empty(2 * self.chunks, 3, self.features, dtype=torch.float64)
        self.keys = x.new_empty(2 * self.chunks, 4, self.features, dtype=torch.int64)
        self.stats = x.new_empty(self.chunks, 4, self.features, dtype=torch.float64)
        rows = min(TILE // width, max(16, _power_of_two(nodes // self.size)))
        self.rows = {"POWER": rows.bit_length() - 1}
        self.codes = {"CODES": _codes(names), "BLOCKS": len(names)}
        self.common = {
            "MANTISSA": _MANTISSA[x.dtype],
            "FEATURES": width,
            "ORDERED": order is not None,
            "num_warps": max(1, min(4, rows * width // 512)),
            "enable_fp_fusion": False,
        }

    def launch(self, kernel: Any, *tensors: Tensor, **flags: Any) -> None:
        """Start a program for every graph, or for every piece of a graph."""
        programs = self.chunks - 1 + self.size if self.split else self.size
        self._start(kernel, programs, *tensors, **self.codes, **self.rows, **flags, SPLIT=self.split)

    def survey(self, *inputs: Tensor, write: bool = False, **flags: Any) -> None:
        """Read split graphs once more, for statistics that the next launch needs."""
        from readouts.kernels.triton import loops

        tensors = *inputs, self.states, self.keys, self.stats
        blocks = {"BLOCKS": self.codes["BLOCKS"], **self.rows}
        self._start(loops.survey, self.chunks - 1 + self.size, *tensors, **blocks, **flags)
        flags = {name: flag for name, flag in flags.items() if not name.endswith("_BLOCK")}
        self.merge(*inputs, write=write, **flags)

    def merge(self, *inputs: Tensor, write: bool, **flags: Any) -> None:
        """Merge the states of pieces; write the results to the output, or only to `stats`."""
        from readouts.kernels.triton import loops

        tensors = *inputs, self.states, self.keys, self.stats
        codes = self.codes if write else {"CODES": 0, "BLOCKS": 0}
        self._start(loops.merge, self.chunks, *tensors, **codes, **flags, PARTS=PARTS)

    def _start(self, kernel: Any, programs: int, *tensors: Tensor, **flags: Any) -> None:
        with torch.cuda.device(self.device) if self.device.type == "cuda" else contextlib.nullcontext():
            sizes = self.nodes, self.size, self.features, self.piece
            kernel[(programs * self.columns,)](*tensors, *sizes, **self.common, **flags)


def _codes(names: Sequence[str]) -> int:
    """Pack the positions of the names in ELEMENTARY, three bits each."""
    return sum(ELEMENTARY.index(name) << (3 * block) for block, name in enumerate(names))


def _find(name: str, names: Sequence[str]) -> int:
    """Return the block of a reduction, or -1."""
    return names.index(name) if name in names else -1


def _bits(x: Tensor) -> Tensor:
    """View the bits of floats as integers."""
    return x.detach().contiguous().resolve_neg().view(_BITS[x.element_size()])


def _power_of_two(number: int) -> int:
    """Return the least power of two that is at least `number`."""
    return 1 << max(number - 1, 0).bit_length()
