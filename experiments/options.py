"""Options that commands share, and what they stand for."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from experiments.console import UserError, say, tracked, writing

if TYPE_CHECKING:
    from datasets import GraphSet


class DeviceName(StrEnum):
    """Where the networks run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class TaskName(StrEnum):
    """What is predicted."""

    classification = "classification"
    regression = "regression"


class Command(TyperCommand):
    """A command whose options take all the values that follow them: `--data A B` is `--data A --data B`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat options of many values before the parser sees them."""
        for parameter in self.params:
            if getattr(parameter, "multiple", False):
                args = repeat_option(parameter.opts[0], args)
        return super().parse_args(ctx, args)


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


def one_of(option: str, known: Collection[str]) -> Callable[[list[str]], list[str]]:
    """Make the check of an option that takes names, before anything slow is imported."""

    def check(names: list[str]) -> list[str]:
        for name in names:
            if name not in known:
                raise UserError(f"--{option}: expected one of {', '.join(known)}, got {name}.")
        return names

    return check


def check_out(folder: Path) -> Path:
    """Raise `UserError` unless the folder is there or can be made, and files can be written into it."""
    with writing(folder):
        place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with tempfile.TemporaryFile(dir=place):
            return folder


def check_device(device: DeviceName) -> DeviceName:
    """Raise `UserError` where CUDA is asked for and is not there."""
    if device is DeviceName.cuda:
        resolve(device)
    return device


def check_scheduler(address: str | None) -> str | None:
    """Raise `UserError` unless the address has a port."""
    if address is not None and not re.search(r":\d+/?$", address):
        expected = "expected an address such as tcp://host:8786"
        raise UserError(f"--scheduler: no Dask scheduler answers at {address}: {expected}.")
    return address


@dataclass(frozen=True)
class Option:
    """The annotated type of a command's option, as Typer wants it, and its default."""

    kind: Any
    default: Any


def option(kind: Any, default: Any, text: str, *names: str, **settings: Any) -> Option:
    """An option with its help; `settings` are Typer's."""
    return Option(Annotated[kind, typer.Option(*names, help=text, **settings)], default)


def number(default: int | None, least: int, text: str, show_default: str | bool = True) -> Option:
    """An option that is a whole number; `show_default` says what stands for None."""
    return option(int | None if default is None else int, default, text, min=least, show_default=show_default)


def names(name: str, known: Collection[str], default: Sequence[str] = ()) -> Option:
    """An option that takes names, all by default where none is given."""
    text, shown = f"One or more of {', '.join(known)}.", True if default else "all"
    check = one_of(name, known)
    return option(list[str], list(default), text, metavar="NAME...", callback=check, show_default=shown)


def flag(text: str, name: str) -> Option:
    """An option that is there or not."""
    return option(bool, False, text, f"--{name}")


RINGS = ["rings"]
DATA = (
    "rings (built in), TU sets, as in --data MUTAG PTC_MR, or your own: FILE.csv, .tsv or .smi with SMILES, "
    "FILE.pt of PyG graphs, or package.module:function."
)
PREDICTED = "What to predict, by the name of its column or attribute."
WHERE = "The folder for rows and figures; a rerun continues there."
COMMON = {
    "data": option(list[str], RINGS, DATA, metavar="DATA..."),
    "target": option(str | None, None, PREDICTED, metavar="COLUMN"),
    "task": option(TaskName | None, None, "What targets are.", show_default="as the values suggest"),
    "trust": flag("Load any class from a FILE.pt: the file may run code.", "trust"),
    "mirror": option(
        str | None, None, "A folder or URL with NAME.zip files, for TU sets.", envvar="READOUTS_TU_MIRROR"
    ),
    "out": option(Path, Path("results"), WHERE, file_okay=False, callback=check_out),
    "device": option(
        DeviceName,
        DeviceName.auto,
        "Where networks run; auto takes CUDA if there is one.",
        callback=check_device,
    ),
    "seed": option(int, 0, "The number that everything random starts from.", min=0, max=2**31),
}
PARALLEL = {
    "jobs": number(1, 1, "Processes, of one thread each."),
    "scheduler": option(
        str | None,
        None,
        "Of a Dask scheduler, as tcp://host:8786: its workers compute.",
        metavar="ADDRESS",
        callback=check_scheduler,
    ),
}
OF_FOLDS = "Folds of the cross-validation."
FOLDS = number(4, 2, OF_FOLDS)
FOLDS_OF_CLASSES = number(None, 2, OF_FOLDS, show_default="10, or the smallest class")
OF_DATA = ("mirror", "target", "task", "trust")
OF_THE_READER = ("mirror", "trust", "out", "jobs", "scheduler")


def load_sets(names: Sequence[str], given: Mapping[str, Any], takes_numbers: bool = False) -> list[GraphSet]:
    """Load each set once, in the order given, and tell what loading did to it; `given` are the options."""
    from datasets import load
    from readouts.commands.tu.errors import DataError

    try:
        options = {name: given[name] for name in OF_DATA}
        sets = [load(name, **options) for name in tracked(list(dict.fromkeys(names)), "loading")]
    except DataError as problem:
        raise UserError(str(problem)) from problem
    for graphs in sets:
        if graphs.classes == 0 and not takes_numbers:
            raise UserError(
                f"{graphs.name}: expected classes, got numbers, which only accuracy predicts; or pass "
                "--task classification where every number is a class."
            )
        if not any(graph.num_nodes for graph in graphs):
            raise UserError(f"{graphs.name}: expected graphs with nodes, got none.")
    say(*(f"{graphs.name}: {note}" for graphs in sets for note in notes_on(graphs)))
    return sets


def notes_on(graphs: GraphSet) -> Iterator[str]:
    """What a reader has to know about a set: what loading changed, and what networks do not read."""
    yield from graphs.notes
    if graphs.edge_features and graphs.own:
        yield f"{graphs.edge_features} are not read"


def resolve(device: DeviceName) -> str:
    """The device to use; `auto` is CUDA where there is one."""
    import torch

    if device is DeviceName.cuda and not torch.cuda.is_available():
        raise UserError(f"--device cuda: PyTorch {torch.__version__} finds no CUDA device here.")
    return "cuda" if device is not DeviceName.cpu and torch.cuda.is_available() else "cpu"
