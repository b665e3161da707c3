"""How fast readouts are beside everything that one could call instead, and which limits are met."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes

from datasets import GraphSet
from experiments import figures
from experiments.console import Table, table
from experiments.experiment import Drawing, Experiment, Finding, span
from experiments.options import flag, number
from experiments.records import Row, RowLog
from experiments.speed import epochs, grid, memory, startup
from experiments.speed import measure as measuring
from experiments.speed.baselines import FRESH, READ
from experiments.speed.cases import BACKWARD, EAGER, EPOCH, FORWARD, NORMAL, SORTED, TRIPLE
from experiments.speed.cells import Cell, gather
from experiments.speed.implementations import (
    EMBEDDING_BAG,
    GROUPED,
    INDEX_ADD,
    LOADER,
    OURS,
    PEERS,
    PYG,
    RESIDENT,
    SCATTER_REDUCE,
    SEGMENT_REDUCE,
    SPARSE_REDUCE,
    missing_packages,
)
from experiments.speed.measure import REFUSED
from experiments.speed.thresholds import LIMITS, Outcome, evaluate, main_ratios

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


Style = tuple[str, str, str]
BASES = {FORWARD: READ, BACKWARD: FRESH}
STYLES: dict[str, Style] = {
    OURS: (figures.COLOURS["sum"], "-", "o"),
    GROUPED: (figures.COLOURS["sum"], ":", "o"),
    PYG: (figures.COLOURS["mean"], "-", "^"),
    EMBEDDING_BAG: ("#e69f00", "--", "D"),
    SPARSE_REDUCE: (figures.INK, ":", "P"),
    SEGMENT_REDUCE: (figures.GREY, "-.", "X"),
    INDEX_ADD: ("#8c510a", ":", "*"),
    SCATTER_REDUCE: ("#cc79a7", "--", "v"),
}


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """One panel a direction: time of sum, mean and max over the size of x, of evenly sized graphs."""
    drawing, panels = figures.panels(2, width=4.2, height=3.4)
    usual = {"readout": ", ".join(TRIPLE), "dtype": "float32", "kind": NORMAL}
    usual |= {"layout": SORTED, "timing": EAGER}
    even = [cell for cell in gather(rows) if cell.has(**usual) and cell.case["data"].count("x") == 2]
    present = {name for cell in even for name in cell.numbers if cell.number(name)}
    for panel, (direction, base) in zip(panels, BASES.items(), strict=True):
        here = [cell for cell in even if cell.has(direction=direction)]
        draw(panel, here, base, (figures.PALE, "-", ""), width=7)
        for name in STYLES:
            if name in present:
                draw(panel, here, name, STYLES[name])
        panel.set(title=direction, xscale="log", yscale="log", xlabel="size of x [MB]")
    level(panels)
    panels[0].set_ylabel("time [us]")
    entries = {"plain read; two reads, fresh write": (figures.PALE, "-")}
    entries |= {name: style[:2] for name, style in STYLES.items() if name in present}
    figures.legend(drawing, entries)
    return figures.save(drawing, out, "speed")


def level(panels: Sequence[Axes]) -> None:
    """One scale of time for all panels, and numbers that read as such."""
    ends = [end for panel in panels for end in panel.get_ylim()]
    for panel in panels:
        panel.set_ylim(min(ends), max(ends))
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter("{x:,.12g}")
        panel.grid(color=figures.PALE, linewidth=0.5)


def draw(panel: Axes, cells: Sequence[Cell], name: str, style: Style, width: float = 1.5) -> None:
    """The line of one contender, through the cases that it was timed in."""
    points = [(cell.bytes / 1e6, 1e6 * time) for cell in cells if (time := cell.number(name))]
    sizes, spent = [size for size, _ in points], [time for _, time in points]
    colour, dashes, marker = style
    panel.plot(sizes, spent, color=colour, linestyle=dashes, marker=marker, markersize=5, linewidth=width)


def measure(
    tasks: Sequence[GraphSet], log: RowLog, device: str, seed: int, quick: bool, threads: int | None
) -> list[Row]:
    """Import and first call, the grid, then memory and epochs unless it is to be quick."""
    on_cuda = device == "cuda"
    settings = measuring.Settings(device, seed, quick, threads or torch.get_num_threads())
    rows = startup.measure(log, settings)
    rows += measuring.measure(grid.grid(quick, on_cuda, tasks, seed), log, settings)
    if not quick:
        rows += memory.measure(grid.memory_shapes(on_cuda), log, settings)
        rows += epochs.measure(tasks, log, settings)
    return rows


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """Every limit in every cell; the table of misses has the cells."""
    for outcome in evaluate(gather(rows)):
        said = f"{reached(outcome)}, {allowed(outcome)} allowed"
        yield Finding(f"{outcome.limit.name}, {outcome.what}", outcome.met, said)


def numbers(rows: Sequence[Row]) -> str:
    """Small batches against PyG, and large ones against reads."""
    found = main_ratios(gather(rows)).items()
    return ", ".join(f"{name} {span(ratios)}" for name, ratios in found if ratios) or "not timed"


def notes(
    tasks: Sequence[GraphSet], rows: Sequence[Row], device: str, seed: int, quick: bool
) -> Iterator[str]:
    """What was not timed and why, and what is noisy."""
    cases = grid.grid(quick, device == "cuda", tasks, seed)
    yield from refusals(rows)
    yield from absences(measuring.too_large(cases, device))
    yield from noise(rows)


EXPERIMENT = Experiment(
    name="speed",
    title="Speed",
    question="How fast are readouts, compared with other libraries?",
    claim="Exact, order-independent readouts are faster than what people use today",
    theory=(
        "Readouts whose bits do not depend on the order of the nodes are as fast as memory allows on "
        "large batches, and faster than PyG, torch-scatter and PyTorch's own operators on all others."
    ),
    setup=(
        "All contenders of a case take turns on the same data, in one process, medians of up to 101 "
        "samples. Before that, the output and the gradient of each are compared with an oracle: a "
        "contender that is wrong is reported and not timed; ours must be rounded to nearest and keep its "
        "bits when nodes are shuffled. Offsets, orders and matrices are handed to `segment_reduce`, "
        "`embedding_bag` and `sparse.mm` at no cost."
    ),
    source=(
        "Limits: one table, `experiments/speed/thresholds.py`; baselines are a plain read of the "
        "features, and two reads with one write to fresh memory."
    ),
    caveats=(
        "Times hold for one machine, and want it quiet: this experiment is no part of `all`.",
        "Limits that are missed stand in a table of their own, each with by how much.",
    ),
    drawings=(
        Drawing(
            "speed",
            "Time of sum, mean and max over the size of the features, forward and forward with "
            "backward, for every contender and for what memory allows.",
            "Time over the size of the features; the broad grey line is what memory allows.",
        ),
    ),
    measure=measure,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=notes,
    data=(),
    options={
        "quick": flag("A representative part of the grid, in three minutes.", "quick"),
        "threads": number(None, 1, "Threads of PyTorch and of ours.", show_default="as PyTorch has"),
    },
    in_all=False,
    one_thread=False,
)
