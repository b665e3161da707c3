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
        bool, typer.Option("--quick", help="The main shapes only, in about two minutes.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of PyTorch and of ours.", show_default="as PyTorch has")
    ] = None,
) -> None:
    """Time readouts and everything one could take instead, and compare them with what memory allows.

    What was timed is not timed again: give another --out, or move the rows away, for new numbers.
    """
    sets = load_sets(data, mirror)
    where = resolve(device)
    import torch

    from experiments.report import verdicts
    from experiments.report.conclude import conclude
    from experiments.rows import RowLog
    from experiments.speed import epochs, figure, measure, tables
    from experiments.speed.shapes import memory_plan, plan

    settings = measure.Settings(where, seed, quick, threads or torch.get_num_threads())
    with RowLog(out, "speed", where) as log:
        rows = measure.measure(plan(quick, where == "cuda", sets, seed), log, settings)
        if not quick:
            rows += measure.measure_memory(memory_plan(where == "cuda"), log, settings)
            rows += epochs.measure(sets, log, settings)
    figures = figure.figure(rows, out)
    notes, judged = [*tables.refusals(rows), *tables.noise(rows)], verdicts.of_speed(rows)
    conclude(speed, locals(), log.path, rows, tables.tables(rows), figures, notes, judged, sets)
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
