"""`python -m experiments gpu` on the emulator: every stage is run, so that no line of them can rot."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="needs Triton")
if shutil.which("g++") is None:
    pytest.skip("needs g++", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("nothing is compiled under TRITON_INTERPRET=1", allow_module_level=True)

from emulated.driver import emulated

from experiments.gpu import command, correctness, inputs, speed
from experiments.speed.grid import BACKWARD, FORWARD, UNSORTED, Case, edges, even

pytestmark = pytest.mark.thorough
ROOT = Path(__file__).parents[2]
EVER = 10_000
WITHOUT = ["rdkit", "dask", "distributed", "ray", "matplotlib", "networkx", "sklearn", "joblib"]


def rows_of(folder, stage):
    lines = (folder / "gpu.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["stage"] == stage]


@pytest.fixture
def _few(monkeypatch):
    """One case of kernels, and tiny shapes to time."""
    kernels = [inputs.Case("ragged", torch.float32, inputs.TRIPLE, True, 6)]
    timed = [
        Case(even("8x18x16"), FORWARD),
        Case(even("8x18x16"), BACKWARD, dtype="float64"),
        Case(edges(60, 20, 4, 0), BACKWARD, ("sum",), layout=UNSORTED),
        Case(even("8x18x16"), FORWARD, ("median",)),
    ]
    monkeypatch.setattr(correctness, "cases", lambda: iter(kernels))
    monkeypatch.setattr(speed, "cases", lambda: iter(timed))
    monkeypatch.setattr(speed, "SECONDS", 0.001)


@pytest.mark.usefixtures("_few")
def test_every_stage(tmp_path):
    with emulated() as driver:
        command.run_all(tmp_path, EVER, "cpu")
    assert {launch.name for launch in driver.launches} >= {"forward", "backward"}
    assert [row for stage in command.STAGES for row in rows_of(tmp_path, stage) if "error" in str(row)] == []
    (case,) = (row for row in rows_of(tmp_path, "correctness") if "case" in row)
    assert case["right"]
    assert rows_of(tmp_path, "correctness")[1] | {"at": 0} == {
        "stage": "correctness",
        "at": 0,
        "cases_right": 1,
        "cases_wrong": 0,
    }
    checked = [row for row in rows_of(tmp_path, "interface") if "check" in row]
    assert len({(row["check"], row["call"]) for row in checked}) == len(checked) > 20
    assert all(row["holds"] for row in checked)
    timed = [row for row in rows_of(tmp_path, "speed") if "shape" in row]
    assert len(timed) == 4
    assert all(row[f"{name} us"] > 0 for row in timed for name in ("ours", "PyG", "plain read"))
    assert rows_of(tmp_path, "machine")[0]["versions"]["torch"] == torch.__version__
    assert len(rows_of(tmp_path, "end")) == 1


@pytest.mark.usefixtures("_few")
def test_wrong_kernels_are_reported(tmp_path, monkeypatch):
    true = correctness.elementary.reduce_keeping

    def wrong(*arguments):
        out, kept = true(*arguments)
        return out.add_(1), kept

    monkeypatch.setattr(correctness.elementary, "reduce_keeping", wrong)
    with emulated():
        command.run_all(tmp_path, EVER, "cpu")
    case, total, _ = rows_of(tmp_path, "correctness")
    assert not case["right"]
    assert case["forward_wrong"] > 1000
    assert len(case["forward_first"]) == correctness.SHOWN
    assert total["cases_wrong"] == 1


@pytest.mark.usefixtures("_few")
def test_the_budget_is_kept(tmp_path):
    with emulated() as driver:
        command.run_all(tmp_path, 0, "cpu")
    assert driver.launches == []
    stopped = [row["stage"] for row in rows_of(tmp_path, "correctness") if "stopped" in row]
    assert stopped == ["correctness"]
    assert all(rows_of(tmp_path, stage)[0]["stopped"] for stage in ("interface", "speed"))


def test_inputs_are_the_same_on_every_machine():
    cases = list(inputs.cases())
    assert len(set(map(str, cases))) == len(cases)
    for case in (case for case in cases if case.sizes in ("small", "narrow", "wide")):
        x, index, grad = inputs.make(case)
        assert len(x) == len(index)
        assert grad.shape[1:] == (len(case.names), x.shape[1])
        assert x.isinf().sum() >= 2
        assert x.isnan().any()
    x, _, _ = inputs.make(cases[0])
    assert correctness.digest(x) == "da95daaa63941964"


def test_nothing_that_a_gpu_machine_lacks_is_imported():
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({WITHOUT!r}));"
        "import experiments.__main__, experiments.gpu.command, experiments.gpu.apart"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
