"""Check whether a model is permutation invariant, and if not, name the layer that broke it.

TARGET is package.module:name, from the current folder as well: a module, a class or function that makes
one without arguments, or any function of graphs. A module made from a class is put into evaluation mode;
everything else is checked in the mode that it is in, or in that of --mode.

What a model is given is read from the names of its parameters: x, edge_index, edge_attr, edge_weight, pos,
z, batch and other tensors of the batch, or ptr, size, num_graphs and num_nodes, by position. Parameters
with a default keep it, except x, edge_index and batch. A single parameter of another name, or one that is
called batch, gets the PyG Batch.

exit code: 0 invariant (identical bits or rounding), 1 not (broken or random), 2 cannot be run
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys

import torch

from readouts.commands.target import CannotRunError, build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("target", metavar="TARGET", help="the model, as package.module:name")
    parser.add_argument(
        "--data",
        metavar="NAME|FILE.pt",
        help="the first 32 graphs of a TU set (from the TU site, or from READOUTS_TU_MIRROR, a folder or URL "
        "with NAME.zip), or what torch.save wrote: Data, a list of Data, Batch, or a tuple of tensors, which "
        "are then the arguments themselves (default: a dozen molecule-like graphs made by code)",
    )
    parser.add_argument(
        "--features",
        type=_positive,
        metavar="F",
        help="number of features of the graphs made by code (default: what its layers take, else 8)",
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
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Check a model, print the results, and return the exit code."""
    if arguments.features and arguments.data:
        raise CannotRunError("--features: expected without --data, whose features are what they are")
    from readouts.commands import inputs, results  # PyG is imported here, and not for --help

    with contextlib.redirect_stdout(sys.stderr):  # the model may print
        torch.manual_seed(arguments.seed)
        model = build(arguments.target)
        if arguments.mode:
            inputs.set_mode(model, training=arguments.mode == "train")
        call = inputs.prepare(model, arguments.data, arguments.features, arguments.seed)
        found = results.check_all(call, arguments.permutations, arguments.seed)
    print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if arguments.json else found)
    return 0 if found.invariant else 1
