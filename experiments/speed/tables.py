"""What was measured, as tables and sentences: they only read rows, and hide no miss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from rich.table import Table

from experiments.console import table
from experiments.rows import Row
from experiments.speed.baselines import FRESH, READ
from experiments.speed.cases import BACKWARD, EPOCH
from experiments.speed.cells import Cell, gather
from experiments.speed.implementations import GROUPED, LOADER, OURS, PEERS, PYG, RESIDENT, missing_packages
from experiments.speed.measure import REFUSED
from experiments.speed.thresholds import LIMITS, Outcome, evaluate

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
BASES = {BACKWARD: FRESH, EPOCH: LOADER}
COLUMNS = ("case", "ours", "Segments", "PyG", "fastest peer", "its time", "factor", "baseline")


def tables(rows: Sequence[Row]) -> list[Table]:
    """Times of each reduction and direction, then all limits, then all that were missed."""
    cells = gather(rows)
    timed = [cell for cell in cells if READ in cell.numbers]
    kinds = dict.fromkeys((cell.case["readout"], cell.case["direction"]) for cell in timed)
    found = [times(timed, readout, direction) for readout, direction in kinds]
    if epochs := [cell for cell in cells if cell.has(direction=EPOCH)]:
        found.append(epoch_times(epochs))
    outcomes = evaluate(cells)
    return [*found, limits(outcomes), misses(outcomes)]


def times(cells: Sequence[Cell], readout: str, direction: str) -> Table:
    """All cases of some reductions in one direction, the small ones first; factor is peer over ours."""
    base = BASES.get(direction, READ)
    here = [cell for cell in cells if cell.has(readout=readout, direction=direction)]
    title = f"{readout}, {direction}: medians (~ noisy), factor: peer / ours, baseline: {base}"
    return table(title, COLUMNS, (line(cell, base) for cell in here))


def line(cell: Cell, base: str) -> list[str]:
    """One case: our times, PyG's, the fastest peer's, and the baseline."""
    best = cell.fastest(PEERS)
    ours = cell.number(OURS)
    peer = None if best is None else cell.number(best)
    return [
        cell.name,
        *(duration(cell, name) for name in (OURS, GROUPED, PYG)),
        best or "-",
        "-" if best is None else duration(cell, best),
        "-" if ours is None or peer is None else f"{short(peer / ours)} x",
        duration(cell, base),
    ]


def epoch_times(cells: Sequence[Cell]) -> Table:
    """Epochs of a training, from two sources of batches."""
    lines = []
    for cell in cells:
        loader, resident = cell.number(LOADER), cell.number(RESIDENT)
        ratio = "-" if loader is None or resident is None else short(loader / resident)
        lines.append([cell.name, duration(cell, LOADER), duration(cell, RESIDENT), ratio])
    title = "GIN, an epoch of batches of the resident set and of PyG's loader"
    return table(title, ("set", LOADER, RESIDENT, "times as fast"), lines)


def duration(cell: Cell, contender: str) -> str:
    """A time with its unit; `wrong` or `failed` where the contender was not timed."""
    seconds = cell.number(contender)
    if seconds is None:
        return cell.verdicts.get(contender, "-").partition(":")[0]
    unit, name = next(((unit, name) for unit, name in UNITS if seconds >= unit), UNITS[-1])
    return f"{short(seconds / unit)} {name}" + ("~" if cell.noisy(contender) else "")


def short(value: float) -> str:
    """Three digits, or those before the point."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def limits(outcomes: Sequence[Outcome]) -> Table:
    """Every limit: its rule, its bound, in how many cells it was met, and the worst of them."""
    lines = []
    for limit in LIMITS:
        if found := [outcome for outcome in outcomes if outcome.limit is limit]:
            worst = max(found, key=lambda outcome: outcome.excess)
            met = sum(outcome.met for outcome in found)
            lines.append([limit.name, limit.rule, allowed(worst), f"{met} of {len(found)}", reached(worst)])
    columns = ("limit", "rule", "allowed", "met", "worst")
    return table(f"Limits: {summary(outcomes)}", columns, lines, text_columns=2)


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many limits were met, and how many of these in noisy cells."""
    met = [outcome for outcome in outcomes if outcome.met]
    noisy = sum(outcome.ratio.noisy for outcome in met)
    doubt = f", {noisy} of these noisy" if noisy else ""
    return f"{len(met)} of {len(outcomes)} met{doubt}"


def misses(outcomes: Sequence[Outcome]) -> Table:
    """Every cell that misses a limit, and by how much; limit by limit, the small cells first."""
    found = [outcome for outcome in outcomes if not outcome.met]
    lines = [
        [outcome.limit.name, outcome.what, reached(outcome), allowed(outcome), by(outcome)]
        for outcome in found
    ]
    columns = ("limit", "cell", "reached", "allowed", "")
    return table(f"Missed: {len(found)} of {len(outcomes)}", columns, lines, text_columns=2)


def reached(outcome: Outcome) -> str:
    """What was reached, with its unit."""
    value = outcome.ratio.value
    return "-" if value is None else f"{short(value)} {outcome.limit.unit}"


def allowed(outcome: Outcome) -> str:
    """The bound, with its unit."""
    limit = outcome.limit
    return f"{'≥' if limit.at_least else '≤'} {short(limit.bound)} {limit.unit}"


def by(outcome: Outcome) -> str:
    """By how much it was missed."""
    return outcome.verdict.removeprefix("missed ").removeprefix("missed: ")


def noise(rows: Sequence[Row]) -> Iterator[str]:
    """A warning where our own times varied."""
    cells = [cell for cell in gather(rows) if cell.noisy(OURS)]
    if cells:
        names = [cell.title for cell in cells]
        yield (
            f"noisy: in {len(names)} cases ({'; '.join(names[:3])}{'; ...' if names[3:] else ''}) our own "
            "time varied by half and more: measure again on an idle machine before trusting them."
        )


def refusals(rows: Sequence[Row]) -> Iterator[str]:
    """One sentence for each contender that is not timed, with the cases it was refused in."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for cell in gather(rows):
        for contender, verdict in cell.verdicts.items():
            if (off := cell.number(contender, REFUSED)) is not None:
                far = f", {short(off)} times what is allowed" if off else ""
                found[contender, verdict].append(f"{cell.title}{far}")
    for (contender, verdict), cases in found.items():
        more = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
        yield f"not timed: {contender} ({cases[0]}{more}): {verdict}"


def absences(too_large: Sequence[str]) -> Iterator[str]:
    """One sentence for packages that are not installed, and one for shapes that do not fit."""
    if packages := missing_packages():
        yield f"not installed, hence not timed: {', '.join(packages)}"
    if too_large:
        yield f"not measured, memory does not suffice: {', '.join(too_large)}"
