"""What readouts do to networks that learn."""

from __future__ import annotations

from typing import Annotated

import typer

from experiments.accuracy.names import NETWORKS, READOUTS
from experiments.options import (
    NETWORK,
    NO_DATA,
    NO_READOUTS,
    RESULTS,
    RINGS,
    DataNames,
    Device,
    DeviceName,
    Folds,
    FoldsOfClasses,
    Mirror,
    Out,
    Scheduler,
    Seed,
    Steps,
    load_sets,
    one_of,
    resolve,
    say_paths,
)


def accuracy(
    data: DataNames = RINGS,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    network: Annotated[
        list[str],
        typer.Option(
            metavar="NAME...",
            callback=one_of("network", NETWORKS),
            help=f"One or more of {', '.join(NETWORKS)}.",
        ),
    ] = NETWORK,
    readout: Annotated[
        list[str],
        typer.Option(
            metavar="NAME...",
            callback=one_of("readout", READOUTS),
            help=f"One or more of {', '.join(READOUTS)}.",
            show_default="all",
        ),
    ] = NO_READOUTS,
    folds: FoldsOfClasses = None,
    repeats: Annotated[int, typer.Option(min=1, help="Cross-validations, each with its own folds.")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of training at most.")] = 200,
    jobs: Annotated[int, typer.Option(min=1, help="Processes, of one thread each.")] = 1,
    scheduler: Scheduler = None,
    attributes: Annotated[bool, typer.Option("--attributes", help="Take node attributes, too.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Sum, mean and max, one learning rate, 50 epochs at most.")
    ] = False,
) -> None:
    """Train networks with every readout on the same folds, and compare them with baselines and ceilings."""
    sets = load_sets(data, mirror)
    where = resolve(device)
    from experiments.accuracy import figure, measure, tables
    from experiments.accuracy.jobs import plan
    from experiments.report.conclude import conclude
    from experiments.rows import RowLog

    planned = plan(network, readout, folds, repeats, seed, attributes, epochs, quick)
    with RowLog(out, "accuracy", where) as log:
        rows = measure.measure(sets, log, planned, where, jobs, scheduler)
    figures = figure.figure(rows, out)
    judged = tables.sentences(rows)
    conclude(accuracy, locals(), log.path, rows, tables.tables(rows), figures, (), judged, sets)
    say_paths(log.path, *figures)


def extrapolation(
    data: DataNames = RINGS,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    seeds: Annotated[int, typer.Option(min=2, help="Trainings, each with a hold-out of its own.")] = 5,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of training at most.")] = 200,
) -> None:
    """Train on small graphs, ask about large ones, and see who grows surer of copies of a graph."""
    sets = load_sets(data, mirror)
    where = resolve(device)
    from experiments.extrapolation import figure, measure, tables
    from experiments.extrapolation.task import choose
    from experiments.report.conclude import conclude
    from experiments.rows import RowLog

    tasks = [choose(graphs, seed, seeds) for graphs in sets]
    with RowLog(out, "extrapolation", where) as log:
        rows = measure.measure(tasks, log, where, epochs)
    figures = figure.figure(rows, out)
    notes, judged = [task.sentence for task in tasks], tables.verdicts(rows)
    conclude(extrapolation, locals(), log.path, rows, tables.tables(rows), figures, notes, judged, sets)
    say_paths(log.path, *figures)


def robustness(
    data: DataNames = RINGS,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    folds: Folds = 4,
    epochs: Steps = 100,
) -> None:
    """Corrupt nodes until readouts break, alone and at the end of trained networks."""
    sets = load_sets(data, mirror)
    where = resolve(device)
    from experiments import robustness as experiment
    from experiments.report.conclude import conclude
    from experiments.rows import RowLog

    tasks = [experiment.choose(graphs, seed) for graphs in sets]
    with RowLog(out, "robustness", where) as log:
        rows = experiment.measure(tasks, log, where, seed, folds, epochs)
    figures = experiment.figure(rows, out)
    notes, judged = [task.sentence for task in tasks], experiment.verdicts(rows)
    conclude(robustness, locals(), log.path, rows, experiment.tables(rows), figures, notes, judged, sets)
    say_paths(log.path, *figures)


def gradients(
    data: DataNames = RINGS,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    folds: Folds = 4,
    epochs: Steps = 100,
) -> None:
    """See how the gradients of two labels spread over the nodes behind each readout, through training."""
    sets = load_sets(data, mirror)
    where = resolve(device)
    from experiments.gradients import figure, measure, tables
    from experiments.report.conclude import conclude
    from experiments.rows import RowLog

    tasks = [measure.choose(graphs, seed) for graphs in sets]
    with RowLog(out, "gradients", where) as log:
        rows = measure.measure(tasks, log, where, seed, folds, epochs)
    figures = figure.figure(rows, out)
    notes, judged = [task.sentence for task in tasks], tables.verdicts(rows)
    conclude(gradients, locals(), log.path, rows, tables.tables(rows), figures, notes, judged, sets)
    say_paths(log.path, *figures)


def heads(
    data: DataNames = RINGS,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    folds: Folds = 4,
    epochs: Steps = 100,
    seeds: Annotated[int, typer.Option(min=2, help="Networks for each head and fold.")] = 3,
) -> None:
    """Put a fully connected layer on all node states in the place of a readout, and shuffle the nodes."""
    sets = load_sets(data, mirror)
    where = resolve(device)
    from experiments.heads import figure, measure, tables
    from experiments.report.conclude import conclude
    from experiments.rows import RowLog

    tasks = [measure.choose(graphs, seed) for graphs in sets]
    with RowLog(out, "heads", where) as log:
        rows = measure.measure(tasks, log, where, seed, folds, epochs, seeds)
    figures = figure.figure(rows, out)
    notes, judged = [task.sentence for task in tasks], tables.verdicts(rows)
    conclude(heads, locals(), log.path, rows, tables.tables(rows), figures, notes, judged, sets)
    say_paths(log.path, *figures)


def activation_maps(
    data: DataNames = NO_DATA,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    folds: Folds = 10,
    steps: Annotated[int, typer.Option(min=1, help="Training steps, each on 64 molecules.")] = 600,
) -> None:
    """Map what each atom gives to the logit of a mutagen, and see whether nitro groups light up.

    The question needs mutagens: --data MUTAG Mutagenicity.
    """
    sets = load_sets(data, mirror)
    where = resolve(device)
    from experiments.activation_maps import figure, measure, tables
    from experiments.report.conclude import conclude
    from experiments.rows import RowLog

    with RowLog(out, "activation_maps", where) as log:
        rows = measure.measure(sets, log, where, seed, folds, steps)
    figures = figure.figure(rows, sets, out)
    judged = tables.verdicts(rows)
    conclude(activation_maps, locals(), log.path, rows, tables.tables(rows), figures, (), judged, sets)
    say_paths(log.path, *figures)


def excitation(
    data: DataNames = RINGS,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    folds: FoldsOfClasses = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of training.")] = 100,
) -> None:
    """Let the nodes of a network know their graph by squeeze-and-excitation, with three ways to squeeze."""
    sets = load_sets(data, mirror)
    where = resolve(device)
    from experiments.excitation import figure, measure, tables
    from experiments.report.conclude import conclude
    from experiments.rows import RowLog

    tasks = [measure.choose(graphs, seed) for graphs in sets]
    with RowLog(out, "excitation", where) as log:
        rows = measure.measure(tasks, log, where, seed, folds, epochs)
    figures = figure.figure(rows, out)
    notes, judged = [task.sentence for task in tasks], tables.verdicts(rows)
    conclude(excitation, locals(), log.path, rows, tables.tables(rows), figures, notes, judged, sets)
    say_paths(log.path, *figures)
