"""`python -m experiments gpu`: all stages within a budget of seconds."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import readouts
from experiments.console import UserError, say
from experiments.gpu import correctness, interface, speed
from experiments.gpu.rows import Run
from experiments.records import ROOT, commit, dirty

PACKAGES = ("torch", "triton", "torch_geometric", "torch_scatter", "pyg_lib")
STAGES = {"correctness": (correctness, 0.35), "interface": (interface, 0.55), "speed": (speed, 0.85)}
NSIGHT = ("SpeedOfLight", "Occupancy", "WarpStateStats", "LaunchStats")
PROFILED, LEAST = 120, 30  # seconds that Nsight Compute may take, and that it needs


def command(given: Mapping[str, Any]) -> None:
    """Run all stages on the GPU."""
    if not torch.cuda.is_available():
        raise UserError("gpu: expected a CUDA device, and PyTorch finds none.")
    if importlib.util.find_spec("triton") is None:
        raise UserError("gpu: expected Triton, and it is not installed.")
    run_all(given["out"], given["budget"], "cuda")


def run_all(folder: Path, budget: float, device: str) -> None:
    """Run all stages on a device; what a stage has not done in its share of the budget is left out."""
    run = Run(folder, budget, device)
    try:
        run.attempt("machine", {}, partial(machine, device))
        for stage, (module, share) in STAGES.items():
            run.attempt(stage, {"done": True}, partial(module.measure, run, share))
        if device == "cuda":
            run.attempt("negative index", {}, partial(negative, run))
            run.attempt("ncu", {}, partial(counters, run, folder))
        run.row("end")
    finally:
        run.close()
    say(f"wrote {run.path}")


def machine(device: str) -> dict[str, Any]:
    """The card, the versions and the commit."""
    versions = {name: metadata.version(name) for name in PACKAGES if importlib.util.find_spec(name)}
    versions |= {"python": platform.python_version(), "readouts": readouts.__version__}
    found: dict[str, Any] = {"versions": versions}
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {"card": card.name, "memory": card.total_memory, "processors": card.multi_processor_count}
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        found["driver"] = answer_of(query, 20).stdout.strip() if shutil.which(query[0]) else "unknown"
    return found | {"commit": commit(), "dirty": dirty()}


def negative(run: Run) -> dict[str, Any]:
    """Whether an index of -1 trips an assertion on the device."""
    answer = answer_of([sys.executable, "-m", "experiments.gpu.apart", "negative"], max(run.left(), LEAST))
    asserted = "assert" in answer.stderr.lower()
    return {"holds": asserted, "answer": (answer.stdout or answer.stderr).strip()[-200:]}


def counters(run: Run, folder: Path) -> dict[str, Any]:
    """Let Nsight Compute watch one call, and keep its table."""
    if shutil.which("ncu") is None:
        return {"absent": "ncu is not installed"}
    if run.left() < LEAST:
        return {"stopped": "the time is up"}
    sections = [word for name in NSIGHT for word in ("--section", name)]
    program = [sys.executable, "-m", "experiments.gpu.apart", "profiled"]
    options = ["--clock-control", "none", "--profile-from-start", "off", *sections, "--csv"]
    answer = answer_of(["ncu", *options, *program], min(run.left(), PROFILED))
    (folder / "ncu.csv").write_text(answer.stdout)
    return {"lines": len(answer.stdout.splitlines()), "said": answer.stderr.strip()[-200:]}


def answer_of(words: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a command in this clone."""
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds)
