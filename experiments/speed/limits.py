"""The limits that readouts are to reach, and what rows say about them.

A limit is on a ratio within one case, or of two cases that were measured in one run; only that of the small
batch is a time. A limit on a contender that is wrong or failed is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from experiments.rows import Row
from experiments.speed.contenders import COPY, EXACT, FAST, FRESH, LOADER, PYG, READ, RESIDENT
from experiments.speed.measure import PEAK, case_of
from experiments.speed.modules import ALONE
from experiments.speed.shapes import DIRECTIONS, EPOCH, FIVE, GIANT_DATA, SMALL, TRIPLE

FORWARD, BACKWARD = DIRECTIONS
YARDSTICKS = {FORWARD: READ, BACKWARD: FRESH, EPOCH: LOADER}
LARGE, LARGE_ON_CUDA = 10e6, 1e9
NOISY = 1.5
AT_MOST = {
    (FORWARD, FAST): 1.3,
    (FORWARD, EXACT): 2.5,
    (BACKWARD, FAST): 1.5,
    (BACKWARD, EXACT): 2.5,
}


@dataclass
class Result:
    """All that was measured of one case: verdict and numbers of every contender."""

    case: Row
    verdicts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)

    def number(self, contender: str, metric: str = "seconds") -> float | None:
        """One number of a contender, if it was measured."""
        return self.numbers.get(contender, {}).get(metric)

    def ratio(self, contender: str, base: str) -> float | None:
        """How many times as long as `base` a contender takes."""
        time, unit = self.number(contender), self.number(base)
        return None if time is None or unit is None else time / unit

    @property
    def yardstick(self) -> str:
        """What a contender is compared with."""
        return YARDSTICKS[self.case["direction"]]

    @property
    def noisy(self) -> bool:
        """Whether even the yardstick varied: its p80 is half as long again as its p20, or more."""
        quick, slow = (self.number(self.yardstick, metric) for metric in ("p20", "p80"))
        return quick is not None and slow is not None and slow > NOISY * quick

    @property
    def megabytes(self) -> float:
        """Size of what is reduced."""
        width = 4 if self.case["dtype"] == "float32" else 2
        return self.case["nodes"] * self.case["features"] * width / 1e6

    @property
    def name(self) -> str:
        """The shape, and what is not as usual about it."""
        usual = ("float32", "sorted", "readout", "module", "training", "eager")
        unusual = [self.case[key] for key in ("dtype", "layout", "through", "timing")]
        return ", ".join([self.case["data"], *(value for value in unusual if value not in usual)])

    def has(self, **fields: Any) -> bool:
        """Whether the case is of this kind."""
        return fields.items() <= self.case.items()


def gather(rows: Sequence[Row]) -> list[Result]:
    """One result a case, in the order of the rows."""
    results: dict[str, Result] = {}
    for row in rows:
        result = results.setdefault(case_of(row), Result(row))
        result.verdicts[row["contender"]] = row["verdict"]
        result.numbers.setdefault(row["contender"], {})[row["metric"]] = row["value"]
    return list(results.values())


@dataclass(frozen=True)
class Judged:
    """A limit and what was reached; `reached` is None where a contender is wrong or failed."""

    what: str
    reached: float | None
    limit: float
    unit: str = "x"
    at_least: bool = False
    noisy: bool = False

    @property
    def met(self) -> bool:
        """Whether the limit was kept."""
        if self.reached is None:
            return False
        return self.reached >= self.limit if self.at_least else self.reached <= self.limit

    @property
    def verdict(self) -> str:
        """Met, or missed by how much."""
        if self.reached is None:
            return "missed: no right result"
        missed = f"missed by {100 * abs(self.reached / self.limit - 1):.0f} %"
        return ("met" if self.met else missed) + (", noisy" if self.noisy else "")


def judge(results: Sequence[Result]) -> Iterator[Judged]:
    """All limits that the results have something to say about."""
    rules = CUDA_RULES if any(result.case["device"] == "cuda" for result in results) else CPU_RULES
    for rule in rules:
        for result in results:
            yield from (replace(judged, noisy=result.noisy) for judged in rule(result))
    yield from giant(results)


def is_large(result: Result) -> bool:
    """Whether the limits of bandwidth hold: sum, mean and max of many float32, graph by graph."""
    least = LARGE_ON_CUDA if result.case["device"] == "cuda" else LARGE
    usual = {"readout": ", ".join(TRIPLE), "dtype": "float32", "layout": "sorted", "through": "readout"}
    return result.has(**usual) and result.megabytes * 1e6 >= least


def title(result: Result, comparison: str) -> str:
    """A limit in words."""
    return f"{result.name}, {result.case['direction']}: {comparison}"


def bandwidth(result: Result) -> Iterator[Judged]:
    """How near to the yardstick."""
    if is_large(result):
        for contender in (FAST, EXACT):
            limit = AT_MOST[result.case["direction"], contender]
            ratio = result.ratio(contender, result.yardstick)
            yield Judged(title(result, f"{contender} / {result.yardstick}"), ratio, limit)


def ahead_of_pyg(least: float) -> Callable[[Result], Iterator[Judged]]:
    """How far ahead of PyG, forward and backward."""

    def rule(result: Result) -> Iterator[Judged]:
        if is_large(result) and result.case["direction"] == BACKWARD:
            for base in (PYG, "MultiAggregation"):
                if base in result.numbers or base == PYG:
                    yield Judged(
                        title(result, f"{base} / {EXACT}"), result.ratio(base, EXACT), least, at_least=True
                    )

    return rule


def small(result: Result) -> Iterator[Judged]:
    """The one limit that is a time."""
    if result.has(data=SMALL, direction=FORWARD, readout=", ".join(TRIPLE)):
        seconds = result.number(EXACT)
        reached = None if seconds is None else 1e6 * seconds
        yield Judged(title(result, EXACT), reached, 60, unit="us")


def edges(result: Result) -> Iterator[Judged]:
    """No slower than PyG over the edges of a convolution."""
    if result.case["data"].endswith(" edges") and result.case["direction"] == BACKWARD:
        yield Judged(title(result, f"{EXACT} / {PYG}"), result.ratio(EXACT, PYG), 1)


def memory(result: Result) -> Iterator[Judged]:
    """Outputs and gradient, and 5 % of the features."""
    for contender in (EXACT, FAST):
        if (used := result.number(contender, PEAK)) is None:
            continue
        case = result.case
        features = 4 * case["nodes"] * case["features"]
        outputs = 4 * case["graphs"] * case["features"] * len(TRIPLE)
        what = title(result, f"{contender}, peak memory beyond x, of outputs and gradient")
        yield Judged(what, used / (features + outputs), 1 + 0.05 * features / (features + outputs))


def modules(result: Result) -> Iterator[Judged]:
    """Medians near a read, attention and softmax no slower than PyG's, many readouts little above one."""
    if not result.has(through="module"):
        return
    reduce, base, limit = result.case["readout"], PYG, 1.0
    if reduce == "median":
        base, limit = READ, 25 if result.has(direction=FORWARD) else 50
    elif reduce == ", ".join(FIVE):
        times = {name: result.number(name) or 0 for name in map(ALONE.format, FIVE)}
        base, limit = max(times, key=times.__getitem__), 1.5
    elif reduce not in ("softmax", "attention"):
        return
    yield Judged(f"{reduce}, {title(result, f'{EXACT} / {base}')}", result.ratio(EXACT, base), limit)


