"""`Accumulator`: readouts of streams that are larger than memory, from parts that can be merged."""

from __future__ import annotations

import copy
import functools
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from readouts import ops
from readouts.functional.checks import INTEGERS, check_empty, check_x, segments_of
from readouts.functional.elementary import finish
from readouts.interruptions import uninterrupted
from readouts.keywords import explain_keywords
from readouts.numerics import expansions
from readouts.numerics import superaccumulator as limbs
from readouts.numerics.keys import flip, keys_of, values_of
from readouts.numerics.rounding import narrowed, sqrt
from readouts.ops import superaccumulator as exact
from readouts.ops.superaccumulator import add
from readouts.reductions import ELEMENTARY, EXTREMES, FLOATS, result_dtype, tracks_squares, tracks_sums
from readouts.segments import Segments, check_size

REDUCTIONS = (*ELEMENTARY, "count")
BLOCK = 2**16  # numbers that are added at once on a CPU
CELLS = 2**16  # variances that are computed at once, in the cache
_LOWEST = torch.iinfo(torch.int64).min


class Accumulator:
    """Readouts of nodes that are read in chunks, on one machine or many: the same bits for any chunks.

    For every graph and feature, an accumulator stores the exact sum of the nodes, the exact sum of their
    squares, the maximum and the minimum, as far as `reduce` needs them. These can be merged without loss, so
    the result depends neither on the chunks and their order nor on the order and the tree of merges:

    - ``sum``, ``mean``, ``max``, ``min``: the bits of `readouts.readout` for all nodes at once;
    - ``var``: sum_i (x_i - mu)^2 / n with mu the float64 mean, rounded once. It follows from sum_i x_i and
      sum_i x_i^2 without rounding, where `readout` rounds every term to float64: the two differ by one
      unit in the last place at most, and by three for results in float64;
    - ``std``: the square root of ``var`` in float64, rounded once; differs from `readout`'s in the same
      way, if in float64 it is above 1.5e-154;
    - ``count``: n, int64, the same for all features.

    NaN, infinities, signed zeros, integers and empty graphs are as in `readout`. Results have no gradient.
    Threads may share an accumulator. An update or merge that fails or is interrupted, as by Ctrl-C, is
    applied completely or not at all.

    The memory does not grow with the nodes. In bytes per graph and feature, and 8 more per graph:

    ==============  ===========  =========================  ============
    dtype           sum or mean  var or std (with the sum)  max, min
    ==============  ===========  =========================  ============
    float16         32           72                         8 each
    bfloat16        88           240                        8 each
    float32         88           248                        8 each
    float64         544          1632 (with max and min)    8 each
    integers, bool  32           112                        8 each
    ==============  ===========  =========================  ============

    A state dict or a pickled accumulator has only those limbs of the sums that are in use, about a third for
    float32 numbers of ordinary size.

    Args:
        reduce: ``"sum"``, ``"mean"``, ``"max"``, ``"min"``, ``"var"``, ``"std"``, ``"count"``, or several.
        size: number of graphs B.
        empty: value of a graph without nodes, for all but ``"count"``.

    Raises:
        TypeError: an argument has an unsupported type.
        ValueError: an argument has an invalid value.

    Source: Kulisch and Miranker, "Computer arithmetic in theory and practice" (1981).

    Example:
        >>> first, second = Accumulator("mean", size=2), Accumulator("mean", size=2)
        >>> first.update(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1]))
        >>> second.update(torch.tensor([[4.0]]), torch.tensor([1]))
        >>> first.merge(second)
        >>> first.result()
        tensor([[1.],
                [3.]])
    """

    @explain_keywords
    def __init__(self, reduce: str | Sequence[str], size: int, *, empty: float = 0) -> None:
        self.reduce = _checked(reduce)
        if size is None:
            raise TypeError("size: expected an integer, got NoneType")
        check_size(size)
        check_empty(empty)
        self.size, self.empty = int(size), empty
        self.dtype: torch.dtype | None = None
        self.features: tuple[int, ...] = ()
        self._state: dict[str, Tensor] = {}
        self._pending = 0  # numbers in a sum, at most, since its limbs were carried
        self._lock = threading.RLock()

    def update(self, x: Tensor, batch: Tensor | Segments | None = None, *, ptr: Tensor | None = None) -> None:
        """Add a chunk of nodes; the first fixes dtype, features and device.

        Args:
            x: node features [N, *features], any real dtype.
            batch, ptr: the graphs of these nodes, as for `readouts.readout`; a graph may continue in other
                chunks.

        Raises:
            TypeError: an argument has an unsupported type or dtype, or x another dtype than before.
            ValueError: an argument has an invalid shape, or x other features or another device than before.
            IndexError: an index in `batch` is negative or not below `size`.
        """
        check_x(x)
        segments = segments_of(x, batch, ptr, self.size)
        rows = x.detach()
        rows = rows.flatten(1) if x.dim() > 1 else rows.unsqueeze(1)
        with self._lock, uninterrupted(), torch.inference_mode(False):
            before = self.dtype, self.features, self._state.copy()
            self._fix("x", x.dtype, tuple(x.shape[1:]), x.device)
            flags: dict[str, Tensor] = {}
            done = dict.fromkeys(self._formats(), 0)  # nodes that were added to sums
            try:
                self._make_room(len(rows))
                others = {**self._compared(rows, segments), "count": self._state["count"] + segments.count}
                flags = {name: self._state[name][-1].clone() for name in done}
                for name, start, block, index in self._blocks(rows, segments.index):
                    add(self._state[name], block, index, *self._formats()[name])
                    done[name] = start + len(block)
            except BaseException:
                added = {name: torch.zeros_like(self._state[name]) for name in flags}
                for name, start, block, index in self._blocks(rows, segments.index):
                    if start < done[name]:
                        exact.add(added[name], block, index, *self._formats()[name])
                for name, limbs in added.items():
                    self._state[name][:-1] -= limbs[:-1]
                    self._state[name][-1] = flags[name]
                self.dtype, self.features, self._state = before
                raise
            self._state.update(others)

    def merge(self, other: Accumulator) -> None:
        """Add all nodes of another accumulator, which does not change.

        Raises:
            TypeError: `other` is no accumulator, or one of another dtype.
            ValueError: `other` has other reductions, graphs or features.
        """
        if not isinstance(other, Accumulator):
            raise TypeError(f"other: expected an Accumulator, got {type(other).__name__}")
        other = copy.deepcopy(other) if other is self else other
        first, second = sorted((self, other), key=id)
        with first._lock, second._lock, uninterrupted(), torch.inference_mode(False):
            self._check_alike(other.reduce, other.size)
            if other.dtype is None:
                return
            self._fix("other", other.dtype, other.features, self._device or other._device)
            self._make_room(other._pending + 1)
            theirs = {name: tensor.to(self._device) for name, tensor in other._state.items()}
            others = {"count": self._state["count"] + theirs["count"]}
            for name in self._extremes():
                others[name] = torch.maximum(self._state[name], theirs[name])
            for name in self._formats():  # no memory is needed from here on
                self._state[name][:-1] += theirs[name][:-1]
                self._state[name][-1] |= theirs[name][-1]
            self._state.update(others)

    def result(self) -> Tensor:
        """Return the readouts of all nodes so far, in shape and dtype as from `readouts.readout`.

        Raises:
            ValueError: there was no update, or `empty` is no value of the result's dtype.
        """
        with self._lock:
            if self.dtype is None:
                raise ValueError("result: expected an update before it, got none")
            return self._result()

    def _result(self) -> Tensor:
        assert self.dtype is not None
        state = {name: tensor.cpu() for name, tensor in self._state.items()}
        sums = _Sums(state, self.dtype, math.prod(self.features))
        names = (self.reduce,) if isinstance(self.reduce, str) else self.reduce
        blocks = [sums.block(name) for name in names]
        dtype = functools.reduce(torch.promote_types, (block.dtype for block in blocks))
        count = self._state["count"].cpu()
        graphs = Segments(count.new_empty(0), torch.cat([count.new_zeros(1), count.cumsum(0)]))
        filled = [
            finish(block.to(dtype).unsqueeze(1), block, graphs, True, 0 if name == "count" else self.empty)
            for name, block in zip(names, blocks, strict=True)
        ]
        like = torch.empty(0, *self.features)
        out = finish(torch.stack(filled, dim=1), like, graphs, isinstance(self.reduce, str), 0)
        return out.to(self._state["count"].device)

    @property
    def count(self) -> Tensor:
        """Number of nodes of every graph so far, int64 [B]."""
        count = self._state.get("count")
        return torch.zeros(self.size, dtype=torch.int64) if count is None else count.clone()

    @property
    def nbytes(self) -> int:
        """Bytes of memory that are in use; fixed by the first update."""
        return sum(tensor.nbytes for tensor in self._state.values())

    def state_dict(self) -> dict[str, Any]:
        """Return the state as numbers, names and tensors, for `load_state_dict`."""
        with self._lock, uninterrupted():
            self._carry()
            parts = {}
            for name, tensor in self._state.items():
                low, high = limbs.window(tensor) if name in self._formats() else (0, 0)
                part = limbs.cut(tensor, low, high) if name in self._formats() else tensor.clone()
                parts[name] = low, part
            return {
                "reduce": self.reduce,
                "size": self.size,
                "dtype": self.dtype,
                "features": self.features,
                "parts": parts,
            }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the state of this accumulator by one that `state_dict` returned.

        Raises:
            TypeError: the state is not a mapping.
            ValueError: the state is that of other reductions or another number of graphs, or `state_dict`
                did not return it; the accumulator stays as it is.
        """
        _check_keys(state, ("reduce", "size", "dtype", "features", "parts"))
        reduce = state["reduce"]
        self._check_alike(tuple(reduce) if isinstance(reduce, list) else reduce, state["size"])
        fresh = Accumulator(self.reduce, self.size, empty=self.empty)
        fresh.dtype, fresh.features = _checked_kind(state["dtype"], state["features"])
        with torch.inference_mode(False):
            fresh._state = fresh._checked_parts(state["parts"])
        with self._lock, uninterrupted():
            self.dtype, self.features, self._state, self._pending = (
                fresh.dtype, fresh.features, fresh._state, 0
            )  # fmt: skip

    def _checked_parts(self, parts: object) -> dict[str, Tensor]:
        """Return the state from the parts of a state dict; raise a ValueError unless they are such."""
        formats, cells = self._formats(), (self.size, math.prod(self.features))
        names = (*formats, *self._extremes(), "count") if self.dtype else ()
        if not isinstance(parts, Mapping) or set(parts) != set(names):
            got = sorted(map(str, parts)) if isinstance(parts, Mapping) else type(parts).__name__
            raise ValueError(f"state: expected the parts {', '.join(names) or 'of nothing'}, got {got}")
        found, device = {}, None
        for name in names:
            low, part = _checked_part(name, parts[name])
            device = device or part.device
            length = part.shape[0] - 1 if name in formats and part.dim() == 3 else 0
            shape = (self.size,) if name == "count" else (length + 1, *cells) if name in formats else cells
            most = formats[name][0].limbs if name in formats else 0
            if (
                part.shape != shape
                or not 0 <= low <= most
                or low + length > max(most, low)
                or part.device != device
            ):
                raise ValueError(
                    f"state: expected {name} of shape {shape}, got {tuple(part.shape)} from {low}"
                )
            if name in formats:
                limit = part[: length if low + length < most else max(length - 1, 0)]
                if (limit.abs() > 2**31).any() or (limit == _LOWEST).any():
                    raise ValueError(f"state: expected carried limbs in {name}, got greater ones")
            found[name] = limbs.pasted(part, low, formats[name][0]) if name in formats else part.clone()
        if "count" in found and (found["count"] < 0).any():
            raise ValueError("state: expected counts that are not negative, got others")
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"empty": self.empty, **self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        _check_keys(state, ("empty", "reduce", "size"))
        self.__init__(state["reduce"], state["size"], empty=state["empty"])  # type: ignore[misc]
        self.load_state_dict(state)

    def __repr__(self) -> str:
        """Show the reductions, the number of graphs, and what the first update fixed."""
        fixed = "" if self.dtype is None else f", dtype={self.dtype}, features={self.features}"
        return f"Accumulator({self.reduce!r}, size={self.size}{fixed})"

    @property
    def _device(self) -> torch.device | None:
        return self._state["count"].device if self._state else None

    def _check_alike(self, reduce: object, size: object) -> None:
        if reduce != self.reduce:
            raise ValueError(f"reduce: expected {self.reduce!r}, got {reduce!r}")
        if size != self.size:
            raise ValueError(f"size: expected {self.size}, got {size}")

    def _fix(
        self, name: str, dtype: torch.dtype, features: tuple[int, ...], device: torch.device | None
    ) -> None:
        """Make the state at the first call; at later ones raise if something is different."""
        if self.dtype is None:
            self.dtype, self.features = dtype, features
            cells = self.size, math.prod(features)
            with torch.inference_mode(False):  # of which the next update may know nothing
                for part, (format, _) in self._formats().items():
                    self._state[part] = limbs.zeros(format, *cells, device)
                for part in self._extremes():
                    self._state[part] = torch.full(cells, _LOWEST, dtype=torch.int64, device=device)
                self._state["count"] = torch.zeros(self.size, dtype=torch.int64, device=device)
        elif dtype != self.dtype:
            raise TypeError(f"{name}: expected {self.dtype}, the dtype of the first update, got {dtype}")
        elif features != self.features:
            expected = f"features of shape {self.features}, as in the first update"
            raise ValueError(f"{name}: expected {expected}, got {features}")
        elif device != self._device:
            raise ValueError(f"{name}: expected the device of the first update, {self._device}, got {device}")

    def _formats(self) -> dict[str, tuple[limbs.Format, int]]:
        """Return format and power of every sum that is kept."""
        if self.dtype is None or not tracks_sums(self._elementary):
            return {}
        formats = {"sum": (limbs.format_of(self.dtype), 1)}
        if tracks_squares(self._elementary):
            if not self.dtype.is_floating_point:
                formats["float sum"] = formats["sum"]  # of integers as variances see them
            formats["squares"] = (limbs.format_of(self.dtype, 2), 2)
        return formats

    def _extremes(self) -> list[str]:
        """Return which extremes are kept: those asked for, and both where squares may overflow."""
        both = self.dtype == torch.float64 and tracks_squares(self._elementary)
        return [name for name in EXTREMES if both or name in self._names]

    @property
    def _names(self) -> Sequence[str]:
        return (self.reduce,) if isinstance(self.reduce, str) else self.reduce

    @property
    def _elementary(self) -> list[str]:
        return [name for name in self._names if name in ELEMENTARY]

    def _blocks(self, rows: Tensor, index: Tensor) -> Iterator[tuple[str, int, Tensor, Tensor]]:
        """Yield every sum with blocks of what is added to it: its name, the first node, numbers, graphs."""
        length = (BLOCK if rows.is_cpu else 16 * BLOCK) // max(rows.shape[1], 1) + 1
        for name in self._formats():
            for start in range(0, len(rows), length):
                yield name, start, _numbers(name, rows[start : start + length]), index[start : start + length]

    def _make_room(self, numbers: int) -> None:
        """Carry where so many numbers more might overflow a limb."""
        if self._pending + numbers > limbs.ROOM:
            self._carry()
        self._pending += numbers

    def _carry(self) -> None:
        for name in self._formats():
            limbs.carry(self._state[name])
        self._pending = 0

    def _compared(self, rows: Tensor, segments: Segments) -> dict[str, Tensor]:
        """Return the greatest and least values so far, those of a chunk's graphs among them."""
        names, count = self._extremes(), segments.count
        present = count.nonzero().view(-1)
        if not names or len(present) == 0 or rows.shape[1] == 0:
            return {}
        places = (count > 0).cumsum(0) - 1
        ptr = torch.cat([segments.ptr[:1], segments.ptr[1:][present]])
        values = ops.reduce(rows, places[segments.index], ptr, segments.order, names)
        found = {}
        for name, value in zip(names, values.unbind(1), strict=True):
            best = self._state[name].clone()
            best[present] = torch.maximum(best[present], keys_of(value, flip(name)))
            found[name] = best
        return found


