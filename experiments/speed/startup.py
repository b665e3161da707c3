"""How long `import readouts` and the first call take, in fresh processes.

PyTorch is imported before the clock starts; the first call reads out a tiny batch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from statistics import median

from experiments.console import tracked
from experiments.records import ROOT, Row, RowLog
from experiments.speed.cases import FORWARD, TRIPLE, Case, even
from experiments.speed.implementations import OURS
from experiments.speed.measure import RIGHT, Settings

IMPORT, FIRST = "import", "first call"
METRICS = (IMPORT, FIRST)
PROCESSES = 3
SHAPE = "8x18x16"
PROGRAM = f"""
import json, time, torch
x, index = torch.randn(144, 16), torch.arange(8).repeat_interleave(18)
start = time.perf_counter()
import readouts
imported = time.perf_counter()
readouts.readout(x, index, {TRIPLE!r}, size=8)
print(json.dumps({{"{IMPORT}": imported - start, "{FIRST}": time.perf_counter() - imported}}))
"""


def measure(log: RowLog, settings: Settings) -> list[Row]:
    """Seconds of the import and of the first call, medians of some processes."""
    work = Case(even(SHAPE), FORWARD).work | settings.work | {"contender": OURS, "verdict": RIGHT}
    return log.measure(work | {"program": PROGRAM}, METRICS, partial(time_starts, PROCESSES))


def time_starts(processes: int) -> dict[str, float]:
    """Run fresh processes, and take the medians."""
    runs = [time_start() for _ in tracked(range(processes), "starting processes")]
    return {metric: median(run[metric] for run in runs) for metric in METRICS}


def time_start() -> dict[str, float]:
    """Run one fresh process."""
    command = [sys.executable, "-c", PROGRAM]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(f"timing the import failed: {answer.stderr.strip()[-500:]}")
    found: dict[str, float] = json.loads(answer.stdout)
    return found
