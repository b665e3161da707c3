"""Run the value contract of this library against any readout or aggregation.

TARGET is package.module:name, from the current folder as well: an aggregation in PyG's manner, any other
module or a function (x, batch, ...). Every failure is shown by three lines that can be pasted. Rows
that have no meaning for a readout are told by the kind that probing finds, or by --like.

exit code: 0 all rows passed, 1 some failed, 2 cannot be run
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import sys
from pathlib import Path

import readouts
from readouts.commands.target import CannotRunError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("target", metavar="TARGET", nargs="?", help="the readout, as package.module:name")
    what.add_argument(
        "--document",
        action="store_true",
        help="instead of one readout examine those of this library, of PyG and of torch-scatter where it is "
        "installed, and print the page docs/conformance.md",
    )
    parser.add_argument(
        "--init",
        metavar="JSON",
        help="arguments of the constructor, as a list or an object; for a function an object of keywords",
    )
    parser.add_argument(
        "--like",
        metavar="KIND",
        help="what the readout ought to behave like: sum, mean, max, min, median, var, std, mul or other "
        "(default: found by probing)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Examine a readout, print the rows, and return the exit code."""
    if arguments.document:
        return _document()
    from readouts.testing.conformance import Subject, TargetError, check_conformance  # not for --help

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        subject = Subject.locate(arguments.target, _init(arguments.init), arguments.like)
    except TargetError as problem:
        raise CannotRunError(str(problem)) from problem
    found = check_conformance(subject)
    print(json.dumps(found.to_dict(), indent=2) if arguments.json else found)
    return 0 if found.passed else 1


def _document() -> int:
    """Print the page by its script, which a wheel does not contain."""
    script = Path(readouts.__file__).parents[1] / "docs" / "conformance.py"
    if not script.exists():
        raise CannotRunError("--document: expected a clone of the repository, got an installed package")
    runpy.run_path(str(script), run_name="__main__")
    return 0


def _init(text: str | None) -> object:
    try:
        return None if text is None else json.loads(text)
    except json.JSONDecodeError as error:
        raise CannotRunError(f"--init: expected JSON, got {text!r} ({error})") from error