class _Sums:
    """The results of an accumulator, made from its state on the CPU."""

    def __init__(self, state: dict[str, Tensor], dtype: torch.dtype, features: int) -> None:
        self.state, self.dtype, self.features, self.count = state, dtype, features, state["count"]

    def block(self, name: str) -> Tensor:
        """Return the values [B, F] of a reduction, 0 for graphs without nodes."""
        if name == "count":
            return self.count.unsqueeze(1).expand(-1, self.features)
        dtype = result_dtype(name, self.dtype)
        match name:
            case "max" | "min":
                return self._extreme(name)
            case "sum":
                return limbs.rounded(self.state["sum"], limbs.format_of(self.dtype), dtype)
            case "mean":
                return self._mean(dtype)
            case "var":
                return self._variance(dtype)
            case "std":
                return narrowed(sqrt(self._variance(torch.float64)), dtype)
            case _:
                raise ValueError(f"reduce: expected one of {', '.join(REDUCTIONS)}, got {name!r}")

    def _mean(self, dtype: torch.dtype) -> Tensor:
        return limbs.rounded(self.state["sum"], limbs.format_of(self.dtype), dtype, self.count)

    def _extreme(self, name: str) -> Tensor:
        value = values_of(self.state[name], self.dtype, flip(name))
        return value.masked_fill(self.count.unsqueeze(1) == 0, 0)

    def _variance(self, dtype: torch.dtype) -> Tensor:
        """Return sum_i (x_i - mu)^2 / n, rounded once."""
        first = self.state["sum" if self.dtype.is_floating_point else "float sum"]
        nodes = self.count.unsqueeze(1).expand(-1, self.features)
        finite = (first[-1] == 0) & (nodes > 0)
        values = torch.where(nodes == 0, 0.0, torch.nan).double()
        cells = [part.flatten(-2) for part in (first, self.state["squares"], nodes, finite, values)]
        for some in zip(*(part.split(CELLS, dim=-1) for part in cells), strict=True):
            self._write_variances(dtype, *some)
        values = cells[-1].view(values.shape)
        if self.dtype == torch.float64:
            mean = self._mean(torch.float64)
            deviation = torch.maximum(self._extreme("max") - mean, mean - self._extreme("min"))
            values.clamp_(max=torch.finfo(torch.float64).max)
            values[finite & (deviation * deviation).isinf()] = torch.inf
        return values.to(dtype)

    def _write_variances(
        self,
        dtype: torch.dtype,
        first: Tensor,
        squares: Tensor,
        nodes: Tensor,
        finite: Tensor,
        values: Tensor,
    ) -> None:
        """Write variances of some cells: from float64 terms where certain, else from integers."""
        formats = limbs.format_of(self.dtype), limbs.format_of(self.dtype, 2)
        (sums, whole), (square_sums, square_whole) = map(limbs.terms, (first, squares), formats)
        count = nodes.clamp(1, 2**31 - 1)
        mean, mean_certain = expansions.quotient(sums, count, torch.float64)
        found, certain = expansions.variance(sums, square_sums, mean, count, dtype)
        certain &= mean_certain & whole & square_whole & (nodes == count)
        values.copy_(torch.where(finite & certain, found, values))
        left = finite & ~certain
        if not left.any():
            return
        mean = limbs.rounded(first[:, left].unsqueeze(2), formats[0], torch.float64, nodes[left]).view(-1)
        totals, unit = limbs.integers(first[:, left], formats[0])
        square_totals, square = limbs.integers(squares[:, left], formats[1])
        cells = zip(totals, square_totals, mean.tolist(), nodes[left].tolist(), strict=True)
        exact = [_variance(*cell, unit, square, dtype) for cell in cells]
        values[left] = torch.tensor(exact, dtype=torch.float64)


