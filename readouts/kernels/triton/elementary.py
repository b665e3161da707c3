"""The elementary reductions on CUDA devices, in Triton.

A program has one graph and a block of features. A graph of more than 2**9 to 2**13 nodes, in a batch where
that occurs, is cut into pieces, so that a large graph occupies many programs; a second launch merges the
states of the pieces. The grid depends only on the numbers of nodes, graphs and features, and programs find
their rows from `ptr` on the device. So no value is copied to the CPU, and there are no atomics. Offsets that
lead outside of x give wrong results, but no access outside of the tensors.

Sums are exact, and rounded once. `loops.forward` adds float32, float16 and bfloat16 numbers in float64, and
the largest and the smallest magnitude of every 128 rows prove that this is exact. Each thread keeps its own
columns, so that threads do not wait for each other. If the sum is one float64 number it is rounded at once,
for narrow dtypes to odd first. If not, or where the proof fails, the program sets a flag, and a second
launch, `loops.repair`, does its work again; where no flag is set, it returns at once. It keeps three float64
numbers with the errors of all additions, as float64 numbers and squared deviations always do. If three
numbers are too few, or so large or so small that a division might not be exact, the sum is made of integer
limbs of 32 bits (`limbs`): for whole graphs in the same program, for cut graphs by many programs at once.

For a backward pass, `reduce_keeping` also stores means, deviations and how many nodes tie with max and min,
so that the gradient of a node is computed from its row alone. Without them, `loops.keep` and `pieces.survey`
compute them from x again: for second derivatives, and for the values of order statistics.

Shapes of tiles depend on dtype and number of features alone, and the first call of a kind compiles all
kernels of the kind (`_Batch`). This must not happen while a CUDA graph is captured: before a capture, run one
batch of the same dtype, features and reductions on the same device, forward and backward, sorted or not, with
or without gradients, and with data that are aligned to 16 bytes or not, as in the capture.

Numbers are passed as their bits, so that no hardware mode can flush subnormal numbers, and the kernels are
compiled without fused multiply-add, which would round differently from the reference.
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
    tracks_squares,
    tracks_sums,
)

LONG = 4096  # up to so many nodes, of at most MEAN nodes a graph, no graph is cut
MEAN = 256
PROGRAMS = 2048  # number of programs that keeps a device busy
PIECES = 9, 13  # log2 of the least and the most rows of a piece
BLOCK = 128  # features of a program, at most, four a thread; half as many in float64
REGISTERS = 104  # of a thread of the fast kernel; it needs no more
PARTS, COLUMNS = 64, 4  # pieces merged at once, and features of a program that merges
MERGES, GROUP = 1024, 128  # about the number of programs that merge, and the most chunks of one of them
MANTISSA = {torch.float64: 52, torch.float32: 23, torch.float16: 10, torch.bfloat16: 7}
_started: set[tuple[Any, ...]] = set()
_ONLY_SQUARES: dict[str, Any] = {"SUMS": False, "MAXIMA": False, "MINIMA": False}
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}

NAMES = frozenset(("sum", "mean", "max", "min", "var", "std"))


def supports(dtype: torch.dtype) -> bool:
    """Return whether this module computes readouts of this dtype; requires Triton."""
    return dtype in MANTISSA and has_triton()


@functools.cache
def has_triton() -> bool:
    """Return whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def reduce(x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str]) -> Tensor:
    """Reduce the nodes order[ptr[b]:ptr[b + 1]] of every graph b, rows of x [N, F], to [B, R, F].

    `order` is None if the nodes are sorted by graph; `index` is ignored.
    """
    return _reduce(x, ptr, order, names, 0)[0]


