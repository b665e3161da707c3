"""The experiment `scaling`: rows of a small run, and verdicts that follow from rows."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from interrupts import heed_interrupts

from experiments import scaling
from experiments.__main__ import INTERRUPTED
from experiments.records import ROOT, RowLog


def test_a_run_counts_what_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "PROCESSES", (2,))
    monkeypatch.setattr(scaling, "QUICK_NODES", 5000)
    monkeypatch.setattr(scaling, "READOUTS", ("sum+max+std",))
    with RowLog(tmp_path, "scaling") as log:
        rows = scaling.measure([], log, 0, quick=True)
    found = {metric: scaling.value(rows, "sum+max+std", 2, metric) for metric in scaling.METRICS}
    assert found["bytes counted"] == found["bytes computed"] > 0
    assert found["messages"] == 8
    assert found["same bits"] == 1
    assert found["seconds"] > 0
    titles = [table.title for table in scaling.tables(rows)]
    assert titles[0].startswith("Measured: ")
    assert titles[1].startswith("Computed, not measured: ")
    same, bytes_sent = (found.sentence for found in scaling.findings(rows))
    assert "have the bits of one process" in same
    assert "1.00 times as large" in bytes_sent
    assert "none is larger" in bytes_sent
    bad = {"same bits": 0.0, "bytes computed": 1.0}
    wrong = [row | {"value": bad.get(row["metric"], row["value"])} for row in rows]
    same, bytes_sent = (found.sentence for found in scaling.findings(wrong))
    assert "do NOT have" in same
    assert "SOME ARE larger" in bytes_sent


def test_messages_grow_with_graphs_and_features_alone():
    sizes = list(scaling.messages("sum+mean+max", 10, 3, 4, 6))
    assert sizes == [scaling.HEAD, 10, 30, 30, scaling.SPAN, 120]
    assert sum(scaling.messages("std", 10, 3, 4, 6)) == scaling.HEAD + 10 + 2 * scaling.SPAN + 30 * (4 + 6)
    assert len(list(scaling.messages("median", 10, 3, 4, 6))) == 4 + scaling.BISECTIONS
    assert scaling.ring_bytes("sum", 1, 10) == 0


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc, to see children start")
def test_ctrl_c_ends_the_processes_without_their_tracebacks(tmp_path):
    command = [sys.executable, "-m", "experiments", "scaling", "--out", str(tmp_path)]
    options = {"start_new_session": True, "preexec_fn": heed_interrupts}
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, **options)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and not children.read_text():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    try:
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == INTERRUPTED
    assert "Traceback" not in said
    assert said.endswith("Interrupted; rows so far are kept, and a rerun continues.\n")
