"""Whatever Python does to the tensors of a call, also from another thread: no wild read, no wild write.

READOUTS_FUZZ_SECONDS sets the time, 3 by default.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

FUZZ, WINDOW = Path(__file__).parents[1] / "fuzz.py", 60  # seconds of one process


def test_no_abuse_ends_the_process(tmp_path):
    left, long = float(os.environ.get("READOUTS_FUZZ_SECONDS", 3)), "READOUTS_FUZZ_SECONDS" in os.environ
    while left > 0:
        seed, seconds = random.randrange(10**6) if long else 0, min(left, WINDOW)
        environment = {**os.environ, "FUZZ_LOG": str(tmp_path / "log"), "MALLOC_PERTURB_": "165"}
        run = subprocess.run(
            [sys.executable, FUZZ, str(seed), str(seconds)], env=environment, capture_output=True, text=True
        )
        last = (tmp_path / "log").read_text()
        assert run.returncode == 0, f"seed {seed}, {last}: exit code {run.returncode}, {run.stderr}"
        print(f"seed {seed}: {run.stdout}")
        left -= seconds
