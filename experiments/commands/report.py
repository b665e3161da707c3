"""Everything at once, and the page of what came out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from experiments.commands import learning, seeing
from experiments.console import UserError
from experiments.options import (
    NO_DATA,
    RESULTS,
    Device,
    DeviceName,
    Mirror,
    Out,
    Scheduler,
    Seed,
    load_sets,
    resolve,
    say_paths,
)

ALL: tuple[Callable[..., object], ...] = (
    seeing.collisions,
    seeing.tower,
    seeing.copies,
    seeing.counting,
    seeing.propositions,
    learning.accuracy,
    learning.extrapolation,
    learning.robustness,
    learning.gradients,
    learning.heads,
    learning.activation_maps,
    learning.excitation,
)


def all_(
    data: Annotated[
        list[str],
        typer.Option(
            metavar="NAME...",
            help="One or more names of sets, as in --data MUTAG PTC_MR.",
            show_default="MUTAG, or rings where MUTAG cannot be had",
        ),
    ] = NO_DATA,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few folds and short trainings: MUTAG in less than ten minutes.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Processes for accuracy, of one thread each.", show_default="one a core"),
    ] = None,
    scheduler: Scheduler = None,
) -> None:
    """Run all experiments but speed, which wants a quiet machine, and write the report."""
    from experiments import everything
    from experiments.report.sections import command_line

    said = command_line(all_, locals())
    resolve(device)
    everything.begin(out)
    names, notes = (list(dict.fromkeys(data)), []) if data else default_data(mirror)
    load_sets(names, mirror)
    given = {"mirror": mirror, "out": out, "device": device, "seed": seed}
    commands = []
    for command in ALL:
        options = given | everything.settings(command, quick)
        if command is learning.accuracy:
            options |= {"jobs": jobs or os.cpu_count() or 1, "scheduler": scheduler}
        commands.append((command, options))
    say_paths(*everything.run(commands, names, out, said, quick, notes))


def default_data(mirror: str | None) -> tuple[list[str], list[str]]:
    """MUTAG, or else the built-in rings and a sentence that says why."""
    try:
        load_sets(["MUTAG"], mirror)
    except UserError as problem:
        return ["rings"], [f"MUTAG could not be had, so that all is on the built-in rings: {problem}"]
    return ["MUTAG"], []


def report(
    out: Out = RESULTS,
    readme: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Also rewrite the results in this file, between its two markers.",
        ),
    ] = None,
) -> None:
    """Make one page of everything that experiments left in a folder: report.html, report.md and tables."""
    from experiments.report import page
    from experiments.report.conclude import recover_speed
    from experiments.report.readme import rewrite

    recover_speed(out)
    say_paths(*page.write(out))
    if readme is not None:
        rewrite(readme, out)
        say_paths(readme)
