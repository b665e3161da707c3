"""The command line: `python -m experiments NAME --data SET SET ...`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from experiments.commands import learning, machine, report, seeing
from experiments.console import UserError
from experiments.options import ManyData, ManyNames, OneThread
from experiments.report.sections import command_name

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
BAD_INPUT, INTERRUPTED = 2, 130
COMMANDS = (
    seeing.collisions,
    seeing.tower,
    seeing.copies,
    seeing.demo,
    seeing.counting,
    seeing.propositions,
    learning.accuracy,
    learning.extrapolation,
    learning.robustness,
    learning.gradients,
    learning.heads,
    learning.activation_maps,
    learning.excitation,
    machine.speed,
    report.all_,
)
KINDS = {learning.accuracy: ManyNames, machine.speed: ManyData}

app = typer.Typer(
    help="Experiments that show what sum, mean and max readouts can and cannot see.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in COMMANDS:
    app.command(command_name(command), cls=KINDS.get(command, OneThread))(command)
app.command()(machine.scaling)
app.command()(report.report)


def complain(sentence: str) -> int:
    """Say it in one line on stderr; the exit code is that of bad input."""
    print(" ".join(sentence.split()), file=sys.stderr)
    return BAD_INPUT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; bad input is one sentence on stderr and exit code 2, a bug keeps its traceback."""
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
    if code == INTERRUPTED:  # Typer returns it in the place of KeyboardInterrupt
        print("Interrupted; rows so far are kept, and a rerun continues.", file=sys.stderr)
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
