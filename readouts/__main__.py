"""The command line: `readouts check`, `readouts conformance` and `readouts info`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from readouts.commands.names import CANNOT_RUN, INTERRUPTED
from readouts.commands.target import CannotRunError

COMMANDS = {
    "check": "is a model permutation invariant, and if not, which layer broke it?",
    "conformance": "does a readout or aggregation keep the value contract of this library?",
    "info": "which kernels are in use here, and why?",
}


class _Parser(argparse.ArgumentParser):
    """Reports wrong arguments also as JSON if --json is given."""

    given: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        """Print the mistake, and exit with code 2."""
        if "--json" in _Parser.given:
            _print_error(message)
        super().error(message)


def _print_error(message: str) -> None:
    found: dict[str, Any] = {"schema": 1, "error": message}
    print(json.dumps(found, indent=2, ensure_ascii=False))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; if it cannot be run, print one sentence on stderr and return exit code 2.

    With --json the sentence is also printed as an object on stdout.
    """
    warnings.filterwarnings("ignore", ".torch.jit", FutureWarning)  # importing PyG with torch 2.14
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _Parser(prog="readouts", description="Test graph models and their readouts.")
    _Parser.given = given
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, purpose in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=purpose, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if given[:1] == [name]:  # only the command in use is imported
            command = importlib.import_module(f"readouts.commands.{name}")
            subparser.description = command.__doc__
            command.add_arguments(subparser)
            subparser.set_defaults(run=command.run)
    parsed = parser.parse_args(given)
    try:
        return parsed.run(parsed)
    except CannotRunError as problem:
        print(f"readouts {parsed.command}: {problem}", file=sys.stderr)
        if parsed.json:
            _print_error(str(problem))
        return CANNOT_RUN
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        if parsed.json:
            _print_error("interrupted")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
