"""The counts of docs/gpu.md and the model of its predictions."""

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="needs Triton")

from emulated import counts
from emulated.model import CHIPS, cost_of

PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"


@pytest.mark.thorough
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="nothing is compiled then")
def test_counts_of_a_small_batch():
    case = counts.Case(8, 18, 70, 4, shuffled=True)
    found = counts.count(case)
    assert list(found) == ["grouping", "forward", counts.TRAINING, "backward"]
    numbers = case.run * case.nodes * case.features
    for direction, launches in found.items():
        assert launches
        assert all(16 <= one.registers <= 255 for one in launches)
        assert sum(one.moved for one in launches) >= (4 if direction != "grouping" else 24 / 70)
        assert all(sum(one.counts.values()) * numbers >= one.warps for one in launches)
    assert all(float(time) > 0 for time in counts.predicted(case, found["forward"]))


def test_predictions_have_two_digits():
    found = [counts.rounded(value) for value in (0.0123, 4.56, 789, 12345)]
    assert found == ["0.012", "4.6", "790", "12,000"]


def test_the_page_has_the_tables_of_the_command():
    page = PAGE.read_text()
    assert counts.rewrite(counts.rewrite(page, "a"), "b") == counts.rewrite(page, "b")
    for columns in (counts.COLUMNS, counts.TIMES):
        assert f"| {' | '.join(columns)} |" in page
    for name in (f"{case.name}, {direction}" for case in counts.CASES for direction in case.directions):
        assert page.count(f"| *{name}* |") == page.count(f"| {name} |") == 1


def test_costs():
    cost = cost_of({"add.rn.f64": 10, "add.s32": 4, "div.rn.f64": 1, "ld.global.v4.b32": 2, "mov.u32": 10})
    assert cost == {"issue": 10 + 4 + 28 + 2 + 3, "fp64": 10 + 11, "alu": 4 + 6, "memory": 2, "convert": 1}
    times = CHIPS["H100"].microseconds({"fp64": 2 * 132 * 1750}, 3e6)
    assert times == {"issue": 0, "alu": 0, "fp64": 1, "memory": 0, "convert": 0, "bandwidth": 1}


def test_registers_limit_how_many_warps_are_resident():
    chip = CHIPS["H100"]
    assert [chip.resident_warps(registers, 4) for registers in (32, 80, 128, 168, 255)] == [64, 24, 16, 12, 8]
    assert chip.resident_warps(32, 1) == 32