def reduce_keeping(
    x: Tensor, index: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Reduce as `reduce` does; also return what `reduce_backward` would compute again, int64 [B, K, F]."""
    return _reduce(x, ptr, order, names, kept_blocks(names))


def kept_blocks(names: Sequence[str]) -> int:
    """Return the number K of blocks that are kept of every graph.

    They are the bits of the float64 mean and standard deviation, for var and std, and how many nodes tie with
    the maximum and the minimum, 32 bits each: a graph has fewer than 2**31 nodes.
    """
    return 2 * tracks_squares(names) + needs_out(names)


def _reduce(
    x: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str], blocks: int
) -> tuple[Tensor, Tensor]:
    out = x.new_empty(ptr.shape[0] - 1, len(names), x.shape[1])
    kept = x.new_empty(ptr.shape[0] - 1, blocks, x.shape[1], dtype=torch.int64)
    if out.numel() == 0 or x.shape[0] == 0:
        return out.zero_(), kept.zero_()
    sums, squares = tracks_sums(names), tracks_squares(names)
    flags = {"SUMS": sums, "MAXIMA": "max" in names, "MINIMA": "min" in names}
    batch = _Batch(x, ptr, order, names, f"forward {blocks}")
    inputs = bits_of(x), batch.order, batch.ptr, bits_of(out), kept
    batch.forward(*inputs, **flags, SQUARES=squares)
    if batch.merges:
        batch.merge(*inputs, write=True, **flags, SQUARES=False)
        if squares:
            batch.survey(*inputs, write=True, **_ONLY_SQUARES, SQUARES=True)
    return out, kept


def reduce_backward(
    grad: Tensor,
    x: Tensor | None,
    out: Tensor | None,
    index: Tensor,
    ptr: Tensor,
    order: Tensor | None,
    names: Sequence[str],
    kept: Tensor | None = None,
) -> Tensor:
    """Return the gradient [N, F] of `reduce` for x, given that of its output, and `out` [B, R, F] itself.

    x may be None for sum and mean. `out` may be None unless max or min are among the names. `kept` is that of
    `reduce_keeping`; without it, x is read once more, and with std three times more. A program keeps one
    maximum and one minimum, so if max or min occur twice the portable kernel is used.
    """
    if not keeps(names):
        return portable.reduce_backward(grad, x, out, index, ptr, order, names)
    result = grad.new_empty(index.shape[0], grad.shape[2])
    if result.numel() == 0:
        return result
    batch = _Batch(result, ptr, order, names, f"backward {kept is None}")
    slopes = bits_of(grad)
    rows, results = (slopes if tensor is None else bits_of(tensor) for tensor in (x, out))
    flags = {"SUMS": tracks_squares(names), "MAXIMA": "max" in names, "MINIMA": "min" in names}
    if kept is None:
        kept = grad.new_empty(batch.size, kept_blocks(names), batch.features, dtype=torch.int64)
        if any(flags.values()):
            batch.keep(rows, batch.order, batch.ptr, results, kept, **flags, SQUARES="std" in names)
    batch.backward(slopes, rows, results, kept, bits_of(result), **flags, SQUARES="std" in names)
    return result


def keeps(names: Sequence[str]) -> bool:
    """Return whether the kernels know all names, and max and min occur at most once."""
    return NAMES.issuperset(names) and all(names.count(name) <= 1 for name in names if needs_out((name,)))


class _Batch:
    """The assignment of rows to programs, and the memory for the states of pieces.

    The first call of a kind starts the kernels for cut graphs, too, with no programs if no graph can be cut:
    so all kernels of the kind are compiled, and no later batch waits for a compiler.
    """

    def __init__(
        self, x: Tensor, ptr: Tensor, order: Tensor | None, names: Sequence[str], direction: str
    ) -> None:
        (self.nodes, self.features), self.size, self.x = x.shape, ptr.shape[0] - 1, x
        self.ptr, self.order = ptr.contiguous(), ptr if order is None else order.contiguous()
        layout = _layout(x.dtype, self.features)
        self.blocks = -(-self.features // layout["FEATURES"])
        self.is_cut = self.nodes > min(LONG, MEAN * self.size)
        kind = x.device, x.dtype, self.features, order is None, tuple(names), direction
        self.merges = self.is_cut or kind not in _started
        _started.add(kind)
        wanted = max(self.nodes * self.blocks // PROGRAMS - 1, 0).bit_length()
        self.shift = min(max(wanted, PIECES[0]), PIECES[1]) if self.is_cut else self.nodes.bit_length()
        self.chunks = (self.nodes >> self.shift) + 1 if self.is_cut else 0
        self.states = (
            x.new_empty(2 * self.chunks, 3, self.features, dtype=torch.float64),
            x.new_empty(2 * self.chunks, 4, self.features, dtype=torch.int64),
            x.new_empty(2 * self.chunks, dtype=torch.int64),
        )
        self.lost = x.new_empty(self.chunks * self.features + 1, dtype=torch.int32)
        self.centres = x.new_empty(self.chunks, self.features, dtype=torch.float64)
        self.codes = {"CODES": _codes(names), "BLOCKS": len(names)}
        self.find = {"MAX_BLOCK": _find("max", names), "MIN_BLOCK": _find("min", names)}
        self.common = {"MANTISSA": MANTISSA[x.dtype], "enable_fp_fusion": False}
        self.rows = {name: layout.pop(name) for name in ("ROWS", "POWER")}
        self.tiles = layout | {"ORDERED": order is not None, "num_warps": 1}
        self.sizes = self.nodes, self.size, self.features, self.shift

    def forward(self, *inputs: Tensor, SUMS: bool, SQUARES: bool, **flags: Any) -> None:
        """Reduce whole graphs, and the pieces of others to states."""
        from readouts.kernels.triton import loops

        x, order, ptr, out, kept = inputs
        programs = (self.size + 2 * self.chunks) * self.blocks
        tensors, options = (*inputs, *self.states, self.lost), self.codes | self.tiles
        more = options | self.rows | flags | {"KEPT": kept.shape[1]}
        if SQUARES or (SUMS and self.x.dtype == torch.float64):
            self._start(loops.forward_far, programs, *tensors, *self.sizes, **more, SQUARES=SQUARES)
            return
        doubts = self.x.new_empty(programs if SUMS else 0, dtype=torch.int32)
        more |= {"SUMS": SUMS, "maxnreg": REGISTERS}
        self._start(loops.forward, programs, *tensors, doubts, *self.sizes, **more)
        if SUMS:
            group = min(max(programs // PROGRAMS, 1), 32)
            tensors = x, order, ptr, out, *self.states[:2], doubts
            sizes = *self.sizes, programs, group
            options |= {"num_warps": 4, "LANES": 4 * self.tiles["LANES"]}
            self._start(loops.repair, -(-programs // group), *tensors, *sizes, **options)

    def survey(self, *inputs: Tensor, write: bool = False, **flags: Any) -> None:
        """Read cut graphs once more, for statistics that the next launch needs."""
        from readouts.kernels.triton import pieces

        x, order, ptr, out, _ = inputs
        options = {"BLOCKS": self.codes["BLOCKS"], **self.find, **self.tiles, **self.rows, **flags}
        tensors = x, order, ptr, out, *self.states, self.centres, self.lost
        self._start(pieces.survey, 2 * self.chunks * self.blocks, *tensors, *self.sizes, **options)
        self.merge(*inputs, write=write, **flags)

    def keep(self, *inputs: Tensor, SQUARES: bool, **flags: Any) -> None:
        """Compute what `reduce_keeping` keeps, from x and the output."""
        from readouts.kernels.triton import loops

        options = {"BLOCKS": self.codes["BLOCKS"], "KEPT": inputs[-1].shape[1]}
        options |= self.find | self.tiles | self.rows | flags
        self._start(loops.keep, self.size * self.blocks, *inputs, *self.sizes, SQUARES=SQUARES, **options)
        if self.merges:
            self.survey(*inputs, **flags, SQUARES=False)
            if SQUARES:
                self.survey(*inputs, **_ONLY_SQUARES, SQUARES=True)

    def merge(self, *inputs: Tensor, write: bool, **flags: Any) -> None:
        """Merge the states of pieces; write the results to the output, or only what is kept."""
        from readouts.kernels.triton import limbs, pieces

        x, order, ptr, out, kept = inputs
        columns = min(COLUMNS, self.tiles["FEATURES"])
        blocks = -(-self.features // columns)
        options = (self.codes if write else {"CODES": 0, "BLOCKS": 0}) | {"KEPT": kept.shape[1]}
        merging = options | flags | {"FEATURES": columns, "PARTS": PARTS, "GROUP": GROUP, "num_warps": 2}
        group = min(max(self.chunks * blocks // MERGES, 1), GROUP)
        programs = -(-self.chunks * blocks // group)
        merged = ptr, out, kept, *self.states, self.centres, self.lost, *self.sizes, group
        self._start(pieces.merge, programs, *merged, **merging)
        if not (flags["SUMS"] or flags["SQUARES"]):
            return
        slots = 2 * ((self.nodes >> PIECES[1]) + 1) if self.is_cut else 0
        number = limbs.limbs_of(self.common["MANTISSA"], flags["SQUARES"])
        digits = self.x.new_empty(slots, self.features, number, dtype=torch.int64)
        common = {"SQUARES": flags["SQUARES"], "ORDERED": self.tiles["ORDERED"], "FEATURES": columns}
        common |= {"SHIFT": PIECES[1], "num_warps": 1}
        lost = self.centres, self.lost, digits, *self.sizes
        self._start(pieces.limbs_of_pieces, slots * blocks, x, order, ptr, *lost, **common)
        tensors = x, order, ptr, out, kept, self.states[2]
        self._start(pieces.round_limbs, self.chunks * blocks, *tensors, *lost, **options, **common)

    def backward(
        self, grad: Tensor, x: Tensor, out: Tensor, kept: Tensor, result: Tensor, **flags: Any
    ) -> None:
        """Write the gradients of all nodes."""
        from readouts.kernels.triton import loops

        tensors = grad, x, out, kept, self.order, self.ptr, result
        programs = (self.size + 2 * self.chunks) * self.blocks
        options = self.codes | self.find | self.tiles | flags | {"KEPT": kept.shape[1]}
        options |= {"ROWS": self.rows["ROWS"]}
        del options["LANES"]
        self._start(loops.backward, programs, *tensors, *self.sizes, **options)

    def _start(self, kernel: Any, programs: int, *arguments: Any, **options: Any) -> None:
        launch(self.x.device, kernel, programs, *arguments, **self.common, **options)


def launch(device: torch.device, kernel: Any, programs: int, *arguments: Any, **options: Any) -> None:
    """Start the programs of a kernel on a device; the CPU is that of an interpreter or emulator."""
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        kernel[(programs,)](*arguments, **options)


def _layout(dtype: torch.dtype, features: int) -> dict[str, Any]:
    """Return the shape of tiles, which depends on dtype and number of features alone; see `rows`."""
    most = BLOCK if dtype.itemsize < 8 else BLOCK // 2
    width = min(most, _power_of_two(features))
    lanes = most // width
    rows = max(8, 2 * lanes)
    return {
        "FEATURES": width,
        "LANES": lanes,
        "ROWS": rows,
        "POWER": max(7, (8 * rows).bit_length() - 1),
        "WHOLE": features % width == 0,
    }


def _codes(names: Sequence[str]) -> int:
    """Pack the positions of the names in ELEMENTARY, three bits each."""
    return sum(ELEMENTARY.index(name) << (3 * block) for block, name in enumerate(names))


def _find(name: str, names: Sequence[str]) -> int:
    """Return the block of a reduction, or -1."""
    return names.index(name) if name in names else -1


def bits_of(x: Tensor) -> Tensor:
    """View the bits of floats as integers."""
    return x.detach().contiguous().resolve_neg().view(_BITS[x.element_size()])


def _power_of_two(number: int) -> int:
    """Return the least power of two that is at least `number`."""
    return 1 << max(number - 1, 0).bit_length()
