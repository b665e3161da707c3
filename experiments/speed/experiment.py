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
from experiments.experiment import Experiment, Finding, span
from experiments.options import flag, number
from experiments.records import Row, RowLog
from experiments.speed import epochs, processes
from experiments.speed import grid as cases
from experiments.speed import implementations as by
from experiments.speed import measure as measuring
from experiments.speed.cells import Cell, gather
from experiments.speed.grid import BACKWARD, EPOCH, FORWARD, TRIPLE
from experiments.speed.implementations import GROUPED, LOADER, OURS, PEERS, PYG, RESIDENT
from experiments.speed.thresholds import LIMITS, Outcome, evaluate

UNITS = {1.0: "s", 1e-3: "ms", 1e-6: "us"}
BASES = {FORWARD: by.READ, BACKWARD: by.FRESH}
STYLES = {
    OURS: (figures.COLOURS["sum"], "-", "o"),
    GROUPED: (figures.COLOURS["sum"], ":", "o"),
    PYG: (figures.COLOURS["mean"], "-", "^"),
    by.EMBEDDING_BAG: ("#e69f00", "--", "D"),
    by.SPARSE_REDUCE: (figures.INK, ":", "P"),
    by.SEGMENT_REDUCE: (figures.GREY, "-.", "X"),
    by.INDEX_ADD: ("#8c510a", ":", "*"),
    by.SCATTER_REDUCE: ("#cc79a7", "--", "v"),
}
COMPARED = {
    "small, forward": "small batches, forward, times as fast as PyG:",
    "small, forward+backward": "forward+backward, in PyG's times:",
    "memory speed, forward": "large batches in plain reads:",
    "memory speed, forward+backward": "forward+backward in two reads and a write:",
}


def measure(
    tasks: Sequence[GraphSet], log: RowLog, device: str, seed: int, quick: bool, threads: int | None
) -> list[Row]:
    """Import and first call, the grid, then memory and epochs unless it is to be quick."""
    on_cuda = device == "cuda"
    settings = measuring.Settings(device, seed, quick, threads or torch.get_num_threads())
    rows = processes.measure_starts(log, settings)
    rows += measuring.measure(cases.grid(quick, on_cuda, tasks, seed), log, settings)
    if not quick:
        large = cases.CUDA_SHAPES[1:] if on_cuda else (*cases.LARGE, *cases.HUGE)
        rows += processes.measure_memory(large, log, settings)
        rows += epochs.measure(tasks, log, settings)
    return rows


def tables(rows: Sequence[Row]) -> list[Table]:
    """Times of each reduction and direction, then all limits, then all that were missed."""
    cells = gather(rows)
    timed = [cell for cell in cells if by.READ in cell.numbers]
    kinds = dict.fromkeys((cell.case["readout"], cell.case["direction"]) for cell in timed)
    found = [times(timed, readout, direction) for readout, direction in kinds]
    if trained := [cell for cell in cells if cell.has(direction=EPOCH)]:
        title = "GIN, an epoch of batches of the resident set and of PyG's loader"
        lines = (
            [cell.name, *durations(cell, LOADER, RESIDENT), ratio(cell, LOADER, RESIDENT)] for cell in trained
        )
        found.append(table(title, ("set", LOADER, RESIDENT, "times as fast"), lines))
    outcomes = evaluate(cells)
    return [*found, limits(outcomes), misses(outcomes)]


def times(cells: Sequence[Cell], readout: str, direction: str) -> Table:
    """All cases of some reductions in one direction, the small ones first; factor is peer over ours."""
    base = BASES[direction]
    lines = []
    for cell in cells:
        if cell.has(readout=readout, direction=direction):
            best = cell.fastest(PEERS) or "-"
            ours, segments, pyg, peer, read = durations(cell, OURS, GROUPED, PYG, best, base)
            factor = ratio(cell, best, OURS, " x")
            lines.append([cell.name, ours, segments, pyg, best, peer, factor, read])
    title = f"{readout}, {direction}: medians (~ noisy), factor: peer / ours, baseline: {base}"
    columns = ("case", "ours", "Segments", "PyG", "fastest peer", "its time", "factor", "baseline")
    return table(title, columns, lines)


