"""A PTX kernel as a program of this machine: built once, kept in the user's cache, run on tensors."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from emulated.translate import Ptx, Translator

HEADER = Path(__file__).with_name("emulator.h")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "readouts" / "emulated"
BUILD = ["g++", "-O0", "-std=c++17", "-w", "-fno-strict-aliasing", "-ffp-contract=off", "-fPIC", "-shared"]
FAULTS = (
    "",
    "an access outside of all tensors",
    "an access at an address that is no multiple of its size",
    "an access outside of shared memory",
    "a failed assertion",
    "threads that wait at different barriers",
    "threads that wait for others that are done or elsewhere",
)


ASSERTION = FAULTS.index("a failed assertion")


class FaultError(Exception):
    """What no program on a GPU may do."""


class AssertionFaultError(FaultError):
    """An assertion on the device that failed."""


class Report(ctypes.Structure):
    """What a launch did, as in emulator.h."""

    _fields_ = [
        (name, ctypes.c_uint64) for name in ("programs", "loaded", "stored", "fault", "address", "statement")
    ]


class Program:
    """A kernel that can be run, with counts of all that it has done."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.ptx = Ptx(text)
        translator = Translator(self.ptx)
        source = translator.source
        self._blocks = translator.counts
        self._entered = (ctypes.c_uint64 * len(self._blocks))()
        self._library = ctypes.CDLL(str(build(source)))

    def run(
        self,
        grid: Sequence[int],
        parameters: Sequence[int],
        shared: int,
        ranges: Sequence[tuple[int, int]],
        reverse: bool = False,
        part: range | None = None,
    ) -> Report:
        """Run all programs of a grid, or a part of its first dimension; raises a FaultError."""
        words = [parameter % 2**64 for parameter in parameters]
        words += [0] * (len(self.ptx.parameters) + 1 - len(words))
        ends = [end for pair in ranges for end in pair]
        report = Report()
        begin, end = (part.start, part.stop) if part else (0, grid[0])
        self._library.run(
            (ctypes.c_uint32 * 4)(*grid, begin, end),
            (ctypes.c_uint64 * len(words))(*words),
            ctypes.c_uint32(shared),
            (ctypes.c_uint64 * max(len(ends), 1))(*ends),
            len(ranges),
            int(reverse),
            ctypes.byref(report),
            self._entered,
        )
        if report.fault:
            text = self.ptx.statements[report.statement]
            kind = AssertionFaultError if report.fault == ASSERTION else FaultError
            raise kind(f"{self.ptx.name}: {FAULTS[report.fault]} ({report.address:#x}), in: {text}")
        return report

    @property
    def counts(self) -> Counter[str]:
        """How many instructions of warps were executed so far, by operation."""
        found: Counter[str] = Counter()
        for times, operations in zip(self._entered, self._blocks, strict=True):
            for operation, number in operations.items():
                found[operation] += times * number
        return found

    @cached_property
    def warps(self) -> int:
        """Warps of a program."""
        return self.ptx.threads // 32


def build(source: str) -> Path:
    """Compile a source to a library, unless the cache has it."""
    known = hashlib.sha256("\0".join([source, HEADER.read_text(), *BUILD]).encode()).hexdigest()
    library = CACHE / f"{known[:24]}.so"
    if not library.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = library.with_suffix(f".{os.getpid()}")
        command = [*BUILD, f"-I{HEADER.parent}", "-x", "c++", "-", "-o", str(unfinished)]
        run = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
        if run.returncode:
            raise RuntimeError(run.stderr[:2000])
        unfinished.rename(library)
    return library
