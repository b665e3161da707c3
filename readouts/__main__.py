"""The command line: `readouts check`, `readouts conformance` and `readouts info`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from readouts.commands.target import CannotRunError

COMMANDS = {
    "check": "is a model permutation invariant, and if not, which layer broke it?",
    "conformance": "does a readout or aggregation keep the value contract of this library?",
    "info": "which kernels are in use here, and why?",
}
CANNOT_RUN, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; what cannot be run is one sentence on stderr and exit code 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="readouts", description="Test graph models and their readouts.")
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
        return CANNOT_RUN
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