def durations(cell: Cell, *contenders: str) -> Iterator[str]:
    """Times with their units; `wrong` or `failed` where a contender was not timed."""
    for contender in contenders:
        if (seconds := cell.number(contender)) is None:
            yield cell.verdicts.get(contender, "-").partition(":")[0]
        else:
            unit = next((unit for unit in UNITS if seconds >= unit), 1e-6)
            yield f"{short(seconds / unit)} {UNITS[unit]}" + "~" * cell.noisy(contender)


def ratio(cell: Cell, slow: str, fast: str, unit: str = "") -> str:
    """One time over another, where both are there."""
    above, below = cell.number(slow), cell.number(fast)
    return "-" if above is None or below is None else f"{short(above / below)}{unit}"


def short(value: float) -> str:
    """Three digits, or those before the point."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def limits(outcomes: Sequence[Outcome]) -> Table:
    """Every limit: its rule, its bound, in how many cells it was met, and the worst of them."""
    lines = []
    for rule, limit in LIMITS.items():
        if found := [outcome for outcome in outcomes if outcome.limit is limit]:
            worst = max(found, key=lambda outcome: outcome.excess)
            of = f"{sum(outcome.met for outcome in found)} of {len(found)}"
            lines.append([limit.name, rule, allowed(worst), of, reached(worst)])
    met = [outcome for outcome in outcomes if outcome.met]
    noisy = sum(outcome.ratio.noisy for outcome in met)
    doubt = f", {noisy} of these noisy" if noisy else ""
    columns = ("limit", "rule", "allowed", "met", "worst")
    return table(f"Limits: {len(met)} of {len(outcomes)} met{doubt}", columns, lines, text_columns=2)


def misses(outcomes: Sequence[Outcome]) -> Table:
    """Every cell that misses a limit, and by how much; limit by limit, the small cells first."""
    found = [one for one in outcomes if not one.met]
    lines = ([one.limit.name, one.what, reached(one), allowed(one), one.missed] for one in found)
    columns = ("limit", "cell", "reached", "allowed", "")
    return table(f"Missed: {len(found)} of {len(outcomes)}", columns, lines, text_columns=2)


def reached(outcome: Outcome) -> str:
    """What was reached, with its unit."""
    value = outcome.ratio.value
    return "-" if value is None else f"{short(value)} {outcome.limit.bound.unit}"


def allowed(outcome: Outcome) -> str:
    """The bound, with its unit."""
    bound = outcome.limit.bound
    return f"{'≥' if bound.at_least else '≤'} {short(bound.bound)} {bound.unit}"


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """Every limit in every cell; the table of misses has the cells."""
    for outcome in evaluate(gather(rows)):
        said = f"{reached(outcome)}, {allowed(outcome)} allowed"
        yield Finding(f"{outcome.limit.name}, {outcome.what}", outcome.met, said)


def numbers(rows: Sequence[Row]) -> str:
    """Small batches against PyG, and large ones against reads."""
    found: dict[str, list[float]] = {name: [] for name in COMPARED}
    for outcome in evaluate(gather(rows)):
        if outcome.limit.name in found and outcome.ratio.value is not None:
            found[outcome.limit.name].append(outcome.ratio.value)
    said = [f"{COMPARED[name]} {span(ratios)}" for name, ratios in found.items() if ratios]
    return ", ".join(said) or "not timed"


def notes(
    tasks: Sequence[GraphSet], rows: Sequence[Row], device: str, seed: int, quick: bool
) -> Iterator[str]:
    """What was not timed and why, and what is noisy."""
    yield from refusals(rows)
    if packages := by.missing_packages():
        yield f"not installed, hence not timed: {', '.join(packages)}"
    if too_large := measuring.too_large(cases.grid(quick, device == "cuda", tasks, seed), device):
        yield f"not measured, memory does not suffice: {', '.join(too_large)}"
    if names := [cell.title for cell in gather(rows) if cell.noisy(OURS)]:
        yield (
            f"noisy: in {len(names)} cases ({'; '.join(names[:3])}{'; ...' if names[3:] else ''}) our own "
            "time varied by half and more: measure again on an idle machine before trusting them."
        )


def refusals(rows: Sequence[Row]) -> Iterator[str]:
    """One sentence for each contender that is not timed, with the cases it was refused in."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for cell in gather(rows):
        for contender, verdict in cell.verdicts.items():
            if (off := cell.number(contender, measuring.REFUSED)) is not None:
                far = f", {short(off)} times what is allowed" if off else ""
                found[contender, verdict].append(f"{cell.title}{far}")
    for (contender, verdict), refused in found.items():
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        yield f"not timed: {contender} ({refused[0]}{more}): {verdict}"


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """One panel a direction: time of sum, mean and max over the size of x, of evenly sized graphs."""
    drawing, panels = figures.panels(2, width=4.2, height=3.4)
    usual = cases.Case(cases.even("1x1x1"), FORWARD, TRIPLE).work
    usual = {name: usual[name] for name in ("readout", "dtype", "kind", "layout", "timing")}
    even = [cell for cell in gather(rows) if cell.has(**usual) and cell.case["data"].count("x") == 2]
    styles = {name: style for name, style in STYLES.items() if any(cell.number(name) for cell in even)}
    for panel, (direction, base) in zip(panels, BASES.items(), strict=True):
        here = [cell for cell in even if cell.has(direction=direction)]
        draw(panel, here, base, figures.PALE, "-", "", width=7)
        for name, style in styles.items():
            draw(panel, here, name, *style)
        panel.set(title=direction, xscale="log", yscale="log", xlabel="size of x [MB]")
    ends = [end for panel in panels for end in panel.get_ylim()]
    for panel in panels:
        panel.set_ylim(min(ends), max(ends))
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter("{x:,.12g}")
        panel.grid(color=figures.PALE, linewidth=0.5)
    panels[0].set_ylabel("time [us]")
    entries = {"plain read; two reads, fresh write": (figures.PALE, "-")}
    figures.legend(drawing, entries | {name: style[:2] for name, style in styles.items()})
    return figures.save(drawing, out, "speed")


