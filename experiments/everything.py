"""All experiments, one after the other, and the report of what they left.

An experiment that refuses a set says why in one sentence that names it, and the report keeps the sentence;
anything else that goes wrong stops the run, with its traceback in `all.failure.txt`. Rows that are there are
not measured again, so that a run that was stopped continues where it was.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from experiments.console import UserError, say, writing
from experiments.report import page
from experiments.report.conclude import recover_speed
from experiments.report.sections import ENDING, Section, command_line, command_name, read_one

Command = Callable[..., object]
Options = Mapping[str, Any]

FAILURE = "all.failure.txt"
QUICK: dict[str, dict[str, Any]] = {
    "accuracy": {"quick": True},
    "extrapolation": {"seeds": 3, "epochs": 50},
    "gradients": {"folds": 2},
    "heads": {"seeds": 2},
    "activation-maps": {"folds": 5, "steps": 300},
    "excitation": {"folds": 5},
}


def run(
    commands: Sequence[tuple[Command, Options]],
    names: Sequence[str],
    out: Path,
    said: str,
    quick: bool,
    notes: Sequence[str],
) -> list[Path]:
    """Run each command with its options on the sets that it takes, and write the report.

    `said` is the command line of all of it, and `notes` what the reader has to know about the data.
    """
    begin(out)
    failure = out / FAILURE
    with writing(out / page.RUN):
        (out / page.RUN).write_text(
            json.dumps({"command": said, "quick": quick, "notes": list(notes)}) + "\n"
        )
    started = time.monotonic()
    for number, (command, options) in enumerate(commands, start=1):
        say(f"[{number} of {len(commands)}] {command_name(command)}, {elapsed(started)} so far", "")
        try:
            run_one(command, names, options, out)
        except Exception:
            with writing(failure):
                failure.write_text(traceback.format_exc())
            raise
        say("")
    recover_speed(out)
    written = page.write(out)
    say(f"all {len(commands)} experiments in {elapsed(started)}")
    return written


def begin(out: Path) -> None:
    """Make the folder, without what an earlier run that failed said."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / FAILURE).unlink(missing_ok=True)


def settings(command: Command, quick: bool) -> dict[str, Any]:
    """What is not at the command's defaults in a quick run."""
    return QUICK.get(command_name(command), {}) if quick else {}


def elapsed(started: float) -> timedelta:
    """The time since then, in whole seconds."""
    return timedelta(seconds=round(time.monotonic() - started))


def run_one(command: Command, names: Sequence[str], options: Options, out: Path) -> None:
    """Run a command on all sets, or else on those that it does not refuse; the refusals go to its section."""
    try:
        command(data=list(names), **options)
        return
    except UserError as problem:
        refused = refusal(names[0], problem) if len(names) == 1 else try_each(command, names, options)
    say(*(f"left out, {name}: {sentence}" for name, sentence in refused.items()))
    taken = [name for name in names if name not in refused]
    if taken:
        command(data=taken, **options)
        section = read_one(out / f"{command_name(command)}{ENDING}")
    else:
        section = Section(command_name(command), command_line(command, {"data": list(names), **options}), [])
    replace(section, refused=refused).write(out)


def try_each(command: Command, names: Sequence[str], options: Options) -> dict[str, str]:
    """Run a command on each set alone, and return what it says of those that it refuses."""
    refused: dict[str, str] = {}
    for name in names:
        try:
            command(data=[name], **options)
        except UserError as problem:
            refused |= refusal(name, problem)
    return refused


def refusal(name: str, problem: UserError) -> dict[str, str]:
    """The sentence of a refused set; raises one that does not name it, as of a full disk, anew."""
    if name not in str(problem):
        raise problem
    return {name: str(problem)}
