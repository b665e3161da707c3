"""The ten propositions hold where they should, and numbers that are against one are noticed."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Data

from datasets import GraphSet, load
from experiments import propositions
from experiments.console import UserError
from experiments.records import RowLog

MIRROR = os.environ.get("READOUTS_TU_MIRROR")
NO_EDGES = torch.empty(2, 0, dtype=torch.int64)


def ground_of(graphs, sample=6):
    chosen = propositions.choose(graphs, "cpu", seed=0)
    return replace(chosen, graphs=chosen.graphs[:sample], confused=chosen.confused[:sample])


def measure(ground, folder):
    with RowLog(folder, "propositions") as log:
        return propositions.measure([ground], log, seed=0)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return measure(ground_of(load("rings")), tmp_path_factory.mktemp("propositions"))


@pytest.mark.parametrize("number", range(1, 11))
@pytest.mark.parametrize("dtype", propositions.DTYPES)
def test_each_holds(measured, number, dtype):
    found = propositions.measured(measured, "rings", number, dtype)
    proposition = propositions.PROPOSITIONS[number - 1]
    assert all(found[name] <= propositions.TOLERANCES[dtype] for name in proposition.equal)
    assert all(found[name] >= least for name, least in proposition.apart.items())
    assert set(found) == {*proposition.equal, *proposition.apart}


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_what_sees_proportions_has_the_same_bits(measured, number):
    for dtype in propositions.DTYPES:
        found = propositions.measured(measured, "rings", number, dtype)
        assert {name: found[name] for name in propositions.PROPORTIONAL} == dict.fromkeys(
            propositions.PROPORTIONAL, 0.0
        )


def test_numbers_against_a_proposition_are_told(measured):
    found = {dtype: propositions.measured(measured, "rings", 9, dtype) for dtype in propositions.DTYPES}
    assert propositions.judged(found, 9) in ("to the bit", "holds")
    found["float32"]["mean"] = 1e-4
    found["float64"]["logits of sum"] = 0.0
    assert propositions.judged(found, 9) == "fails: mean in float32, logits of sum in float64"
    wrong = [row | {"value": 0.5} if row["metric"] == "losers of max" else row for row in measured]
    assert [found.sentence for found in propositions.findings(wrong)] == [
        "rings: not as claimed, 9 of 10 propositions hold; "
        "8 fails: losers of max in float32, losers of max in float64."
    ]
    assert [found.sentence for found in propositions.findings(measured)] == [
        "rings: as claimed, 10 of 10 propositions hold."
    ]


def test_graphs_that_do_not_cover_each_other_deviate():
    ground = ground_of(load("rings"))
    path = propositions.cycle(6, ground.kinds)
    path.edge_index = path.edge_index[:, (path.edge_index != 0).all(dim=0)]
    pairs = [(propositions.cycle(3, ground.kinds), path)]
    found = propositions.covering(lambda _: pairs, ground, torch.float64, 0)
    assert min(found[name] for name in ("mean", "min", "std", "attention", "sum")) > 1e-3


def test_numbers_of_one_mean_and_variance():
    for one, other in propositions.MOMENTS:
        for power in (0, 1, 2):
            assert sum(x**power for x in one) == sum(x**power for x in other)
        assert sum(x**3 for x in one) != sum(x**3 for x in other)


def test_pairs_are_what_they_are_called():
    ground = ground_of(load("rings"))
    assert all(big.num_nodes % small.num_nodes == 0 for small, big in propositions.lifted(ground))
    assert all(big.num_nodes % small.num_nodes > 0 for small, big in propositions.fractional(ground))
    assert all(big.num_nodes == small.num_nodes for small, big in propositions.equal_sizes(ground))
    assert len(propositions.lifted(ground)) > 6 + len(ground.graphs)  # cycles, lifts, and pairs of the set


def test_graphs_without_edges_of_one_kind(tmp_path):
    dots = tuple(
        Data(x=torch.ones(n, 1), node_label=torch.zeros(n, dtype=torch.int64), edge_index=NO_EDGES)
        for n in (1, 2, 3, 0)
    )
    rows = measure(ground_of(GraphSet("dots", dots, 1)), tmp_path)
    failed = [
        number
        for number in range(1, 10)
        for dtype in propositions.DTYPES
        if "fails" in propositions.judged({dtype: propositions.measured(rows, "dots", number, dtype)}, number)
    ]
    assert failed == []
    assert [path.name for path in propositions.figure(rows, tmp_path)] == [
        "propositions.png",
    ]


def test_sets_without_nodes_are_refused():
    nothing = Data(x=torch.ones(0, 1), node_label=torch.zeros(0, dtype=torch.int64), edge_index=NO_EDGES)
    with pytest.raises(UserError, match="void: expected graphs with nodes, got none"):
        propositions.choose(GraphSet("void", (nothing,), 1), "cpu", 0)


@pytest.mark.skipif(MIRROR is None, reason="READOUTS_TU_MIRROR is not set")
def test_pairs_of_fractional_size_inside_proteins():
    ground = propositions.choose(load("PROTEINS", MIRROR), "cpu", 0)
    sizes = [(small.num_nodes, big.num_nodes) for small, big in map(propositions.by_size, ground.confused)]
    assert len(sizes) == 5
    assert (4, 10) in sizes
