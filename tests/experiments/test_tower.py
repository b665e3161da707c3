"""Towers: found where they are, and placed on one point by mean, max, min and std."""

from __future__ import annotations

import os
from fractions import Fraction

import pytest
import torch

from datasets import GraphSet, load, rings
from experiments import molecules, tower
from experiments.learning.networks import StackedLinear
from experiments.records import RowLog

MIRROR = os.environ.get("READOUTS_TU_MIRROR")
CROWNS = ["ethylene oxide", "1,4-dioxane", "12-crown-4", "15-crown-5", "18-crown-6", "21-crown-7"]


@pytest.fixture(scope="module")
def towers():
    return tower.find_towers(load("rings"))


@pytest.fixture(scope="module")
def measured(towers, tmp_path_factory):
    with RowLog(tmp_path_factory.mktemp("tower"), "tower") as log:
        return tower.measure([towers], log, "cpu", 0, 2)


def test_the_families_are_the_towers(towers):
    assert [found.name for found in towers] == list(rings.FAMILIES)
    assert not any(found.artificial for found in towers)
    crowns = towers[list(rings.FAMILIES).index("crown ether")]
    assert [member.factor for member in crowns.members] == [Fraction(k) for k in range(1, 9)]


@pytest.mark.parametrize("readout", ["mean", "max", "min", "std"])
def test_one_point_bit_for_bit(measured, readout):
    distances = [row["value"] for row in tower.chosen(measured, readout, "distance")]
    assert len(distances) == 2 * len(load("rings"))
    assert set(distances) == {0.0}


def test_sum_is_the_multiple(measured):
    ratios = tower.chosen(measured, "sum", "norm ratio")
    assert all(row["value"] == pytest.approx(row["factor"], rel=1e-5) for row in ratios)
    assert tower.largest(measured, "sum", "deviation") < 1e-5
    assert tower.largest(measured, "sum", "distance") > 1


def test_outputs_are_not_trivial(towers, measured):
    """All norms are relative to that of the smallest, or to 1 where that is 0."""
    for readout in ("sum", "mean", "max"):
        assert min(row["value"] for row in tower.chosen(measured, readout, "norm ratio")) > 0.99


def test_without_towers_copies_stand_in():
    ethylene_oxide, benzene = rings.ring("crown ether", 1), rings.ring("annulene", 6)
    graphs = GraphSet("two", (ethylene_oxide, benzene), classes=2, node_names=rings.NODE_NAMES)
    (found,) = tower.find_towers(graphs)
    assert found.artificial
    assert [member.factor for member in found.members] == [1, 2, 3, 4]
    assert "two has no two graphs" in tower.remarks([[found]], ())[0]


def test_artificial_copies_are_counted_apart(towers, measured, tmp_path):
    assert tower.numbers(measured).endswith("graphs of the set: 6, of artificial copies: 0")
    graphs = GraphSet("one", (rings.ring("crown ether", 1),), classes=2, node_names=rings.NODE_NAMES)
    with RowLog(tmp_path, "tower") as log:
        rows = tower.measure([tower.find_towers(graphs)], log, "cpu", 0, 1)
    assert tower.numbers([*measured, *rows]).endswith("graphs of the set: 6, of artificial copies: 1")
    (found,) = tower.findings(rows)
    assert found.claim.endswith(" (artificial)")
    assert (found.holds, found.kind) == (True, "check")


@pytest.mark.skipif(MIRROR is None, reason="READOUTS_TU_MIRROR is not set")
def test_the_tower_inside_mutagenicity(tmp_path):
    found = max(tower.find_towers(load("Mutagenicity", MIRROR)), key=tower.Tower.clarity)
    assert [member.name for member in found.members] == CROWNS
    assert [member.factor for member in found.members] == [1, 2, 4, 5, 6, 7]
    assert [member.label for member in found.members] == ["mutagen"] + 5 * ["nonmutagen"]
    with RowLog(tmp_path, "tower") as log:
        rows = tower.measure([[found]], log, "cpu", 0, 1)
    assert tower.largest(rows, "mean", "distance") == 0
    assert tower.largest(rows, "sum", "deviation") < 1e-5


def test_rows_of_a_linear_layer_do_not_depend_on_their_place():
    torch.manual_seed(0)
    row = torch.randn(1, 14)
    layer = StackedLinear(14, 32).eval()
    alone = layer(row)
    for rows in (2, 7, 17, 129, 1001):
        assert torch.equal(layer(row.expand(rows, 14).contiguous()), alone.expand(rows, 32))
        assert torch.equal(layer(torch.cat([torch.randn(rows, 14), row]))[-1:], alone)
    torch.testing.assert_close(alone, torch.nn.functional.linear(row, layer.weight[0], layer.bias[0]))


def test_the_picture_is_the_same_for_the_same_rows(towers, measured, tmp_path):
    (tmp_path / "again").mkdir()
    first = tower.figure(measured, tmp_path, [towers])
    second = tower.figure(measured, tmp_path / "again", [towers])
    assert [path.name for path in first] == ["tower.png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_names_and_skeletons():
    dioxane = rings.ring("crown ether", 2)
    nameless = dioxane.clone()
    del nameless.name
    assert molecules.name(nameless, rings.NODE_NAMES, 5) == "1,4-dioxane"
    assert molecules.formula(dioxane, rings.NODE_NAMES) == "C4H8O2"
    assert molecules.name(nameless, ("helix", "sheet", "turn"), 5) == "graph #5"
    drawn = molecules.sketch(dioxane, rings.NODE_NAMES)
    assert sorted(drawn.labels.values()) == ["", "", "", "", "O", "O"]
    assert len(drawn.bonds) == 6
