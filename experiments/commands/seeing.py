"""What readouts can and cannot see: nothing to train, or little."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from experiments.console import say
from experiments.options import (
    RESULTS,
    RINGS,
    DataNames,
    Device,
    DeviceName,
    Folds,
    Mirror,
    Out,
    Seed,
    Steps,
    load_sets,
    resolve,
    say_paths,
)


def collisions(
    data: DataNames = RINGS,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    pairs: Annotated[bool, typer.Option("--pairs", help="List the pairs that mean confuses.")] = False,
) -> None:
    """Count the graphs that a readout cannot tell apart, and the accuracy ceiling that follows.

    Counting is exact: nothing here depends on --device or --seed.
    """
    sets = load_sets(data, mirror)
    resolve(device)
    from experiments import collisions as experiment
    from experiments.report import verdicts
    from experiments.report.conclude import conclude
    from experiments.rows import RowLog

    with RowLog(out, "collisions") as log:
        rows = experiment.measure(sets, log)
    figures = experiment.figure(rows, out)
    judged = verdicts.of_collisions(rows)
    conclude(collisions, locals(), log.path, rows, experiment.tables(rows), figures, (), judged, sets)
    if pairs:
        for graphs in sets:
            say(*experiment.pair_lines(graphs))
    say_paths(log.path, *figures)


def tower(
    data: DataNames = RINGS,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    seeds: Annotated[int, typer.Option(min=1, help="How many random networks.")] = 3,
) -> None:
    """Place molecules that share all neighbourhoods: mean and max put them on one point, the sum does not."""
    sets = load_sets(data, mirror)
    where = resolve(device)
    from experiments import tower as experiment
    from experiments import tower_picture
    from experiments.report import verdicts
    from experiments.report.conclude import conclude
    from experiments.rows import RowLog

    towers = [tower for graphs in sets for tower in experiment.find_towers(graphs)]
    with RowLog(out, "tower", where) as log:
        rows = experiment.measure(towers, log, where, range(seed, seed + seeds))
    figures = tower_picture.save(rows, towers, out)
    notes, judged = experiment.remarks(towers), verdicts.of_tower(rows)
    conclude(tower, locals(), log.path, rows, experiment.tables(rows), figures, notes, judged, sets)
    say_paths(log.path, *figures)


def copies(
    data: DataNames = RINGS,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    k: Annotated[
        int | None,
        typer.Option(
            min=2, help="How many copies.", show_default="enough to outgrow every molecule, at most 12"
        ),
    ] = None,
    folds: Folds = 4,
    epochs: Steps = 100,
) -> list[dict[str, Any]]:
    """Train networks to tell a molecule from k copies of it, and test them on held-out molecules."""
    sets = load_sets(data, mirror)
    where = resolve(device)
    from experiments import copies as experiment
    from experiments.report import verdicts
    from experiments.report.conclude import conclude
    from experiments.rows import RowLog

    tasks = [experiment.choose(graphs, k, seed) for graphs in sets]
    with RowLog(out, "copies", where) as log:
        rows = experiment.measure(tasks, log, where, seed, folds, epochs)
    figures = experiment.figure(rows, out)
    notes, judged = [task.sentence for task in tasks], verdicts.of_copies(rows)
    conclude(copies, locals(), log.path, rows, experiment.tables(rows), figures, notes, judged, sets)
    say_paths(log.path, *figures)
    return rows


def demo(
    data: DataNames = RINGS,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
) -> None:
    """Run collisions, tower and copies, and sum them up in three lines."""
    from experiments.demo import headline

    collisions(data, mirror, out, device, seed)
    tower(data, mirror, out, device, seed)
    rows = copies(data, mirror, out, device, seed)
    say("", *headline(rows), "")


def counting(
    data: DataNames = RINGS,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    folds: Folds = 4,
    epochs: Steps = 100,
) -> None:
    """Probe pooled vectors for the counts, the proportions and the presence of every kind of node."""
    sets = load_sets(data, mirror)
    where = resolve(device)
    from experiments import counting as experiment
    from experiments.report.conclude import conclude
    from experiments.rows import RowLog

    tasks = [experiment.choose(graphs, seed) for graphs in sets]
    with RowLog(out, "counting", where) as log:
        rows = experiment.measure(tasks, log, where, seed, folds, epochs)
    figures = experiment.figure(rows, out)
    notes, judged = [task.sentence for task in tasks], experiment.verdicts(rows)
    conclude(counting, locals(), log.path, rows, experiment.tables(rows), figures, notes, judged, sets)
    say_paths(log.path, *figures)


def propositions(
    data: DataNames = RINGS,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
) -> None:
    """Check ten propositions about readouts in numbers, in float32 and float64."""
    sets = load_sets(data, mirror)
    where = resolve(device)
    from experiments import propositions as experiment
    from experiments import propositions_picture
    from experiments.report.conclude import conclude
    from experiments.rows import RowLog

    grounds = [experiment.choose(graphs, where, seed) for graphs in sets]
    with RowLog(out, "propositions", where) as log:
        rows = experiment.measure(grounds, log, seed)
    figures = propositions_picture.figure(rows, out)
    judged = experiment.verdicts(rows)
    conclude(propositions, locals(), log.path, rows, experiment.tables(rows), figures, (), judged, sets)
    say_paths(log.path, *figures)
