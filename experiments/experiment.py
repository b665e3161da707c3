"""What an experiment is: one record with its words, its options, and what measures, tabulates and judges.

Example, all of `experiments/toy.py`:

    def measure(sets, log, seed):
        return [row for graphs in sets for row in log.measure(
            {"data": graphs.name, "readout": None, "seed": seed, "fold": None},
            ("graphs",), lambda: {"graphs": len(graphs)})]

    EXPERIMENT = Experiment(name="toy", title="Toy", question="How many graphs has a set?", ...)

`prepare`, `measure`, `figure` and `notes` receive the options that they name, besides the arguments below:

    prepare(graphs, ...) -> task        of each set; the set itself where there is nothing to prepare
    measure(tasks, log, ...) -> rows    appends rows to the log; all that follows only reads rows
    tables(rows), findings(rows), numbers(rows)
    figure(rows, out, sets, tasks) -> paths
    notes(tasks, rows, ...) -> sentences for the reader
"""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from experiments.console import Table
from experiments.digest import digest
from experiments.options import COMMON, OF_THE_READER, PARALLEL, RINGS, Option
from experiments.records import Row

MOST_TOLD = 100
WORDS = {True: "as claimed", False: "not as claimed", None: "undecided"}


@dataclass(frozen=True)
class Finding:
    """What came of a claim in one case, say on one set: whether it holds (None: undecided), and its numbers.

    A check is a theorem, a count or a test of the implementation; a finding could have come out otherwise.
    Those with `main` decide the verdict on the experiment.
    """

    claim: str
    holds: bool | None
    numbers: str
    kind: Literal["check", "finding"] = "finding"
    main: bool = True

    @property
    def sentence(self) -> str:
        """The finding in words, for people."""
        return f"{self.claim}: {WORDS[self.holds]}, {self.numbers}."


def verdict(findings: Iterable[Finding]) -> str:
    """In how many cases the claim of an experiment holds, in words."""
    cases = [finding.holds for finding in findings if finding.main]
    good, undecided = sum(case is True for case in cases), sum(case is None for case in cases)
    if undecided == len(cases):
        return "undecided" if cases else "not asked"
    if good == len(cases):
        return "holds"
    word = f"holds in {good} of {len(cases)}" if good else "does not hold"
    return f"{word}, undecided in {undecided}" if undecided else word


class Words:
    """A record whose texts are written over several lines, and are one line each."""

    def __post_init__(self) -> None:
        """Join the lines of every text."""
        for name, value in vars(self).items():
            object.__setattr__(self, name, joined(value))


def joined(value: Any) -> Any:
    """A text, or texts, on one line; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(map(joined, value))
    return " ".join(map(str.strip, value.split("\n"))) if isinstance(value, str) else value


@dataclass(frozen=True)
class Drawing(Words):
    """The words of a figure: all files whose names begin with `name`, what is seen, and how it is read."""

    name: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Published(Words):
    """A work's numbers by set, and which of ours stand beside: `shown` from the lines of these readouts."""

    work: str
    what: str
    protocol: str
    why: str
    values: Mapping[str, str]
    network: str
    readouts: Sequence[str]
    shown: str


@dataclass(frozen=True, kw_only=True)
class Experiment(Words):
    """An experiment; `claim` is the short form of `theory`, and Markdown is allowed in all words."""

    name: str
    title: str
    question: str
    claim: str
    theory: str
    setup: str
    source: str
    caveats: Sequence[str]
    measure: Callable[..., Sequence[Row]]
    tables: Callable[[Sequence[Row]], Iterable[Table]]
    findings: Callable[[Sequence[Row]], Iterable[Finding]]
    numbers: Callable[[Sequence[Row]], str]
    figure: Callable[..., Sequence[Path]]
    prepare: Callable[..., Any] | None = None
    notes: Callable[..., Iterable[str]] | None = None
    aside: Callable[..., Iterable[str]] | None = None  # lines for the terminal alone
    alt: str = ""  # with `caption`, the words of the figure that has the name of the experiment
    caption: str = ""
    drawings: Sequence[Drawing] = ()  # those of all figures; only further ones have to be given
    options: Mapping[str, Option] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)  # options of `all --quick`
    takes_numbers: bool = False  # sets whose targets are numbers, as well as those with classes
    data: Sequence[str] | None = tuple(RINGS)  # the default; None: takes no sets, and runs on the CPU
    example: Sequence[str] = ()  # options that the command needs
    on_device: bool = True
    in_all: bool = True
    parallel: bool = False  # takes --jobs and --scheduler: `measure` calls `experiments.jobs.carry_out`
    one_thread: bool = True  # a number then does not depend on how many cores there are
    published: Sequence[Published] = ()

    def __post_init__(self) -> None:
        """Put the drawing of its own name among all."""
        super().__post_init__()
        own = Drawing(self.name.partition("-")[0], self.alt, self.caption)
        if self.alt and own not in self.drawings:
            object.__setattr__(self, "drawings", (own, *self.drawings))

    @property
    def parameters(self) -> dict[str, Option]:
        """All options of the command, by name."""
        if self.data is None:
            common = {name: COMMON[name] for name in ("out", "seed")}
        else:
            common = COMMON | {"data": Option(COMMON["data"].kind, list(self.data))}
        return common | dict(self.options) | (PARALLEL if self.parallel else {})

    @property
    def sources(self) -> tuple[Callable[..., Any], ...]:
        """The functions that measure."""
        from datasets import load

        of_data = (load,) if self.data is not None else ()
        return (self.measure, *((self.prepare,) if self.prepare else ()), *of_data)

    def code(self, device: str) -> str:
        """A digest of the code that measures on a device."""
        return digest(self.sources, device)


def command_line(name: str, parameters: Mapping[str, Option], given: Mapping[str, Any]) -> str:
    """The command with every option that is not at its default.

    Where data come from, where results go and who computes is left to the reader: no number depends on it.
    """
    words = ["python", "-m", "experiments", name]
    for option, parameter in parameters.items():
        value = given.get(option, parameter.default)
        if option in OF_THE_READER or value == parameter.default:
            continue
        words.append(f"--{option.replace('_', '-')}")
        if not isinstance(value, bool):
            words += map(str, value) if isinstance(value, list) else [str(value)]
    return shlex.join(words)


def call(function: Callable[..., Any], *arguments: Any, given: Mapping[str, Any]) -> Any:
    """Call a function with these arguments, and with the given ones that it names."""
    names = list(inspect.signature(function).parameters)[len(arguments) :]
    return function(*arguments, **{name: given[name] for name in names if name in given})


def sentences(tasks: Iterable[Any], rows: Sequence[Row]) -> Iterator[str]:
    """What each task says of itself, as notes."""
    return (task.sentence for task in tasks)


def span(values: Iterable[float], form: str = ".1f") -> str:
    """The least and the greatest, or the one number that they are when written."""
    ends = sorted(values)
    low, high = (f"{end:{form}}" for end in (ends[0], ends[-1]))
    return low if low == high else f"{low} to {high}"


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: a number then does not depend on how many cores there are."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def told(findings: Sequence[Finding]) -> list[str]:
    """All findings in words; of more than anyone reads, how many there are: the tables have them."""
    if len(findings) <= MOST_TOLD:
        return [finding.sentence for finding in findings]
    count = {holds: sum(finding.holds is holds for finding in findings) for holds in WORDS}
    return ["; ".join(f"{number} {WORDS[holds]}" for holds, number in count.items() if number) + "."]