def epochs(result: Result) -> Iterator[Judged]:
    """Training from the resident set three times as fast as from PyG's loader."""
    if result.has(direction=EPOCH):
        what = title(result, f"{LOADER} / {RESIDENT}")
        yield Judged(what, result.ratio(LOADER, RESIDENT), 3, at_least=True)


def giant(results: Sequence[Result]) -> Iterator[Judged]:
    """One giant graph against the same data as many graphs."""
    for cut in (result for result in results if result.has(data=GIANT_DATA)):
        fields = ("nodes", "readout", "direction", "dtype", "layout", "timing")
        same = {key: cut.case[key] for key in fields}
        for one in (result for result in results if result.has(graphs=1, **same)):
            for contender in (EXACT, FAST):
                whole, parts = one.number(contender), cut.number(contender)
                ratio = whole / parts if whole is not None and parts is not None else None
                what = f"{one.name}, {one.case['direction']}: {contender} / {GIANT_DATA}"
                yield Judged(what, ratio, 1.3, noisy=one.noisy or cut.noisy)


def copy_bandwidth(result: Result) -> Iterator[Judged]:
    """The share of what a copy on the device reaches."""
    if is_large(result) and result.case["direction"] == FORWARD:
        for contender in (EXACT, FAST):
            own, copy = result.number(contender, "GB/s"), result.number(COPY, "GB/s")
            share = own / copy if own is not None and copy is not None else None
            yield Judged(title(result, f"{contender} GB/s / {COPY} GB/s"), share, 0.85, at_least=True)


def price_of_exactness(result: Result) -> Iterator[Judged]:
    """Exact against fast."""
    if is_large(result):
        yield Judged(title(result, f"{EXACT} / {FAST}"), result.ratio(EXACT, FAST), 1.15)


def small_on_cuda(result: Result) -> Iterator[Judged]:
    """Small batches no slower than PyG."""
    if result.has(data=SMALL, readout=", ".join(TRIPLE)):
        yield Judged(title(result, f"{EXACT} / {PYG}"), result.ratio(EXACT, PYG), 1)


CPU_RULES = (bandwidth, ahead_of_pyg(10), small, edges, memory, modules, epochs)
CUDA_RULES = (copy_bandwidth, price_of_exactness, ahead_of_pyg(4), small_on_cuda, edges, memory, modules)
