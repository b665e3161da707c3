"""The one way that experiments run: alone, or all in a row; rows that are there are not measured again."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.console import UserError, say, tracked, writing
from experiments.experiment import Experiment, call, command_line, one_thread, told
from experiments.jobs import Workers, working
from experiments.options import load_sets, notes_on, resolve
from experiments.records import Row, RowLog

if TYPE_CHECKING:
    from datasets import GraphSet

FAILURE, RUN = "all.failure.txt", "all.json"
CPU = "cpu"

Given = Mapping[str, Any]


def run(experiment: Experiment, options: Given, refused: Mapping[str, str] | None = None) -> list[Row]:
    """Measure what is missing, draw, print tables and findings, and record what they are made of.

    `refused` says why sets were left out.
    """
    takes_sets = experiment.data is not None
    sets = load_sets(options["data"], options, experiment.takes_numbers) if takes_sets else []
    device = resolve(options["device"]) if takes_sets else CPU
    given = {**options, "device": device, "sets": sets}
    prepare = experiment.prepare
    of_sets = tracked(sets, "preparing") if prepare else ()
    given["tasks"] = tasks = [call(prepare, graphs, given=given) for graphs in of_sets] if prepare else sets
    workers = Workers(options.get("jobs", 1), options.get("scheduler"), experiment.sources)
    on = device if experiment.on_device else CPU
    with RowLog(options["out"], experiment.name, on, experiment.code, fingerprints_of(sets)) as log:
        with one_thread() if experiment.one_thread else nullcontext(), working(workers):
            rows = list(call(experiment.measure, tasks, log, given=given))
        figures = call(experiment.figure, rows, given=given)
        notes = list(call(experiment.notes, tasks, rows, given=given)) if experiment.notes else []
        view = {
            "command": command_line(experiment.name, experiment.parameters, options),
            "data": [graphs.name for graphs in sets],
            "notes": [*(f"{graphs.name}: {note}" for graphs in sets for note in notes_on(graphs)), *notes],
            "figures": [path.stem for path in figures],
            "refused": dict(refused or {}),
        }
        log.finish(rows, view)
    say(*experiment.tables(rows), *notes, *told(list(experiment.findings(rows))))
    if experiment.aside:
        say(*call(experiment.aside, given=given))
    say(*(f"wrote {path}" for path in (log.path, *figures)))
    return rows


def fingerprints_of(sets: Sequence[GraphSet]) -> dict[str, str]:
    """Fingerprints of own data: a file may change and keep its name."""
    from datasets.splits import fingerprint

    return {graphs.name: fingerprint(graphs)[:16] for graphs in sets if graphs.own}


def run_all(experiments: Sequence[tuple[Experiment, Given]], out: Path, about: Mapping[str, Any]) -> None:
    """Run each experiment with its options; a set that one refuses is left out there, and its reason kept.

    Anything else that goes wrong stops the run, with its traceback in `all.failure.txt`. `about` is what the
    report says of the run: command, whether it was quick, notes.
    """
    begin(out)
    with writing(out / RUN):
        (out / RUN).write_text(json.dumps(about) + "\n")
    started = time.monotonic()
    for number, (experiment, options) in enumerate(experiments, start=1):
        say(f"[{number} of {len(experiments)}] {experiment.name}", "")
        try:
            run_on_most(experiment, options)
        except Exception:
            with writing(out / FAILURE):
                (out / FAILURE).write_text(traceback.format_exc())
            raise
        say("", f"[{number} of {len(experiments)}] {progress(number, len(experiments), started)}", "")


def begin(out: Path) -> None:
    """Make the folder, without what an earlier run that failed said."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / FAILURE).unlink(missing_ok=True)


def progress(done: int, total: int, started: float) -> str:
    """Return what is done, and the time left at the pace so far."""
    passed = time.monotonic() - started
    so_far = f"{done} done in {timedelta(seconds=round(passed))}"
    if done == total:
        return so_far
    left = timedelta(seconds=round(passed / done * (total - done)))
    return f"{so_far}, {left} left if the other {total - done} take as long on average"


def run_on_most(experiment: Experiment, options: Given) -> None:
    """Run on all sets, or else on those that are not refused."""
    names = options.get("data", [])
    try:
        run(experiment, options)
        return
    except UserError as problem:
        refused = refusal(names[0], problem) if len(names) == 1 else try_each(experiment, options)
    say(*(f"left out, {name}: {sentence}" for name, sentence in refused.items()))
    taken = [name for name in names if name not in refused]
    if taken:
        run(experiment, {**options, "data": taken}, refused)
    else:
        command = command_line(experiment.name, experiment.parameters, options)
        view = {"command": command, "data": [], "notes": [], "figures": [], "refused": refused}
        with RowLog(options["out"], experiment.name) as log:
            log.finish([], view)


def try_each(experiment: Experiment, options: Given) -> dict[str, str]:
    """Run on each set alone, and return what is said of those that are refused."""
    refused: dict[str, str] = {}
    for name in options["data"]:
        try:
            run(experiment, {**options, "data": [name]})
        except UserError as problem:
            refused |= refusal(name, problem)
    return refused


def refusal(name: str, problem: UserError) -> dict[str, str]:
    """The sentence of a refused set; raises one that does not name it, as of a full disk, again."""
    if name not in str(problem):
        raise problem
    return {name: str(problem)}