def _variance(
    total: int, squares: int, mean: float, nodes: int, unit: int, square: int, dtype: torch.dtype
) -> float:
    """Return sum_i (x_i - mean)^2 / n, rounded once.

    total * 2**unit is sum_i x_i, and squares * 2**square is sum_i x_i^2.
    """
    numerator, denominator = mean.as_integer_ratio()
    exponent = 1 - denominator.bit_length()
    place = min(unit, exponent, square // 2)  # all is in units of 2**place
    centre, total = numerator << (exponent - place), total << (unit - place)
    squares = (squares << (square - 2 * place)) - 2 * centre * total + nodes * centre * centre
    return limbs.nearest(*limbs.ratio(squares, nodes, 2 * place), dtype)


def _checked(reduce: str | Sequence[str]) -> str | tuple[str, ...]:
    """Return one name, or several as a tuple; raise unless they are known."""
    if not isinstance(reduce, str | tuple | list):
        raise TypeError(f"reduce: expected a name or a sequence of names, got {type(reduce).__name__}")
    names = (reduce,) if isinstance(reduce, str) else tuple(reduce)
    names = tuple("sum" if name == "add" else name for name in names)
    unknown = [name for name in names if name not in REDUCTIONS]
    if unknown or not names:
        got = repr(unknown[0]) if unknown else "none"
        raise ValueError(f"reduce: expected one or more of {', '.join(REDUCTIONS)}, got {got}")
    return names[0] if isinstance(reduce, str) else names


def _numbers(name: str, rows: Tensor) -> Tensor:
    """Return what is added to a sum: the nodes as they are, or as float64."""
    return rows.double() if name == "float sum" else rows


def _check_keys(state: object, keys: Sequence[str]) -> None:
    if not isinstance(state, Mapping):
        raise TypeError(f"state: expected what state_dict returns, got {type(state).__name__}")
    missing = [key for key in keys if key not in state]
    if missing:
        raise ValueError(f"state: expected the entry {missing[0]!r}, got {sorted(map(str, state))}")


def _checked_kind(dtype: object, features: object) -> tuple[torch.dtype | None, tuple[int, ...]]:
    """Return dtype and shape of the features of a state dict; raise a ValueError unless they are such."""
    if dtype is not None and dtype not in FLOATS + INTEGERS:
        raise ValueError(f"state: expected a real dtype, got {dtype!r}")
    whole = isinstance(features, tuple | list) and all(type(f) is int and f >= 0 for f in features)
    if not whole:
        raise ValueError(f"state: expected the shape of the features, got {features!r}")
    return dtype, tuple(features)  # type: ignore[arg-type]


def _checked_part(name: str, part: object) -> tuple[int, Tensor]:
    """Return the first limb and the tensor of a part; raise a ValueError unless they are such."""
    if isinstance(part, tuple | list) and len(part) == 2 and type(part[0]) is int:
        low, tensor = part
        if isinstance(tensor, Tensor) and tensor.dtype == torch.int64 and tensor.layout == torch.strided:
            return low, tensor.detach()
    raise ValueError(
        f"state: expected {name} as the place of its first limb and an int64 tensor, got {part!r}"
    )
