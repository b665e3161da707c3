"""How fast readouts are, and how far they scale."""

from __future__ import annotations

from typing import Annotated

import typer

from experiments.options import (
    NO_DATA,
    RESULTS,
    DataNames,
    Device,
    DeviceName,
    Mirror,
    Out,
    Seed,
    load_sets,
    resolve,
    say_paths,
)


def speed(
    data: DataNames = NO_DATA,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A representative part of the grid, in three minutes.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of PyTorch and of ours.", show_default="as PyTorch has")
    ] = None,
) -> None:
    """Time readouts and everything one could call instead, and compare them with the limits.

    What was timed is not timed again: give another --out, or move the rows away, for new numbers.
    """
    sets = load_sets(data, mirror)
    where = resolve(device)
    import torch

    from experiments.report import verdicts
    from experiments.report.conclude import conclude
    from experiments.rows import RowLog
    from experiments.speed import epochs, figure, grid, measure, memory, startup, tables

    on_cuda = where == "cuda"
    settings = measure.Settings(where, seed, quick, threads or torch.get_num_threads())
    cases = grid.grid(quick, on_cuda, sets, seed)
    left_out = measure.too_large(cases, where)
    with RowLog(out, "speed", where) as log:
        rows = startup.measure(log, settings)
        rows += measure.measure(cases, log, settings)
        if not quick:
            rows += memory.measure(grid.memory_shapes(on_cuda), log, settings)
            rows += epochs.measure(sets, log, settings)
    figures = figure.figure(rows, out)
    notes = [*tables.refusals(rows), *tables.absences(left_out), *tables.noise(rows)]
    found = verdicts.of_speed(rows)
    conclude(speed, locals(), log.path, rows, tables.tables(rows), figures, notes, found, sets)
    say_paths(log.path, *figures)


def scaling(
    out: Out = RESULTS,
    seed: Seed = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the nodes.")] = False,
) -> None:
    """Spread nodes over processes: seconds, bytes of messages, memory, and whether the bits are the same.

    What was timed is not timed again: give another --out, or move the rows away, for new numbers.
    """
    from experiments import scaling as experiment
    from experiments.report.conclude import conclude
    from experiments.rows import RowLog

    with RowLog(out, "scaling") as log:
        rows = experiment.measure(log, seed, experiment.QUICK_NODES if quick else experiment.NODES)
    figures, tables = experiment.figure(rows, out), experiment.tables(rows)
    conclude(scaling, locals(), log.path, rows, tables, figures, [], experiment.verdicts(rows), [])
    say_paths(log.path, *figures)
