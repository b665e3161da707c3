"""Print which kernels this installation of readouts uses, and why.

READOUTS_ISA=baseline, avx2, avx512 or neon chooses the instruction set of the native core, none turns it off.
Without the core, PyTorch kernels return the same bits, more slowly.

exit code: 0 always
"""

from __future__ import annotations

import argparse
import json
import platform
from importlib import metadata
from typing import Any

import torch

import readouts
from readouts.kernels.native.library import core

CERTIFICATES = {
    True: "the processor's inexact flag",
    False: "bounds on exponents; the inexact flag does not work here",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print the facts and return the exit code."""
    found = facts()
    print(json.dumps(found, indent=2) if arguments.json else _table(found))
    return 0


def facts() -> dict[str, Any]:
    """Return versions, the kernels in use, and the platform; None for what is missing."""
    return {
        "readouts": readouts.__version__,
        "native_core": core.isa is not None,
        "reason": core.reason or None,
        "instruction_set": core.isa,
        "flag_certifies_sums": bool(core.flag_works()) if core.isa else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "torch_geometric": _version("torch_geometric"),
        "triton": _version("triton"),
        "cuda_device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _table(found: dict[str, Any]) -> str:
    rows = {"readouts": found["readouts"]}
    if found["native_core"]:
        rows["native core"] = f"in use, {found['instruction_set']}"
        rows["sums certified by"] = CERTIFICATES[found["flag_certifies_sums"]]
    else:
        rows["native core"] = f"not in use: {found['reason']}"
    rows["threads"] = found["threads"]
    rows["python"] = f"{found['python']} on {found['platform']}"
    for name in ("torch", "torch_geometric", "triton"):
        rows[name] = found[name] or "not installed"
    rows["CUDA device"] = found["cuda_device"] or "none"
    return "\n".join(f"{name:<18} {value}" for name, value in rows.items())
