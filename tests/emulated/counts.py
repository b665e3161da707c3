"""Count what the GPU kernels execute, on the emulator, and write the table of docs/gpu.md.

`make counts`, or `python -m emulated.counts docs/gpu.md` with the clone and its tests in PYTHONPATH. Of some
shapes fewer graphs of the same sizes are run, and counted per number.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
import triton
from emulated.driver import Launch, emulated, program_of
from emulated.model import CHIPS, cost_of
from torch import Tensor

import readouts.kernels.triton as kernels
from readouts import ops
from readouts.kernels.triton import elementary, grouping
from readouts.kernels.triton import order as order_statistics
from readouts.reductions import needs_x

BEGIN, END = "<!-- counts: begin -->", "<!-- counts: end -->"
TRIPLE, FIVE, MEDIAN = ("sum", "mean", "max"), ("sum", "mean", "max", "min", "std"), ("median",)
TRAINING = "forward in training"  # keeps more
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
COLUMNS = (
    "launch",
    "registers",
    "stack [B]",
    "warps",
    "issue slots",
    "integer",
    "FP64",
    "barriers",
    "bytes",
)
TIMES = ("batch", *(f"{chip}, {what}" for chip in CHIPS for what in ("memory", "predicted")))


@dataclass(frozen=True)
class Case:
    """A batch of graphs of one size; `run` of them are emulated, and counts are those of all of them."""

    graphs: int
    nodes: int
    features: int
    run: int
    names: tuple[str, ...] = TRIPLE
    dtype: torch.dtype = torch.float32
    shuffled: bool = False

    @property
    def name(self) -> str:
        """What the table calls it."""
        dtype = str(self.dtype).removeprefix("torch.")
        order = ", unsorted" if self.shuffled else ""
        return f"{self.graphs}x{self.nodes}x{self.features}{order}, {'+'.join(self.names)}, {dtype}"

    @property
    def directions(self) -> tuple[str, ...]:
        """What is counted; the gradient of a median is that of an extreme."""
        if self.names == MEDIAN:
            return ("forward",)
        return "grouping", "forward", *((TRAINING,) if needs_x(self.names) else ()), "backward"

    @property
    def numbers(self) -> int:
        """Entries of x."""
        return self.graphs * self.nodes * self.features

    def make(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Features, index, ptr and order of the graphs that are run."""
        generator = torch.Generator().manual_seed(0)
        index = torch.arange(self.run).repeat_interleave(self.nodes)
        if self.shuffled:
            index = index[torch.randperm(len(index), generator=generator)]
        x = torch.randn(len(index), self.features, generator=generator).to(self.dtype)
        return x, index, *ops.group(index, self.run)


CASES = (
    Case(4096, 30, 256, 256),
    Case(128, 18, 64, 128),
    Case(64, 20_000, 64, 8),
    Case(1, 1_000_000, 64, 1),
    Case(100_000, 10, 64, 10_000, ("sum",), shuffled=True),
    Case(4096, 30, 256, 256, dtype=torch.float16),
    Case(4096, 30, 256, 256, dtype=torch.float64),
    Case(4096, 30, 256, 256, FIVE),
    Case(4096, 30, 256, 256, MEDIAN),
    Case(4096, 300, 64, 64, MEDIAN),
)


@dataclass(frozen=True)
class Counted:
    """What a launch did for each number of the batch, in instructions of warps, and what it needs."""

    kernel: str
    warps: int  # of a program
    barriers: float  # in a program
    counts: dict[str, float]
    moved: float
    registers: int
    stack: int

    @property
    def line(self) -> list[str]:
        """Its line of the table."""
        resident = CHIPS["H100"].resident_warps(self.registers, self.warps)
        cost = cost_of(self.counts)
        shown = (*(32 * cost[pipe] for pipe in ("issue", "alu", "fp64")), self.barriers, self.moved)
        return [self.kernel, *map(str, (self.registers, self.stack, resident)), *(f"{n:.1f}" for n in shown)]


