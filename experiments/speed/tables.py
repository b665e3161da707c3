"""What was measured, as tables and sentences: they only read rows, and hide no miss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from rich.table import Table

from experiments.console import table
from experiments.rows import Row
from experiments.speed.contenders import (
    EXACT,
    FAST,
    FRESH,
    GROUPED,
    LOADER,
    OURS,
    PYG,
    READ,
    RESIDENT,
    WARM,
    YARDSTICKS,
)
from experiments.speed.limits import AT_MOST, BACKWARD, FORWARD, Judged, Result, gather, is_large, judge
from experiments.speed.shapes import EPOCH

COLUMNS = {
    FORWARD: ("batch", "read ms", "exact", "fast", "Segments", "PyG", "best other"),
    BACKWARD: ("batch", "write", "ms", "exact", "fast", "PyG", "best other"),
    EPOCH: ("set", f"{LOADER} ms", f"{RESIDENT} ms", "times as fast"),
}
UNITS = {
    FORWARD: "times a plain read",
    BACKWARD: "times the reads that are needed and a write",
    EPOCH: "GIN, batches of the resident set against those of PyG's loader",
}


def tables(rows: Sequence[Row]) -> list[Table]:
    """Times of each set of reductions and direction, then all limits."""
    results = gather(rows)
    kinds = dict.fromkeys((result.case["readout"], result.case["direction"]) for result in results)
    times = [
        table(
            f"{readout}, {direction}: {UNITS[direction]}",
            COLUMNS[direction],
            (
                line
                for result in results
                if result.has(readout=readout, direction=direction)
                for line in lines(result)
            ),
        )
        for readout, direction in kinds
    ]
    return [*times, limits(list(judge(results)))]


def lines(result: Result) -> Iterator[list[str]]:
    """One case in the columns of its direction: one line a yardstick."""
    name = f"{result.name}, noisy" if result.noisy else result.name
    if result.case["direction"] == FORWARD:
        ratios = [against(result, contender, READ) for contender in (EXACT, FAST, GROUPED, PYG)]
        yield [name, milliseconds(result, READ), *ratios, best_other(result, READ)]
        return
    if result.case["direction"] == EPOCH:
        ratio = result.ratio(LOADER, RESIDENT)
        times = [milliseconds(result, LOADER), milliseconds(result, RESIDENT)]
        yield [name, *times, "-" if ratio is None else short(ratio)]
        return
    for case, kind, base in ((name, "fresh", FRESH), ("", "warm", WARM)):
        ratios = [against(result, contender, base) for contender in (EXACT, FAST, PYG)]
        yield [case, kind, milliseconds(result, base), *ratios, best_other(result, base)]


def milliseconds(result: Result, contender: str) -> str:
    """A time."""
    seconds = result.number(contender)
    return "-" if seconds is None else short(1000 * seconds)


def against(result: Result, contender: str, base: str) -> str:
    """A ratio to the yardstick, with its limit where there is one: 1.9 ≤ 2.5, or 2.8 > 2.5 where missed."""
    verdict = result.verdicts.get(contender)
    ratio = result.ratio(contender, base)
    if ratio is None:
        return verdict.partition(":")[0] if verdict else "-"
    limit = AT_MOST.get((result.case["direction"], contender))
    if limit is None or base == WARM or result.case["device"] == "cuda" or not is_large(result):
        return short(ratio)
    return f"{short(ratio)} {'≤' if ratio <= limit else '>'} {limit}"


def best_other(result: Result, base: str) -> str:
    """The quickest that is neither ours nor a yardstick nor PyG's pools."""
    times = {
        name: seconds
        for name in result.numbers
        if name not in (*OURS, *YARDSTICKS, PYG) and (seconds := result.number(name)) is not None
    }
    if not times:
        return "-"
    name = min(times, key=times.__getitem__)
    return f"{name} {against(result, name, base)}"


def short(value: float) -> str:
    """Three digits, or those before the point."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.3g}"


def limits(judged: Sequence[Judged]) -> Table:
    """Every limit, what was reached, and whether that is enough."""
    lines = []
    for one in judged:
        reached = "-" if one.reached is None else f"{short(one.reached)} {one.unit}"
        bound = f"{'≥' if one.at_least else '≤'} {short(one.limit)} {one.unit}"
        lines.append([one.what, reached, bound, one.verdict])
    met = [one for one in judged if one.met]
    noisy = sum(one.noisy for one in met)
    doubt = f", {noisy} of these in noisy cases" if noisy else ""
    return table(
        f"Limits: {len(met)} of {len(judged)} met{doubt}", ("limit", "reached", "allowed", ""), lines
    )


def noise(rows: Sequence[Row]) -> Iterator[str]:
    """A warning where even the yardstick varied."""
    results = [result for result in gather(rows) if result.noisy]
    if results:
        names = [f"{result.name}, {result.case['readout']}, {result.case['direction']}" for result in results]
        yield (
            f"noisy: in {len(names)} cases ({'; '.join(names[:3])}{'; ...' if names[3:] else ''}) even the "
            "yardstick varied by half and more: measure again on an idle machine before trusting them."
        )


def refusals(rows: Sequence[Row]) -> Iterator[str]:
    """One sentence for each contender that is not timed, with the cases it was refused in."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for result in gather(rows):
        for contender, verdict in result.verdicts.items():
            if result.number(contender) is None and result.number(contender, "samples") is not None:
                off = result.number(contender, "deviation")
                far = "" if off is None else f", {short(off)} times what is allowed"
                case = f"{result.name}, {result.case['readout']}, {result.case['direction']}{far}"
                found[contender, verdict].append(case)
    for (contender, verdict), cases in found.items():
        more = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
        yield f"not timed: {contender} ({cases[0]}{more}): {verdict}"
