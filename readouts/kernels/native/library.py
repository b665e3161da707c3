"""Find, check and load the shared library of the native core; without it, portable kernels are used."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

INSTRUCTION_SETS = ("baseline", "avx2", "avx512", "neon")
INDEX_ERROR, PTR_ERROR, DTYPE_ERROR = (
    -1,
    -2,
    -3,
)  # status for an index out of range, wrong offsets, a wrong dtype
DTYPES = {
    torch.float64: 0,
    torch.float32: 1,
    torch.float16: 2,
    torch.bfloat16: 3,
    torch.int64: 4,
    torch.int32: 5,
    torch.int16: 6,
    torch.int8: 7,
    torch.uint8: 8,
    torch.bool: 8,
}
_FILE = Path(__file__).parent / f"libreadouts_core.{'dylib' if sys.platform == 'darwin' else 'so'}"
ARGUMENTS = {  # number of arguments, 8 bytes each
    "greatest": 3,
    "group": 5,
    "order": 6,
    "expand_ptr": 4,
    "reduce": 12,
    "reduce_batch": 12,
    "update": 11,
    "add_rows": 9,
    "list_old": 6,
    "is_zero": 2,
    "reduce_integers": 12,
    "reduce_backward": 15,
    "reduce_backward_batch": 14,
    "select": 13,
    "keep": 12,
    "trim_backward": 12,
    "weighted_mean": 12,
    "scale_rows": 10,
    "weight_gradient": 12,
    "add_limbs": 13,
    "set_flag_works": 1,
    "flag_works": 0,
    "set_team": 1,
    "default_word": 0,
    "restore_word": 1,
}
_RETURN_INT64 = ("greatest", "default_word")


class Core:
    """The functions of the core, without their prefix, or the reason why the core is not in use.

    Attributes:
        isa: instruction set in use; None without the core.
        reason: one sentence on why the core is not in use; empty if it is.
    """

    def __init__(self, file: Path = _FILE, wanted: str | None = None) -> None:
        """Load a library file; `wanted` is an instruction set, "none", or None for the best one."""
        self.isa: str | None = None
        self.reason = ""
        try:
            self._load(file, wanted)
        except (OSError, AttributeError) as problem:
            self.reason = f"the native core cannot be loaded ({problem})"

    def _load(self, file: Path, wanted: str | None) -> None:
        if wanted == "none":
            self.reason = "READOUTS_ISA=none switches the native core off"
        elif wanted is not None and wanted not in INSTRUCTION_SETS:
            names = ", ".join((*INSTRUCTION_SETS, "none"))
            self.reason = f"READOUTS_ISA: expected one of {names}, got {wanted!r}"
        elif not file.exists():
            self.reason = "no native core: run `make core` in a clone, or install again with a C++ compiler"
        elif file.is_file() and not _is_whole(file):
            self.reason = f"the native core cannot be loaded ({file} is damaged)"
        else:
            self._open(ctypes.CDLL(str(file)), wanted)

    def _open(self, library: ctypes.CDLL, wanted: str | None) -> None:
        functions = {name: getattr(library, f"readouts_{name}") for name in ARGUMENTS}
        library.readouts_choose.restype = ctypes.c_char_p
        chosen = library.readouts_choose(None if wanted is None else wanted.encode())
        if chosen is None:
            self.reason = f"this processor has no {wanted}"
            return
        for name, function in functions.items():
            function.argtypes = [ctypes.c_void_p] * ARGUMENTS[name]  # for integers, too: the fastest
            function.restype = ctypes.c_int64 if name in _RETURN_INT64 else ctypes.c_int
            setattr(self, name, function)
        self.isa = chosen.decode()
        self.set_team(team_of_torch())

    def __getattr__(self, name: str) -> Any:
        """Raise an AttributeError that names the reason why the core is not in use."""
        raise AttributeError(f"{name}: {self.__dict__.get('reason', '')}")


def team_of_torch() -> int | None:
    """Return the address of GOMP_parallel in PyTorch's OpenMP runtime; None if PyTorch uses another runtime.

    PyTorch's threads are already running while a model runs. A second pool would have to be woken, and would
    compete for cores.
    """
    try:
        return ctypes.cast(ctypes.CDLL(torch._C.__file__).GOMP_parallel, ctypes.c_void_p).value
    except (OSError, AttributeError):
        return None


def _is_whole(file: Path) -> bool:
    """Return whether an ELF file is complete; loading a truncated one would end the process."""
    with file.open("rb") as stream:
        header = stream.read(64)
    if header[:5] != b"\x7fELF\x02":
        return sys.platform == "darwin"
    if len(header) < 64:
        return False
    (sections,) = struct.unpack_from("<Q", header, 40)
    length, number = struct.unpack_from("<HH", header, 58)
    return sections > 0 and sections + length * number <= file.stat().st_size


core = Core(wanted=os.environ.get("READOUTS_ISA") or None)
_warned = False


def is_available() -> bool:
    """Return whether the core is in use; warn once if it is missing and was not switched off."""
    global _warned
    if core.isa is None and not _warned:
        _warned = True
        if os.environ.get("READOUTS_ISA") != "none":
            warnings.warn(
                f"readouts: {core.reason}; slower kernels in plain PyTorch return the same bits", stacklevel=2
            )
    return core.isa is not None
