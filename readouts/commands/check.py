"""Check whether a model is permutation invariant, and if not, name the layer that broke it.

TARGET is package.module:name, also from the current folder: a torch module, a class or function that makes
one without arguments, or any function of graphs. A module made from a class is put into evaluation mode,
any other keeps its mode; --mode changes the mode of both.

The arguments follow from the names of the model's parameters: x, edge_index, edge_attr, edge_weight, pos, z,
batch and other tensors of the batch, or ptr, size, num_graphs and num_nodes, by position or keyword.
Parameters with a default keep it, except x, edge_index and batch. If the only parameter has another name, or
is called batch, the model gets the PyG Batch.

The verdict of each check is printed as soon as it is known, one line each. Then follow, for each fault, the
reason, the layer, code that reproduces the fault, and what to do.

exit code: 0 invariant (identical bits or rounding), 1 not (broken or random), 2 cannot be run
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from readouts.commands.names import CHECKS
from readouts.commands.target import CannotRunError, build
from readouts.scatter import exact_scatter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("target", metavar="TARGET", help="the model, as package.module:name")
    parser.add_argument(
        "--data",
        metavar="NAME|FILE.pt",
        help="the first 32 graphs of a TU set (from the TU site, or from READOUTS_TU_MIRROR, a folder or URL "
        "with NAME.zip), or what torch.save wrote: Data, a list of Data, Batch, or a tuple of tensors, which "
        "are then the arguments themselves (default: a dozen synthetic molecule-like graphs)",
    )
    parser.add_argument(
        "--features",
        type=_positive,
        metavar="F",
        help="number of features of the synthetic graphs (default: what the model's layers take, else 8)",
    )
    parser.add_argument(
        "--permutations", type=_positive, default=10, metavar="N", help="random permutations (default: 10)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="seed of weights, graphs, permutations (default: 0)",
    )
    parser.add_argument("--mode", choices=("eval", "train"), help="put the modules into this mode first")
    parser.add_argument(
        "--only",
        type=_checks,
        metavar="CHECKS",
        help=f"checks to make, separated by commas, of {', '.join(CHECKS)} "
        "(default: all but edges and positions)",
    )
    parser.add_argument("--edges", action="store_true", help="also shuffle the edges alone")
    parser.add_argument(
        "--exact-scatter",
        action="store_true",
        help="check the model under readouts.exact_scatter(), also with the edges alone shuffled: a "
        "difference that remains comes from a matrix product, a sum over all edges, or a fault",
    )
    parser.add_argument("--positions", action="store_true", help="also rotate and shift the positions pos")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="stop after this time, with the verdicts known so far",
    )
    parser.add_argument("--no-shrink", action="store_true", help="do not make counterexamples smaller")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="print details also of checks that found no fault"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _checks(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in CHECKS:
            raise argparse.ArgumentTypeError(f"expected {', '.join(CHECKS)}, got {name!r}")
    return names


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text!r}")
    return seconds


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Check a model, print the results, and return the exit code."""
    if arguments.features and arguments.data:
        raise CannotRunError("--features: expected without --data, which determines the number of features")
    if arguments.data and Path(arguments.data).suffix and not Path(arguments.data).exists():
        raise CannotRunError(f"--data: cannot read {arguments.data}: FileNotFoundError: no such file")
    from readouts.commands import limits  # PyG is imported here, and not for --help
    from readouts.testing.progress import TimeUpError

    try:
        exact = exact_scatter() if arguments.exact_scatter else contextlib.nullcontext()
        with limits.time_limit(arguments.timeout), exact:
            return _run(arguments, limits.LimitedProgress(arguments.timeout))
    except TimeUpError:
        raise CannotRunError(f"--timeout: nothing was checked within {arguments.timeout:g} s") from None


def _run(arguments: argparse.Namespace, stage: Callable[[str, float | None], None]) -> int:
    from readouts.commands import inputs, results
    from readouts.testing.progress import Listener

    out = sys.stdout
    waiting: list[str] = []

    def tell(text: str) -> None:
        if not arguments.json:
            print(*waiting, text, sep="\n", file=out, flush=True)
            waiting.clear()

    extra = [name for name in ("edges", "positions") if getattr(arguments, name)]
    if arguments.exact_scatter and not arguments.only and "edges" not in extra:
        extra.insert(0, "edges")
    only = arguments.only or (*results.DEFAULT, *extra)
    listener = Listener(
        stage,
        lambda report: tell(results.verdict_line(report)),
        not arguments.no_shrink,
        arguments.verbose or arguments.json,
    )
    with contextlib.redirect_stdout(sys.stderr):  # the model may print
        torch.manual_seed(arguments.seed)
        model = build(arguments.target)
        if arguments.mode:
            inputs.set_mode(model, training=arguments.mode == "train")
        call = inputs.prepare(model, arguments.data, arguments.features, arguments.seed)
        waiting.append(f"{call.text} on {call.data}")  # printed with the first verdict
        found = results.check_all(
            call,
            arguments.permutations,
            arguments.seed,
            [*only, *extra],
            listener,
            lambda check, reason: tell(f"{'not checked':<16}{check}: {reason}"),
        )
    if arguments.json:
        print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        tell(found.details(arguments.verbose))
    return 0 if found.invariant else 1
