"""The limits of speed that readouts are to reach, as one table, and what rows say about them.

Every limit names the cells that it holds for and a ratio. Most ratios are of two times within one cell, whose
contenders ran in turns; one is of two cells of the same run. A cell in which our result is wrong, or was not
timed, misses its limits; one without the contender that a limit compares with has nothing to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from experiments.speed import grid
from experiments.speed import implementations as by
from experiments.speed.cells import Cell
from experiments.speed.grid import BACKWARD, FORWARD, NORMAL, TRIPLE, UNSORTED, WIDE
from experiments.speed.implementations import OURS, PYG
from experiments.speed.processes import FIRST, IMPORT, PEAK

SMALL, CACHED, LARGE, LARGE_ON_CUDA = 1e6, 10e6, 50e6, 1e9  # bytes of x
POOLS, THREE, PLAIN = TRIPLE, (", ".join(TRIPLE),), (NORMAL, grid.RELU)
ELEMENTARY = (*grid.ALONE, *THREE)


class Ratio(NamedTuple):
    """What a limit compares: a number, None where ours is wrong or absent, and what it is a ratio of."""

    value: float | None
    of: str
    noisy: bool = False

    def scaled(self, factor: float) -> Ratio:
        """The same ratio in other units."""
        return self._replace(value=self.value and self.value * factor)


Cells = Sequence[Cell]
Measure = Callable[[Cell, Cells], Ratio | None]


class Bound(NamedTuple):
    """A ratio, and how much of it is allowed."""

    ratio: Measure
    bound: float
    at_least: bool = False
    unit: str = "x"


class Limit(NamedTuple):
    """What a rule says: which bound, and in which cells, of all that have what it compares.

    No names stand for all; x has `least` to `most` bytes.
    """

    name: str
    bound: Bound
    readouts: Sequence[str] = ()
    directions: Sequence[str] = ()
    kinds: Sequence[str] = (NORMAL,)
    dtype: str = "float32"
    layout: str = grid.SORTED
    least: float = 0
    most: float = float("inf")
    device: str = "cpu"

    def applies(self, cell: Cell) -> bool:
        """Return whether it holds for a cell."""
        named = {"readout": self.readouts, "direction": self.directions, "kind": self.kinds}
        return (
            cell.has(dtype=self.dtype, layout=self.layout, device=self.device)
            and all(cell.case[key] in names for key, names in named.items() if names)
            and self.least <= cell.bytes < self.most
        )


@dataclass(frozen=True)
class Outcome:
    """A limit in one cell, and what was reached."""

    limit: Limit
    cell: Cell
    ratio: Ratio

    @property
    def what(self) -> str:
        """The limit and the cell in words."""
        return f"{self.cell.title}: {self.ratio.of}"

    @property
    def excess(self) -> float:
        """How many times as far as allowed: 1.25 is a quarter too much; infinite without a right result."""
        if self.ratio.value is None:
            return float("inf")
        share = self.ratio.value / self.limit.bound.bound
        return 1 / share if self.limit.bound.at_least else share

    @property
    def met(self) -> bool:
        """Whether the limit was kept."""
        return self.excess <= 1

    @property
    def missed(self) -> str:
        """By how much it was missed, in per cent or as a factor."""
        if self.ratio.value is None:
            return "no right result"
        far = f"by {100 * (self.excess - 1):.0f} %" if self.excess < 3 else f"by {self.excess:.1f} times"
        return far + (", noisy" if self.ratio.noisy else "")


def evaluate(cells: Cells) -> list[Outcome]:
    """All limits in all cells that they hold for, limit by limit, the small cells first."""
    return [
        Outcome(limit, cell, ratio)
        for limit in LIMITS.values()
        for cell in cells
        if limit.applies(cell)
        if (ratio := limit.bound.ratio(cell, cells)) is not None
    ]


def over(cell: Cell, ours: str, other: Cell, base: str | None, of: str, power: int = 1) -> Ratio | None:
    """Our time over another one, or the inverse of that with a power of -1."""
    time, unit = cell.number(ours), other.number(base)
    if unit is None:
        return None
    value = None if time is None else (time / unit) ** power
    return Ratio(value, of, cell.noisy(ours) or other.noisy(base))


def times(bound: float, *bases: str, ours: str = OURS) -> Bound:
    """At most so many times the time of another, or of the fastest of several."""

    def ratio(cell: Cell, cells: Cells) -> Ratio | None:
        base = cell.fastest(bases)
        return over(cell, ours, cell, base, f"{ours} / {base}")

    return Bound(ratio, bound)


def faster(bound: float, base: str, ours: str = OURS) -> Bound:
    """At least so many times as fast as another."""
    return Bound(lambda cell, _: over(cell, ours, cell, base, f"{base} / {ours}", -1), bound, at_least=True)


def normal_float32(cell: Cell, cells: Cells) -> Ratio | None:
    """Our time a byte in units of that of normal float32, same shape, reductions and direction."""
    keys = ("data", "readout", "direction", "layout", "timing", "device", "threads", "seed", "quick")
    same = {key: cell.case[key] for key in keys if key in cell.case}
    usual = next((one for one in cells if one.has(**same, kind=NORMAL, dtype="float32")), None)
    if usual is None:
        return None
    found = over(cell, OURS, usual, OURS, f"{OURS} a byte / normal float32")
    return found and found.scaled(usual.bytes / cell.bytes)


def starting(metric: str, bound: float, unit: str = "s") -> Bound:
    """At most so many seconds, or milliseconds."""

    def ratio(cell: Cell, cells: Cells) -> Ratio | None:
        seconds = cell.number(OURS, metric)
        return None if seconds is None else Ratio(seconds / {"s": 1, "ms": 1e-3}[unit], metric)

    return Bound(ratio, bound, unit=unit)


def peak_memory(cell: Cell, cells: Cells) -> Ratio | None:
    """Peak memory in units of x, its gradient and the outputs."""
    if (used := cell.number(OURS, PEAK)) is None:
        return None
    whole = 2 * cell.bytes + cell.outputs
    return Ratio((cell.bytes + used) / whole, "peak memory / x, gradient, outputs")


def copy_bandwidth(cell: Cell, cells: Cells) -> Ratio | None:
    """Our bandwidth, x read and outputs written, as a share of that of a copy on the device."""
    found = over(cell, OURS, cell, by.COPY, f"{OURS} GB/s / {by.COPY} GB/s", -1)
    return found and found.scaled((cell.bytes + cell.outputs) / (2 * cell.bytes))


LIMITS: Mapping[str, Limit] = {
    "batches up to 1 MB: sum, mean or max at least twice as fast as PyG": Limit(
        "small, forward", faster(2, PYG), POOLS, [FORWARD], most=SMALL
    ),
    "batches up to 1 MB: sum, mean or max no slower than PyG": Limit(
        "small, forward+backward", times(1, PYG), POOLS, [BACKWARD], most=SMALL
    ),
    "batches up to 1 MB: max at least three times as fast as PyG": Limit(
        "small max, forward+backward", faster(3, PYG), ("max",), [BACKWARD], most=SMALL
    ),
    "sorted batches, normal and relu: no slower than the fastest peer, given its offsets": Limit(
        "fastest", times(1, *by.PEERS), ELEMENTARY, kinds=PLAIN
    ),
    "unsorted edges: no slower than the fastest peer that starts from the index, too": Limit(
        "fastest, unsorted", times(1, *by.FROM_INDEX), ELEMENTARY, kinds=PLAIN, layout=UNSORTED
    ),
    "unsorted edges, order given: with Segments no slower than the fastest of all peers": Limit(
        "fastest, unsorted, grouped",
        times(1, *by.PEERS, ours=by.GROUPED),
        ELEMENTARY,
        kinds=PLAIN,
        layout=UNSORTED,
    ),
    "unsorted edges: forward+backward of sum, mean, max 1.5 times as fast as PyG, no grouping given": Limit(
        "edges", faster(1.5, PYG), (*POOLS, *THREE), [BACKWARD], layout=UNSORTED
    ),
    "softmax and attention readouts no slower than PyG's": Limit(
        "softmax, attention", times(1, PYG), grid.WEIGHTED
    ),
    "sum, mean and max of 10 to 50 MB: at most 2.5 times a plain read": Limit(
        "cache", times(2.5, by.READ), THREE, [FORWARD], least=CACHED, most=LARGE
    ),
    "sum, mean and max of 50 MB and more: at most 1.3 times a plain read": Limit(
        "memory speed, forward", times(1.3, by.READ), THREE, [FORWARD], least=LARGE
    ),
    "sum, mean and max of 50 MB and more: at most 1.3 times two reads and one fresh write": Limit(
        "memory speed, forward+backward", times(1.3, by.FRESH), THREE, [BACKWARD], least=LARGE
    ),
    "sum, mean and max of 50 MB and more: forward+backward ten times as fast as PyG": Limit(
        "ten times PyG", faster(10, PYG), THREE, [BACKWARD], least=LARGE
    ),
    "data from 2^-40 to 2^40: at most 3 times the time of normal float32": Limit(
        "wide", Bound(normal_float32, 3), ELEMENTARY, kinds=(WIDE,)
    ),
    "float64: at most 3 times the time a byte of normal float32": Limit(
        "float64", Bound(normal_float32, 3), ELEMENTARY, dtype="float64"
    ),
    "import readouts, torch imported before": Limit("import", starting(IMPORT, 0.3)),
    "the first readout of a process": Limit("first call", starting(FIRST, 5, "ms")),
    "sum, mean and max, forward+backward: x, its gradient, the outputs and 5 %": Limit(
        "peak memory", Bound(peak_memory, 1.05)
    ),
    "an epoch from the resident set three times as fast as from PyG's loader": Limit(
        "epochs", faster(3, by.LOADER, ours=by.RESIDENT)
    ),
    "sum, mean and max of 1 GB and more: 85 % of the bandwidth of a copy": Limit(
        "GPU bandwidth",
        Bound(copy_bandwidth, 0.85, at_least=True),
        THREE,
        [FORWARD],
        least=LARGE_ON_CUDA,
        device="cuda",
    ),
    "sum, mean and max of 1 GB and more: forward+backward four times as fast as PyG": Limit(
        "GPU against PyG", faster(4, PYG), THREE, [BACKWARD], least=LARGE_ON_CUDA, device="cuda"
    ),
    "batches up to 1 MB: no slower than PyG": Limit(
        "GPU, small", times(1, PYG), (*POOLS, *THREE), most=SMALL, device="cuda"
    ),
}