def count(case: Case) -> dict[str, list[Counted]]:
    """The launches of each direction."""
    groups = *case.make(), case.names
    x, *batch = groups
    found: dict[str, list[Counted]] = {direction: [] for direction in case.directions}

    def watch(direction: str) -> contextlib.AbstractContextManager[object]:
        return emulated(functools.partial(observe, found[direction], x.numel()))

    if case.names == MEDIAN:
        middle = torch.tensor([(case.nodes - 1) // 2, case.nodes // 2])
        with watch("forward"):
            order_statistics.midpoint(x, *batch[:-1], middle.expand(case.run, 2))
        return found
    with watch("grouping"):
        grouping.group(batch[0], case.run)
    programs = elementary.PROGRAMS * case.run // case.graphs  # so pieces are as large as those of all graphs
    with mock.patch.object(elementary, "PROGRAMS", programs):
        with watch("forward"):
            out, kept = elementary.reduce(*groups), None
        if TRAINING in found:
            with watch(TRAINING):
                out, kept = elementary.reduce_keeping(*groups)
        with watch("backward"):
            elementary.reduce_backward(torch.ones_like(out), x, out, *batch, kept)
    return found


def observe(found: list[Counted], numbers: int, launch: Launch) -> None:
    """Run a launch, and note what it did; one of no programs only compiles."""
    if 0 in launch.grid:
        return
    program = program_of(launch.text)
    before = program.counts
    report = program.run(launch.grid, launch.parameters, launch.shared, launch.ranges)
    done = program.counts - before
    barriers = sum(n for operation, n in done.items() if operation.startswith("bar"))
    found.append(
        Counted(
            launch.name,
            program.warps,
            barriers / (report.programs * program.warps),
            {operation: n / numbers for operation, n in done.items()},
            (report.loaded + report.stored) / numbers,
            *resources_of(launch.binary),
        )
    )


@functools.cache
def resources_of(binary: bytes) -> tuple[int, int]:
    """Registers and bytes of stack of a thread."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        said = subprocess.check_output([TOOLS / "cuobjdump", "-res-usage", file.name], text=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    assert found, said
    return int(found[1]), int(found[2])


def predicted(case: Case, launches: Sequence[Counted]) -> Iterator[str]:
    """Microseconds that memory alone allows, and that instructions and memory do, for each chip."""
    for chip in CHIPS.values():
        times = [chip.microseconds(cost_of(one.counts), one.moved) for one in launches]  # of one number
        for total in (sum(time["bandwidth"] for time in times), sum(max(time.values()) for time in times)):
            yield rounded(case.numbers * total)


def rounded(value: float) -> str:
    """Two digits, without an exponent."""
    return f"{float(f'{value:.2g}'):,g}"


def tables(cases: Sequence[Case]) -> str:
    """Both tables, in Markdown, and what they were made with."""
    counts, times = [], []
    for case in cases:
        for direction, launches in count(case).items():
            name = f"{case.name}, {direction}"
            counts += [[f"*{name}*", *[""] * (len(COLUMNS) - 1)], *(one.line for one in launches)]
            times.append([name, *predicted(case, launches)])
    made_with = f"Triton {triton.__version__}, sm_90, kernels `{digest()}`"
    return "\n\n".join(
        [
            f"Counts, {made_with}:",
            markdown(COLUMNS, counts),
            "Predictions, in microseconds:",
            markdown(TIMES, times),
        ]
    )


def digest() -> str:
    """A hash of the sources of the kernels."""
    sources = sorted(Path(kernels.__path__[0]).glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


def markdown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text."""
    rule = ["---", *["--:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rule, *lines))


def rewrite(page: str, text: str) -> str:
    """A page with another text between the two markers."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    path = parser.parse_args().page
    path.write_text(rewrite(path.read_text(), tables(CASES)))
