"""A driver for Triton without a GPU: kernels on CPU tensors are compiled as for one, and then emulated."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from emulated.program import Program
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

PROPERTIES = {"max_shared_mem": 232448, "multiprocessor_count": 132, "max_num_regs": 65536, "warpSize": 32}
_numbers = itertools.count(90)  # one for each driver, for Triton keeps what it has compiled by device


@dataclass(frozen=True)
class Launch:
    """What Triton starts: a kernel, its grid, its arguments without constants, assembly and binary."""

    name: str
    grid: tuple[int, int]
    arguments: tuple[Any, ...]
    shared: int
    text: str
    binary: bytes

    @property
    def parameters(self) -> list[int]:
        """The arguments as bits."""
        return [a.data_ptr() if isinstance(a, Tensor) else int(a) for a in self.arguments]

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The memory of all tensors."""
        tensors = [a for a in self.arguments if isinstance(a, Tensor) and a.numel()]
        return [(t.data_ptr(), t.data_ptr() + t.numel() * t.element_size()) for t in tensors]


class EmulatedDriver:
    """What Triton asks of a driver; `compiled` and `launches` list what there was so far."""

    def __init__(self, start: Start, architecture: int) -> None:
        self.utils = SimpleNamespace(load_binary=self._load, get_device_properties=lambda device: PROPERTIES)
        self.compiled: list[str] = []
        self.launches: list[Launch] = []
        self._start, self._target, self._device = start, GPUTarget("cuda", architecture, 32), next(_numbers)
        self._text = ""

    def find_text(self, module: Any, function: Any, name: str, files: dict[str, str], key: str) -> None:
        """Remember the PTX of the kernel that is loaded next; a hook of Triton's."""
        self._text = next(Path(path).read_text() for file, path in files.items() if file.endswith(".ptx"))

    def _load(self, name: str, binary: bytes, shared: int, device: int) -> tuple[Any, ...]:
        self.compiled.append(name)
        return 1, (self._text, binary), 0, 0, 1024

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        """Make what Triton calls to start a compiled kernel."""
        kinds = list(source.signature.values())

        def launch(width: int, height: int, depth: int, stream: int, code: Any, *rest: Any) -> None:
            assert depth == 1
            pairs = zip(rest[-len(kinds) :], kinds, strict=True)
            given = tuple(argument for argument, kind in pairs if kind != "constexpr")
            driver.active.begin(Launch(source.fn.__name__, (width, height), given, metadata.shared, *code))

        return launch

    def begin(self, launch: Launch) -> None:
        """Begin a launch."""
        self.launches.append(launch)
        self._start(launch)

    def get_current_device(self) -> int:
        """The number of the device."""
        return self._device

    def get_current_stream(self, device: int | None = None) -> int:
        """The only stream."""
        return 0

    def get_current_target(self) -> GPUTarget:
        """What to compile for."""
        return self._target

    def get_active_torch_device(self) -> torch.device:
        """Where the tensors are."""
        return torch.device("cpu")


Start = Callable[[Launch], object]
program_of = functools.cache(Program)


def run(launch: Launch, reverse: bool = False) -> None:
    """Emulate all programs of a launch."""
    program = program_of(launch.text)
    program.run(launch.grid, launch.parameters, launch.shared, launch.ranges, reverse)


@contextmanager
def emulated(start: Start = run, architecture: int = 90) -> Iterator[EmulatedDriver]:
    """Give what Triton would launch on a GPU of this architecture to `start`."""
    found, before = EmulatedDriver(start, architecture), driver._active
    driver.set_active(found)
    knobs.runtime.kernel_load_start_hook.add(found.find_text)
    try:
        yield found
    finally:
        knobs.runtime.kernel_load_start_hook.remove(found.find_text)
        driver._active = before


@contextmanager
def specialisations() -> Iterator[set[str]]:
    """Collect the keys of all kernels that would be compiled; nothing is compiled or run."""
    found: set[str] = set()

    def instead(*, key: str, **description: Any) -> bool:
        found.add(key)
        return True

    with emulated():
        before, knobs.runtime.jit_cache_hook = knobs.runtime.jit_cache_hook, instead
        try:
            yield found
        finally:
            knobs.runtime.jit_cache_hook = before
