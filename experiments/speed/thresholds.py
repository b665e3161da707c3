"""The limits of speed that readouts are to reach, as one table, and what rows say about them.

Every limit names the cells that it holds for and a ratio. Most ratios are of two times within one cell, whose
contenders ran in turns; one is of two cells of the same run. A cell in which our result is wrong, or was not
timed, misses its limits; one without the contender that a limit compares with has nothing to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from experiments.speed.baselines import COPY, FRESH, READ
from experiments.speed.cases import (
    ALONE,
    BACKWARD,
    EPOCH,
    FORWARD,
    NORMAL,
    RELU,
    SORTED,
    TRIPLE,
    UNSORTED,
    WEIGHTED,
    WIDE,
)
from experiments.speed.cells import Cell
from experiments.speed.implementations import (
    FROM_INDEX,
    GROUPED,
    LOADER,
    OURS,
    PEERS,
    PYG,
    RESIDENT,
)
from experiments.speed.memory import PEAK
from experiments.speed.startup import FIRST, IMPORT

MEGABYTE = 1e6
SMALL, CACHED, LARGE, LARGE_ON_CUDA = 1e6, 10e6, 50e6, 1e9  # bytes of x
THREE = ", ".join(TRIPLE)
ELEMENTARY = (*ALONE, THREE)


@dataclass(frozen=True)
class Ratio:
    """What a limit compares: a number, what it is a ratio of, and whether a time in it is noisy."""

    value: float | None
    of: str
    noisy: bool = False


Cells = Sequence[Cell]
Where = Callable[[Cell], bool]
Measure = Callable[[Cell, Cells], Ratio | None]


@dataclass(frozen=True)
class Limit:
    """A row of the table: which cells, which ratio, and the bound."""

    name: str
    rule: str
    applies: Where
    ratio: Measure
    bound: float
    at_least: bool = False
    unit: str = "x"
    device: str = "cpu"

    def allows(self, value: float) -> bool:
        """Return whether a ratio keeps the limit."""
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True)
class Outcome:
    """A limit in one cell, and what was reached; None where our result is wrong or absent."""

    limit: Limit
    cell: Cell
    ratio: Ratio

    @property
    def what(self) -> str:
        """The limit and the cell in words."""
        return f"{self.cell.title}: {self.ratio.of}"

    @property
    def met(self) -> bool:
        """Whether the limit was kept."""
        return self.ratio.value is not None and self.limit.allows(self.ratio.value)

    @property
    def excess(self) -> float:
        """How many times as far as allowed: 1.25 is a quarter too much; infinite without a right result."""
        if self.ratio.value is None:
            return float("inf")
        share = self.ratio.value / self.limit.bound
        return 1 / share if self.limit.at_least else share

    @property
    def verdict(self) -> str:
        """Met, or missed by how much."""
        if self.ratio.value is None:
            return "missed: no right result"
        by = f"met by {100 * (1 - self.excess):.0f} %" if self.met else f"missed by {missed(self.excess)}"
        return by + (", noisy" if self.ratio.noisy else "")


def missed(excess: float) -> str:
    """By how much a limit is missed, in per cent or as a factor."""
    return f"{100 * (excess - 1):.0f} %" if excess < 3 else f"{excess:.1f} times"


def evaluate(cells: Cells) -> list[Outcome]:
    """All limits in all cells that they hold for, limit by limit, the small cells first."""
    return list(outcomes(cells))


def outcomes(cells: Cells) -> Iterator[Outcome]:
    """Walk through the table."""
    for limit in LIMITS:
        for cell in cells:
            if cell.has(device=limit.device) and limit.applies(cell):
                ratio = limit.ratio(cell, cells)
                if ratio is not None:
                    yield Outcome(limit, cell, ratio)


# Which cells


def where(
    *readouts: str,
    directions: Sequence[str] = (FORWARD, BACKWARD),
    kinds: Sequence[str] = (NORMAL,),
    dtypes: Sequence[str] = ("float32",),
    layouts: Sequence[str] = (SORTED,),
    least: float = 0,
    most: float = float("inf"),
) -> Where:
    """Cells of these reductions and directions, whose x has `least` to `most` bytes, and timed at all."""

    def applies(cell: Cell) -> bool:
        case = cell.case
        return (
            case["readout"] in readouts
            and case["direction"] in directions
            and case["kind"] in kinds
            and case["dtype"] in dtypes
            and case["layout"] in layouts
            and least <= cell.bytes < most
            and READ in cell.numbers
        )

    return applies


# Which ratio


def times(ours: str, base: str) -> Measure:
    """Our time in units of that of `base`."""
    return lambda cell, cells: quotient(cell, ours, base, f"{ours} / {base}")


def faster(ours: str, base: str) -> Measure:
    """How many times as fast as `base`."""

    def ratio(cell: Cell, cells: Cells) -> Ratio | None:
        if cell.number(base) is None:
            return None
        found = quotient(cell, ours, base, f"{base} / {ours}")
        value = None if found is None or found.value is None else 1 / found.value
        return Ratio(value, f"{base} / {ours}", found is not None and found.noisy)

    return ratio


def times_fastest(ours: str, peers: Sequence[str]) -> Measure:
    """Our time in units of that of the fastest peer."""

    def ratio(cell: Cell, cells: Cells) -> Ratio | None:
        best = cell.fastest(peers)
        return None if best is None else quotient(cell, ours, best, f"{ours} / {best}")

    return ratio


def quotient(cell: Cell, ours: str, base: str, of: str) -> Ratio | None:
    """One time over another of the same cell; None without the other, no value without ours."""
    time, unit = cell.number(ours), cell.number(base)
    if unit is None:
        return None
    return Ratio(None if time is None else time / unit, of, cell.noisy(ours) or cell.noisy(base))


def times_normal_float32(cell: Cell, cells: Cells) -> Ratio | None:
    """Our time a byte in units of that of normal float32, same shape, reductions and direction."""
    keys = ("data", "readout", "direction", "layout", "timing", "device", "threads", "seed", "quick", "code")
    same = {key: cell.case.get(key) for key in keys if key in cell.case}
    usual = next((one for one in cells if one.has(**same, kind=NORMAL, dtype="float32")), None)
    if usual is None or (unit := usual.number(OURS)) is None:
        return None
    time = cell.number(OURS)
    value = None if time is None else (time / cell.bytes) / (unit / usual.bytes)
    return Ratio(value, f"{OURS} a byte / normal float32", cell.noisy(OURS) or usual.noisy(OURS))


def seconds(metric: str, unit: float) -> Measure:
    """A time of starting, in this unit."""

    def ratio(cell: Cell, cells: Cells) -> Ratio | None:
        found = cell.number(OURS, metric)
        return None if found is None else Ratio(found / unit, metric)

    return ratio


def peak_memory(cell: Cell, cells: Cells) -> Ratio | None:
    """Peak memory in units of x, its gradient and the outputs."""
    if (used := cell.number(OURS, PEAK)) is None:
        return None
    outputs = cell.bytes / cell.case["nodes"] * cell.case["graphs"] * len(TRIPLE)
    return Ratio((cell.bytes + used) / (2 * cell.bytes + outputs), "peak memory / x, gradient, outputs")


def copy_bandwidth(cell: Cell, cells: Cells) -> Ratio | None:
    """Our bandwidth, x read and outputs written, as a share of that of a copy on the device."""
    time, copied = cell.number(OURS), cell.number(COPY)
    if copied is None:
        return None
    outputs = cell.bytes / cell.case["nodes"] * cell.case["graphs"] * len(TRIPLE)
    speed = None if time is None else (cell.bytes + outputs) / time
    share = None if speed is None else speed / (2 * cell.bytes / copied)
    return Ratio(share, f"{OURS} GB/s / {COPY} GB/s", cell.noisy(OURS) or cell.noisy(COPY))


def has(metric: str) -> Where:
    """Cells for which this number of ours was measured."""
    return lambda cell: cell.number(OURS, metric) is not None


def is_epoch(cell: Cell) -> bool:
    """Return whether epochs of a training were timed."""
    return cell.has(direction=EPOCH)


POOLS = ("sum", "mean", "max")
PLAIN = (NORMAL, RELU)
LIMITS: tuple[Limit, ...] = (
    Limit(
        "small, forward",
        "batches up to 1 MB: sum, mean or max at least twice as fast as PyG",
        where(*POOLS, directions=[FORWARD], most=SMALL),
        faster(OURS, PYG),
        2,
        at_least=True,
    ),
    Limit(
        "small, forward+backward",
        "batches up to 1 MB: sum, mean or max no slower than PyG",
        where(*POOLS, directions=[BACKWARD], most=SMALL),
        times(OURS, PYG),
        1,
    ),
    Limit(
        "small max, forward+backward",
        "batches up to 1 MB: max at least three times as fast as PyG",
        where("max", directions=[BACKWARD], most=SMALL),
        faster(OURS, PYG),
        3,
        at_least=True,
    ),
    Limit(
        "fastest",
        "sorted batches, normal and relu: no slower than the fastest peer, given its offsets",
        where(*ELEMENTARY, kinds=PLAIN),
        times_fastest(OURS, PEERS),
        1,
    ),
    Limit(
        "fastest, unsorted",
        "unsorted edges: no slower than the fastest peer that starts from the index, too",
        where(*ELEMENTARY, kinds=PLAIN, layouts=[UNSORTED]),
        times_fastest(OURS, FROM_INDEX),
        1,
    ),
    Limit(
        "fastest, unsorted, grouped",
        "unsorted edges, order given: with Segments no slower than the fastest of all peers",
        where(*ELEMENTARY, kinds=PLAIN, layouts=[UNSORTED]),
        times_fastest(GROUPED, PEERS),
        1,
    ),
    Limit(
        "edges",
        "unsorted edges: forward+backward of sum, mean, max 1.5 times as fast as PyG, no grouping given",
        where(*POOLS, THREE, directions=[BACKWARD], layouts=[UNSORTED]),
        faster(OURS, PYG),
        1.5,
        at_least=True,
    ),
    Limit(
        "softmax, attention",
        "softmax and attention readouts no slower than PyG's",
        where(*WEIGHTED),
        times(OURS, PYG),
        1,
    ),
    Limit(
        "cache",
        "sum, mean and max of 10 to 50 MB: at most 2.5 times a plain read",
        where(THREE, directions=[FORWARD], least=CACHED, most=LARGE),
        times(OURS, READ),
        2.5,
    ),
    Limit(
        "memory speed, forward",
        "sum, mean and max of 50 MB and more: at most 1.3 times a plain read",
        where(THREE, directions=[FORWARD], least=LARGE),
        times(OURS, READ),
        1.3,
    ),
    Limit(
        "memory speed, forward+backward",
        "sum, mean and max of 50 MB and more: at most 1.3 times two reads and one fresh write",
        where(THREE, directions=[BACKWARD], least=LARGE),
        times(OURS, FRESH),
        1.3,
    ),
    Limit(
        "ten times PyG",
        "sum, mean and max of 50 MB and more: forward+backward ten times as fast as PyG",
        where(THREE, directions=[BACKWARD], least=LARGE),
        faster(OURS, PYG),
        10,
        at_least=True,
    ),
    Limit(
        "wide",
        "data from 2^-40 to 2^40: at most 3 times the time of normal float32",
        where(*ELEMENTARY, kinds=[WIDE]),
        times_normal_float32,
        3,
    ),
    Limit(
        "float64",
        "float64: at most 3 times the time a byte of normal float32",
        where(*ELEMENTARY, dtypes=["float64"]),
        times_normal_float32,
        3,
    ),
    Limit("import", "import readouts, torch imported before", has(IMPORT), seconds(IMPORT, 1), 0.3, unit="s"),
    Limit("first call", "the first readout of a process", has(FIRST), seconds(FIRST, 1e-3), 5, unit="ms"),
    Limit(
        "peak memory",
        "sum, mean and max, forward+backward: x, its gradient, the outputs and 5 %",
        has(PEAK),
        peak_memory,
        1.05,
    ),
    Limit(
        "epochs",
        "an epoch from the resident set three times as fast as from PyG's loader",
        is_epoch,
        faster(RESIDENT, LOADER),
        3,
        at_least=True,
    ),
    Limit(
        "GPU bandwidth",
        "sum, mean and max of 1 GB and more: 85 % of the bandwidth of a copy",
        where(THREE, directions=[FORWARD], least=LARGE_ON_CUDA),
        copy_bandwidth,
        0.85,
        at_least=True,
        device="cuda",
    ),
    Limit(
        "GPU against PyG",
        "sum, mean and max of 1 GB and more: forward+backward four times as fast as PyG",
        where(THREE, directions=[BACKWARD], least=LARGE_ON_CUDA),
        faster(OURS, PYG),
        4,
        at_least=True,
        device="cuda",
    ),
    Limit(
        "GPU, small",
        "batches up to 1 MB: no slower than PyG",
        where(*POOLS, THREE, most=SMALL),
        times(OURS, PYG),
        1,
        device="cuda",
    ),
)


def main_ratios(cells: Cells) -> dict[str, list[float]]:
    """The ratios of four limits in all cells, by what they compare."""
    names = {
        "small, forward": "small batches, forward, times as fast as PyG:",
        "small, forward+backward": "forward+backward, in PyG's times:",
        "memory speed, forward": "large batches in plain reads:",
        "memory speed, forward+backward": "forward+backward in two reads and a write:",
    }
    found: dict[str, list[float]] = {told: [] for told in names.values()}
    for outcome in evaluate(cells):
        if outcome.limit.name in names and outcome.ratio.value is not None:
            found[names[outcome.limit.name]].append(outcome.ratio.value)
    return found