def draw(
    panel: Axes, cells: Sequence[Cell], name: str, colour: str, dashes: str, marker: str, width: float = 1.5
) -> None:
    """The line of one contender, through the cases that it was timed in."""
    points = [(cell.bytes / 1e6, 1e6 * time) for cell in cells if (time := cell.number(name))]
    sizes, spent = [size for size, _ in points], [time for _, time in points]
    panel.plot(sizes, spent, color=colour, linestyle=dashes, marker=marker, markersize=5, linewidth=width)


EXPERIMENT = Experiment(
    name="speed",
    title="Speed",
    question="How fast are readouts, compared with other libraries?",
    claim="Exact, order-independent readouts are faster than what people use today",
    theory="""Readouts whose bits do not depend on the order of the nodes are as fast as memory allows on
    large batches, and faster than PyG, torch-scatter and PyTorch's own operators on all others.""",
    setup="""All contenders of a case take turns on the same data, in one process, medians of up to 101
    samples. Before that, the output and the gradient of each are compared with an oracle: a contender that is
    wrong is reported and not timed; ours must be rounded to nearest and keep its bits when nodes are
    shuffled. Offsets, orders and matrices are handed to `segment_reduce`, `embedding_bag` and `sparse.mm` at
    no cost.""",
    source="""Limits: one table, `experiments/speed/thresholds.py`; baselines are a plain read of the
    features, and two reads with one write to fresh memory.""",
    caveats=(
        "Times hold for one machine, and want it quiet: this experiment is no part of `all`.",
        "Limits that are missed stand in a table of their own, each with by how much.",
        "An epoch is that of one network; `accuracy` trains three at once, one for each learning rate.",
    ),
    alt="""Time of sum, mean and max over the size of the features, forward and forward with backward, for
    every contender and for what memory allows.""",
    caption="Time over the size of the features; the broad grey line is what memory allows.",
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
