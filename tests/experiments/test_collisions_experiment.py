"""The collisions experiment prints the numbers that are known of MUTAG."""

from __future__ import annotations

import os

import pytest

from datasets import GraphSet, covers, load, rings
from experiments import collisions
from experiments.__main__ import main
from experiments.records import RowLog, pick

MIRROR = os.environ.get("READOUTS_TU_MIRROR")


def cells(line):
    return [cell.strip() for cell in line.strip("│ \n").split("│")]


@pytest.mark.skipif(MIRROR is None, reason="READOUTS_TU_MIRROR is not set")
def test_mutag_as_published(tmp_path, capsys):
    assert main(["collisions", "--data", "MUTAG", "--mirror", MIRROR, "--out", str(tmp_path), "--pairs"]) == 0
    output = capsys.readouterr().out
    lines = [cells(line) for line in output.splitlines() if line.startswith("│")]
    assert lines[0] == ["MUTAG", "188", ".665", "0", ".931", ".899", ".697", "44", "(33)"]
    assert lines[1] == ["1", ".957", ".957", ".899", "0", "(0)"]
    assert [line[-2] for line in lines[:4]] == ["44", "0", "0", "0"]
    assert sum(line.startswith("MUTAG, depth 0: ") for line in output.splitlines()) == 44


def test_rings_are_all_alike_to_the_mean(tmp_path):
    graphs = load("rings")
    with RowLog(tmp_path, "collisions") as log:
        rows = collisions.measure([graphs], log, depth=1)
    for depth in (0, 1):
        at = {"depth": depth, "aggregation": "sum", "metric": "ceiling"}
        assert pick(rows, readout="sum", **at) == 1
        assert pick(rows, readout="mean", **at) < 0.6
    families = [graph.family for graph in graphs]
    alike = sum(families.count(family) * (families.count(family) - 1) // 2 for family in set(families))
    assert pick(rows, readout="mean", depth=1, aggregation="sum", metric="pairs") == alike


def test_pairs_of_graphs_in_pieces_are_counted_apart(tmp_path):
    one, other = rings.ring("crown ether", 1), rings.ring("crown ether", 2)
    graphs = GraphSet("three", (one, other, covers.copies(one, 3)), 2)
    with RowLog(tmp_path, "collisions") as log:
        rows = collisions.measure([graphs], log, depth=3)
    at = {"depth": 3, "aggregation": "sum", "readout": "mean"}
    assert [pick(rows, **at, metric=metric) for metric in ("pairs", collisions.CONNECTED)] == [3, 1]
    (found,) = collisions.findings(rows)
    assert "after 3 rounds: 3 (1 of connected graphs) with injective" in found.numbers


def test_pairs_are_listed_with_names():
    lines = list(collisions.pair_lines(load("rings"), depth=1))
    assert all(line.startswith("rings, depth 1: ") for line in lines)
    assert any(
        "ethylene oxide (7 nodes, class 0) and" in line and "1,4-dioxane (14" in line for line in lines
    )
