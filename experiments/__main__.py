"""The command line: `python -m experiments NAME --data SET SET ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from experiments.console import UserError, say, tracked

if TYPE_CHECKING:
    from datasets import GraphSet

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
BAD_INPUT, INTERRUPTED = 2, 130


class DeviceName(StrEnum):
    """Where the networks run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class ManyData(TyperCommand):
    """A command whose `--data` takes all the names that follow it: `--data A B` is `--data A --data B`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before the parser sees it."""
        return super().parse_args(ctx, repeat_option("--data", args))


class ManyNames(ManyData):
    """A command whose `--network` and `--readout` take all the names that follow them, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the options before the parser sees them."""
        return super().parse_args(ctx, repeat_option("--network", repeat_option("--readout", args)))


def repeat_option(option: str, arguments: Sequence[str]) -> list[str]:
    """Write `option A B` as `option A option B`, up to the next option."""
    result: list[str] = []
    values_seen = 0
    inside = False
    for argument in arguments:
        if argument.startswith("-"):
            inside = argument == option or argument.startswith(f"{option}=")
            values_seen = 1 if "=" in argument else 0
        elif inside:
            if values_seen:
                result.append(option)
            values_seen += 1
        result.append(argument)
    return result


DataNames = Annotated[
    list[str],
    typer.Option(
        metavar="NAME...", help="One or more names: rings (built in), or TU sets, as in --data MUTAG PTC_MR."
    ),
]
Mirror = Annotated[
    str | None,
    typer.Option(envvar="READOUTS_TU_MIRROR", help="A folder or URL with NAME.zip files, for TU sets."),
]
Out = Annotated[Path, typer.Option(help="The folder for rows and figures; a rerun continues there.")]
Device = Annotated[DeviceName, typer.Option(help="Where networks run; auto takes CUDA if there is one.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31, help="The number that everything random starts from.")]
RINGS = ["rings"]
NO_DATA: list[str] = []
NETWORK = ["gin"]
NO_READOUTS: list[str] = []
RESULTS = Path("results")

app = typer.Typer(
    help="Experiments that show what sum, mean and max readouts can and cannot see.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command(cls=ManyData)
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
    from experiments.rows import RowLog

    with RowLog(out, "collisions") as log:
        rows = experiment.measure(sets, log)
    figures = experiment.figure(rows, out)
    say(*experiment.tables(rows))
    if pairs:
        for graphs in sets:
            say(*experiment.pair_lines(graphs))
    say_paths(log.path, *figures)


@app.command(cls=ManyData)
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
    from experiments.rows import RowLog

    towers = [tower for graphs in sets for tower in experiment.find_towers(graphs)]
    with RowLog(out, "tower", where) as log:
        rows = experiment.measure(towers, log, where, range(seed, seed + seeds))
    figures = tower_picture.save(rows, towers, out)
    say(*experiment.tables(rows), *experiment.remarks(towers))
    say_paths(log.path, *figures)


@app.command(cls=ManyData)
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
    folds: Annotated[int, typer.Option(min=2, help="Folds of the cross-validation.")] = 4,
    epochs: Annotated[int, typer.Option(min=1, help="Training steps, each on all training graphs.")] = 100,
) -> None:
    """Train networks to tell a molecule from k copies of it, and test them on held-out molecules."""
    sets = load_sets(data, mirror)
    where = resolve(device)
    from experiments import copies as experiment
    from experiments.rows import RowLog

    tasks = [experiment.choose(graphs, k, seed) for graphs in sets]
    with RowLog(out, "copies", where) as log:
        rows = experiment.measure(tasks, log, where, seed, folds, epochs)
    figures = experiment.figure(rows, out)
    say(*experiment.tables(rows), *(task.sentence for task in tasks))
    say_paths(log.path, *figures)


@app.command(cls=ManyData)
def demo(
    data: DataNames = RINGS,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
) -> None:
    """Run collisions, tower and copies, and sum them up in three lines."""
    sets = load_sets(data, mirror)
    where = resolve(device)
    from experiments import demo as experiment

    say_paths(*experiment.run(sets, out, where, seed))


@app.command("activation-maps", cls=ManyData)
def activation_maps(
    data: DataNames = NO_DATA,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    folds: Annotated[int, typer.Option(min=2, help="Folds of the cross-validation.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Training steps, each on 64 molecules.")] = 600,
) -> None:
    """Map what each atom gives to the logit of a mutagen, and see whether nitro groups light up.

    The question needs mutagens: --data MUTAG Mutagenicity.
    """
    sets = load_sets(data, mirror)
    where = resolve(device)
    from experiments import activation_maps as experiment
    from experiments.rows import RowLog

    with RowLog(out, "activation_maps", where) as log:
        rows = experiment.measure(sets, log, where, seed, folds, steps)
    figures = experiment.figure(rows, sets, out)
    say(*experiment.tables(rows), *experiment.verdicts(rows))
    say_paths(log.path, *figures)


@app.command(cls=ManyData)
def speed(
    data: DataNames = NO_DATA,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="The main shapes only, in less than two minutes.")
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

    from experiments.rows import RowLog
    from experiments.speed import figure, measure, tables
    from experiments.speed.shapes import memory_plan, plan

    settings = measure.Settings(where, seed, quick, threads or torch.get_num_threads())
    with RowLog(out, "speed", where) as log:
        rows = measure.measure(plan(quick, where == "cuda", sets, seed), log, settings)
        if not quick:
            rows += measure.measure_memory(memory_plan(where == "cuda"), log, settings)
    figures = figure.figure(rows, out)
    say(*tables.tables(rows), *tables.refusals(rows), *tables.noise(rows))
    say_paths(log.path, *figures)


@app.command(cls=ManyData)
def counting(
    data: DataNames = RINGS,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    folds: Annotated[int, typer.Option(min=2, help="Folds of the cross-validation.")] = 4,
    epochs: Annotated[int, typer.Option(min=1, help="Training steps, each on all training graphs.")] = 100,
) -> None:
    """Probe pooled vectors for the counts, the proportions and the presence of every kind of node."""
    sets = load_sets(data, mirror)
    where = resolve(device)
    from experiments import counting as experiment
    from experiments.rows import RowLog

    tasks = [experiment.choose(graphs, seed) for graphs in sets]
    with RowLog(out, "counting", where) as log:
        rows = experiment.measure(tasks, log, where, seed, folds, epochs)
    figures = experiment.figure(rows, out)
    say(*experiment.tables(rows), *(task.sentence for task in tasks), *experiment.verdicts(rows))
    say_paths(log.path, *figures)


@app.command(cls=ManyData)
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
    from experiments.rows import RowLog

    grounds = [experiment.choose(graphs, where, seed) for graphs in sets]
    with RowLog(out, "propositions", where) as log:
        rows = experiment.measure(grounds, log, seed)
    figures = propositions_picture.figure(rows, out)
    say(*experiment.tables(rows), *experiment.verdicts(rows))
    say_paths(log.path, *figures)


@app.command(cls=ManyData)
def robustness(
    data: DataNames = RINGS,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    folds: Annotated[int, typer.Option(min=2, help="Folds of the cross-validation.")] = 4,
    epochs: Annotated[int, typer.Option(min=1, help="Training steps, each on all training graphs.")] = 100,
) -> None:
    """Corrupt nodes until readouts break, alone and at the end of trained networks."""
    sets = load_sets(data, mirror)
    where = resolve(device)
    from experiments import robustness as experiment
    from experiments.rows import RowLog

    tasks = [experiment.choose(graphs, seed) for graphs in sets]
    with RowLog(out, "robustness", where) as log:
        rows = experiment.measure(tasks, log, where, seed, folds, epochs)
    figures = experiment.figure(rows, out)
    say(*experiment.tables(rows), *(task.sentence for task in tasks), *experiment.verdicts(rows))
    say_paths(log.path, *figures)


@app.command(cls=ManyNames)
def accuracy(
    data: DataNames = RINGS,
    mirror: Mirror = None,
    out: Out = RESULTS,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    network: Annotated[
        list[str], typer.Option(metavar="NAME...", help="One or more of gin, sage, gcn.")
    ] = NETWORK,
    readout: Annotated[
        list[str], typer.Option(metavar="NAME...", help="One or more readouts.", show_default="all")
    ] = NO_READOUTS,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Folds of the cross-validation.", show_default="10, or the smallest class"),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Cross-validations, each with its own folds.")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of training at most.")] = 200,
    jobs: Annotated[int, typer.Option(min=1, help="Processes, of one thread each.")] = 1,
    attributes: Annotated[bool, typer.Option("--attributes", help="Take node attributes, too.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Sum, mean and max, one learning rate, 50 epochs at most.")
    ] = False,
) -> None:
    """Train networks with every readout on the same folds, and compare them with baselines and ceilings."""
    sets = load_sets(data, mirror)
    where = resolve(device)
    from experiments.accuracy import figure, measure, tables
    from experiments.rows import RowLog

    plan = measure.plan(network, readout, folds, repeats, seed, attributes, epochs, quick)
    with RowLog(out, "accuracy", where) as log:
        rows = measure.measure(sets, log, plan, where, jobs)
    figures = figure.figure(rows, out)
    say(*tables.tables(rows), *tables.sentences(rows))
    say_paths(log.path, *figures)


def load_sets(names: Sequence[str], mirror: str | None) -> list[GraphSet]:
    """Load each set once, in the order given, and tell what loading did to it."""
    from datasets import load
    from datasets.errors import DataError

    try:
        sets = [load(name, mirror) for name in tracked(list(dict.fromkeys(names)), "loading")]
    except DataError as problem:
        raise UserError(str(problem)) from problem
    say(*(f"{graphs.name}: {note}" for graphs in sets for note in graphs.notes))
    return sets


def resolve(device: DeviceName) -> str:
    """The device to use; `auto` is CUDA where there is one."""
    import torch

    if device is DeviceName.cuda and not torch.cuda.is_available():
        raise UserError(f"--device cuda: PyTorch {torch.__version__} finds no CUDA device here.")
    return "cuda" if device is not DeviceName.cpu and torch.cuda.is_available() else "cpu"


def say_paths(*paths: Path) -> None:
    """Tell where the results are."""
    say(*(f"wrote {path}" for path in paths))


def complain(sentence: str) -> int:
    """Say it in one line on stderr; the exit code is that of bad input."""
    print(" ".join(sentence.split()), file=sys.stderr)
    return BAD_INPUT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; bad input is one sentence on stderr and exit code 2, a bug keeps its traceback."""
    try:
        code = app(arguments, standalone_mode=False)
    except UserError as problem:
        return complain(str(problem))
    except UsageError as problem:
        return complain(problem.format_message())  # type: ignore[attr-defined]
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    if code == INTERRUPTED:  # Typer returns it in the place of KeyboardInterrupt
        print("Interrupted; rows so far are kept, and a rerun continues.", file=sys.stderr)
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
