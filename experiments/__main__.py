"""The command line: `python -m experiments NAME --data SET SET ...`.

A module is imported when its command is asked for: all of them take seconds.
"""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from experiments.console import UserError, say
from experiments.experiment import Experiment, command_line
from experiments.options import COMMON, PARALLEL, Command, Option, flag, load_sets, number, option, resolve

EXPERIMENTS = (
    "collisions",
    "ceiling.experiment",
    "tower",
    "copies",
    "counting",
    "propositions",
    "accuracy.experiment",
    "properties.experiment",
    "extrapolation",
    "robustness",
    "gradients",
    "heads",
    "activation_maps",
    "excitation",
    "speed.experiment",
    "scaling",
)
MODULES = {module.partition(".")[0].replace("_", "-"): module for module in EXPERIMENTS}
DEMO = ("collisions", "tower", "copies")
UsageError: type[Exception] = typer.BadParameter.__bases__[0]
BAD_INPUT, INTERRUPTED = 2, 130


def load(module: str) -> Experiment:
    """The experiment of a module."""
    found: Experiment = import_module(f"experiments.{module}").EXPERIMENT
    return found


def load_all() -> list[Experiment]:
    """All experiments, in the order of the report."""
    return [load(name) for name in EXPERIMENTS]


def command_of(name: str, text: str, parameters: Mapping[str, Option], body: Callable[[Any], object]) -> Any:
    """A command with these options, whose `body` receives their values by name."""

    def run(**given: Any) -> None:
        body(given)

    kinds = {option: parameter.kind for option, parameter in parameters.items()}
    run.__annotations__, run.__doc__ = kinds, text
    keyword = inspect.Parameter.KEYWORD_ONLY
    parts = [
        inspect.Parameter(option, keyword, default=parameter.default, annotation=parameter.kind)
        for option, parameter in parameters.items()
    ]
    run.__signature__ = inspect.Signature(parts)  # type: ignore[attr-defined]
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name, cls=Command)(run)
    return typer.main.get_command(alone)


def options_of(experiment: Experiment, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an experiment: those given that it has, and the defaults of the others."""
    return {name: given.get(name, option.default) for name, option in experiment.parameters.items()}


def demo(given: Mapping[str, Any]) -> None:
    """Run three experiments, and sum them up in three lines."""
    from experiments.copies import headline
    from experiments.run import run

    for experiment in map(load, DEMO):
        rows = run(experiment, options_of(experiment, given))
    say("", *headline(rows), "")


def run_all(given: Mapping[str, Any]) -> None:
    """Run all experiments that want no quiet machine, and write the report."""
    from experiments import report, run

    out, quick = given["out"], given["quick"]
    resolve(given["device"])
    run.begin(out)
    names, notes = (list(dict.fromkeys(given["data"])), []) if given["data"] else default_data(given)
    load_sets(names, given, takes_numbers=True)
    common = {name: given[name] for name in COMMON | PARALLEL} | {"data": names}
    common |= {"jobs": given["jobs"] or os.cpu_count() or 1}
    chosen = [
        (experiment, options_of(experiment, common) | (dict(experiment.quick) if quick else {}))
        for experiment in load_all()
        if experiment.in_all
    ]
    about = {"command": command_line("all", ALL, given), "quick": quick, "notes": notes}
    run.run_all(chosen, out, about)
    say(*(f"wrote {path}" for path in report.write(load_all(), out)))


def default_data(given: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """MUTAG, or else the built-in rings and a sentence that says why."""
    try:
        load_sets(["MUTAG"], given)
    except UserError as problem:
        return ["rings"], [f"MUTAG could not be had, so that all is on the built-in rings: {problem}"]
    return ["MUTAG"], []


def make_report(given: Mapping[str, Any]) -> None:
    """Write the report."""
    from experiments import report

    out, readme = given["out"], given["readme"]
    say(*(f"wrote {path}" for path in report.write(load_all(), out)))
    if readme is not None:
        report.rewrite(readme, load_all(), out)
        say(f"wrote {readme}")


def measure_gpu(given: Mapping[str, Any]) -> None:
    """Check and time readouts on a GPU."""
    from experiments.gpu.command import command

    command(given)


QUICK = "Few folds and short trainings: MUTAG in less than ten minutes."
README = "Also rewrite the results in this file, between its two markers."
NAMES = {"metavar": "NAME...", "show_default": "MUTAG, or rings where MUTAG cannot be had"}
ALL = {
    **COMMON,
    **PARALLEL,
    "data": option(list[str], [], "One or more names of sets, as in --data MUTAG PTC_MR.", **NAMES),
    "quick": flag(QUICK, "quick"),
    "jobs": number(None, 1, "Processes, of one thread each.", show_default="one a core"),
}
OTHERS: dict[str, tuple[str, Mapping[str, Option], Callable[[Any], object]]] = {
    "demo": ("Run collisions, tower and copies, and sum them up in three lines.", COMMON | PARALLEL, demo),
    "all": (
        "Run all experiments but speed and scaling, which want a quiet machine, and write the report.",
        ALL,
        run_all,
    ),
    "report": (
        "Make one page of everything that experiments left in a folder: report.html, report.md and tables.",
        {"out": COMMON["out"], "readme": option(Path | None, None, README, exists=True, dir_okay=False)},
        make_report,
    ),
    "gpu": (
        "Check and time readouts on a CUDA device, the most important first, within some minutes.",
        {"out": COMMON["out"], "budget": number(420, 1, "Seconds for everything.")},
        measure_gpu,
    ),
}


class Commands(TyperGroup):
    """One command for each experiment, imported when it is asked for, and those of all of them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names."""
        return [*MODULES, *OTHERS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, if there is one."""
        if cmd_name in OTHERS:
            return command_of(cmd_name, *OTHERS[cmd_name])
        if cmd_name not in MODULES:
            return None
        from experiments.run import run

        one = load(MODULES[cmd_name])
        return command_of(one.name, one.question, one.parameters, lambda given: run(one, given))


app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, cls=Commands)


@app.callback()
def about() -> None:
    """Experiments that show what sum, mean and max readouts can and cannot see."""


def complain(sentence: str) -> int:
    """Say it in one line on stderr; the exit code is that of bad input."""
    print(" ".join(sentence.split()), file=sys.stderr)
    return BAD_INPUT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; bad input is one sentence on stderr and exit code 2, a bug keeps its traceback."""
    warnings.filterwarnings("ignore", ".torch.jit", FutureWarning)  # importing PyG with torch 2.14
    if sys.stdout is None:  # it was closed when Python started
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        code = app(arguments, standalone_mode=False)
    except UserError as problem:
        return complain(str(problem))
    except UsageError as problem:
        return complain(problem.format_message())  # type: ignore[attr-defined]
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    if code == INTERRUPTED:  # Typer returns it instead of raising KeyboardInterrupt
        print("Interrupted; rows so far are kept, and a rerun continues.", file=sys.stderr)
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
