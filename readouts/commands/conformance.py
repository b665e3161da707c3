"""Run the value contract of this library against any readout or aggregation.

TARGET is package.module:name, also from the current folder: an aggregation with PyG's interface, any other
torch module, or a function (x, batch, ...). Every failure is shown by three lines of code. Which rows apply
to a readout depends on what it behaves like (sum, mean, ...), which is found by probing or set by --like.

Rows have three levels: "must" (values, gradients, shapes), "bits" (equality to the bit) and "validation"
(arguments that must be refused); --level, --rows and --skip choose which of them count.

exit code: 0 all rows passed, 1 some failed, 2 cannot be run
"""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import readouts
from readouts.commands.names import INTERRUPTED, KINDS, LEVELS, ROWS
from readouts.commands.progress import Progress
from readouts.commands.target import CannotRunError

if TYPE_CHECKING:
    from readouts.testing.conformance import Subject
    from readouts.testing.conformance.row import Row
    from readouts.testing.conformance.suite import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("target", metavar="TARGET", nargs="?", help="the readout, as package.module:name")
    what.add_argument(
        "--document",
        action="store_true",
        help="instead of one readout test those of this library, of PyG and of torch-scatter where it is "
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
        help=f"what the readout must behave like: {', '.join(KINDS)} (default: found by probing)",
    )
    parser.add_argument(
        "--rows",
        type=partial(_names, ROWS),
        default=(),
        metavar="ROWS",
        help="rows to run, separated by commas (default: all)",
    )
    parser.add_argument(
        "--skip",
        type=partial(_names, ROWS),
        default=(),
        metavar="ROWS",
        help="rows to leave out, separated by commas",
    )
    parser.add_argument(
        "--level",
        type=partial(_names, LEVELS),
        default=LEVELS,
        metavar="LEVELS",
        help=f"levels to run, separated by commas, of {', '.join(LEVELS)} (default: all)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _names(known: Sequence[str], text: str) -> tuple[str, ...]:
    """Split names at commas; a name may hold a comma itself, as "order, to the bit"."""
    names = tuple(part.strip() for part in re.split(r",(?! to the bit)", text))
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"expected {', '.join(known)}, got {name!r}")
    return names


def run(arguments: argparse.Namespace) -> int:
    """Examine a readout, print the rows, and return the exit code."""
    if arguments.document:
        for name in ("init", "like", "rows", "skip", "json"):
            if getattr(arguments, name):
                raise CannotRunError(f"--{name}: expected without --document")
        return _document()
    if arguments.like not in (None, *KINDS):
        raise CannotRunError(f"--like: expected one of {', '.join(KINDS)}, got {arguments.like!r}")
    from readouts.testing.conformance import Subject, TargetError  # not for --help
    from readouts.testing.conformance.suite import select

    init = _init(arguments.init)
    try:
        rows = select(arguments.rows, arguments.skip, arguments.level)
    except ValueError as problem:
        raise CannotRunError(f"--{problem}") from problem
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        subject = Subject.locate(arguments.target, init, arguments.like)
    except TargetError as problem:
        raise CannotRunError(str(problem)) from problem
    return _check(subject, rows, arguments.json)


def _check(subject: Subject, rows: Sequence[Row], as_json: bool) -> int:
    """Print the result of each row as soon as it is known, then the failures; after Ctrl-C those so far."""
    from readouts.testing.conformance.suite import Conformance, check_conformance
    from readouts.testing.progress import Listener, listening

    results: list[Result] = []
    width = max(len(row.name) for row in rows)
    interrupted = ""

    def tell(text: str) -> None:
        if not as_json:
            print(text, flush=True)

    def take(result: Result) -> None:
        results.append(result)
        tell(result.line(width))

    tell(f"{Conformance(subject.name, subject.kinds, ()).head}\n")
    try:
        with listening(Listener(Progress())):
            check_conformance(subject, rows, take)
    except KeyboardInterrupt:
        interrupted = f"interrupted after {len(results)} of {len(rows)} rows"
    found = Conformance(subject.name, subject.kinds, tuple(results))
    if as_json:
        told = {"error": interrupted, "passed": False} if interrupted else {}
        print(json.dumps(found.to_dict() | told, indent=2))
    if results:
        tell(found.details)
    if interrupted:
        print(interrupted, file=sys.stderr)
        return INTERRUPTED
    return 0 if found.passed else 1


def _document() -> int:
    """Print the page by its script, which a wheel does not contain."""
    script = Path(readouts.__file__).parents[1] / "docs" / "conformance.py"
    if not script.exists():
        raise CannotRunError("--document: expected a clone of the repository, got an installed package")
    from readouts.testing.progress import Listener, listening

    with listening(Listener(Progress())):
        runpy.run_path(str(script), run_name="__main__")
    return 0


def _init(text: str | None) -> object:
    try:
        return None if text is None else json.loads(text)
    except json.JSONDecodeError as error:
        raise CannotRunError(f"--init: expected JSON, got {text!r} ({error})") from error
