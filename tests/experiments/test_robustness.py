"""Readouts break where theory says, and one that breaks elsewhere is noticed."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data

from datasets import GraphSet, load
from experiments import by_node, robustness
from experiments.__main__ import BAD_INPUT, main
from experiments.console import UserError
from experiments.records import RowLog
from readouts import Segments
from readouts.nn import MeanReadout

FOLDS, EPOCHS = 2, 100


def measure(graphs, folder):
    task = by_node.task_of(graphs, seed=0)
    with RowLog(folder, "robustness") as log:
        return task, robustness.measure([task], log, "cpu", 0, FOLDS, EPOCHS)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return measure(load("rings"), tmp_path_factory.mktemp("robustness"))


@pytest.fixture
def states():
    return robustness.random_states(by_node.task_of(load("rings"), 0), "cpu", 0)


@pytest.mark.parametrize("readout", robustness.READOUTS)
def test_every_graph_breaks_as_predicted(states, readout):
    found = robustness.breakdown(readout, *states)
    assert found["as predicted"] == 1
    assert found["breakdown"] == found["predicted"]


def test_a_readout_that_breaks_early_is_noticed(states, monkeypatch, measured):
    monkeypatch.setitem(robustness.READOUTS, "median", MeanReadout)
    found = robustness.breakdown("median", *states)
    assert found["as predicted"] == 0
    assert found["breakdown"] < 0.2
    of_median = {"readout": "median", "metric": "as predicted"}
    wrong = [row | {"value": 0.0} if of_median.items() <= row.items() else row for row in measured[1]]
    assert next(found.sentence for found in robustness.findings(wrong)).startswith(
        "rings, random network: not as claimed, elsewhere than predicted: median;"
    )


def test_the_order_of_errors(measured):
    error = {
        (readout, part): robustness.average(measured[1], metric="error", readout=readout, share=part)
        for readout in robustness.READOUTS
        for part in robustness.SHARES[1:]
    }
    assert all(error["mean", part] > 1e3 and error["max", part] > 1e3 for part in (0.15, 0.3, 0.45))
    assert error["trimmed mean", 0.15] < 1 < 1e3 < error["trimmed mean", 0.3]
    assert error["median", 0.45] < 10 < 1e3 < error["median", 0.6]


def test_trained_networks_inherit_it(measured):
    _, bear, spread = robustness.findings(measured[1])
    assert bear.main
    assert bear.sentence.startswith(
        "rings, trained, states corrupted: as claimed, with 15 % of the nodes corrupted "
    )
    assert "trimmed mean and median kept the accuracy" in bear.numbers
    assert spread.claim == "rings, trained, input corrupted"
    clean = [row["value"] for row in measured[1] if row.get("share") == 0.0]
    assert len(clean) == 4 * 2 * FOLDS
    assert min(clean) > 0.6  # six families, of which the largest is a fifth


@pytest.mark.parametrize(
    ("metric", "value", "reason"),
    [
        ("late change", 0.2, "median had converged in 0 % of the folds"),
        ("accuracy", 0.0, "is not ahead of the best baseline"),
    ],
)
def test_networks_that_were_not_trained_are_not_compared(measured, metric, value, reason):
    wrong = [
        row | {"value": {metric: value, "train accuracy": 0.5}[row["metric"]]}
        if row["metric"] in (metric, "train accuracy")
        else row
        for row in measured[1]
    ]
    check, *of_trained = robustness.findings(wrong)
    assert (check.kind, check.holds) == ("check", True)
    assert all(found.holds is None and reason in found.sentence for found in of_trained)


def test_exactly_the_share_is_corrupted():
    sizes = (1, 4, 10, 7)
    batch = Batch.from_data_list([Data(x=torch.rand(n, 2)) for n in sizes])
    graphs = Segments.from_batch(batch.batch)
    place = robustness.places(graphs, seed=1)
    for part, expected in ((0.0, [0, 0, 0, 0]), (0.3, [0, 1, 3, 2]), (0.5, [0, 2, 5, 3]), (1.0, list(sizes))):
        nodes = robustness.count(graphs, part)
        huge = robustness.corrupted(batch.x, graphs, place, nodes) > 1e3
        assert nodes.tolist() == expected
        assert torch.zeros(4).index_add_(0, batch.batch, huge[:, 0].float()).tolist() == expected
        assert torch.equal(huge[:, 0], huge[:, 1])


def test_one_class_trains_no_network_and_edges_are_not_needed(tmp_path):
    edges = torch.empty(2, 0, dtype=torch.int64)
    graphs = [Data(x=torch.eye(3)[:n], edge_index=edges, y=torch.tensor([0])) for n in (0, 1, 2, 3)]
    task, rows = measure(GraphSet("dots", tuple(graphs), 1), tmp_path)
    assert task.sentence == (
        "dots: 3 graphs with at most 3 nodes (a seeded sample of 4); "
        "all of one class, so no network was trained."
    )
    assert {row["metric"] for row in rows} == {*robustness.BREAKDOWN, "error"}
    assert len(robustness.tables(rows)) == 1
    assert [found.kind for found in robustness.findings(rows)] == ["check"]
    assert robustness.numbers(rows).endswith("no networks to compare")
    assert [path.name for path in robustness.figure(rows, tmp_path)] == ["robustness.png"]


def test_what_cannot_run_is_refused(tmp_path, capsys):
    nothing = Data(x=torch.ones(0, 1), edge_index=torch.empty(2, 0, dtype=torch.int64), y=torch.tensor([0]))
    with pytest.raises(UserError, match="void: expected graphs with nodes, got none"):
        by_node.task_of(GraphSet("void", (nothing,), 1), 0)
    assert main(["robustness", "--folds", "41", "--out", str(tmp_path)]) == BAD_INPUT
    assert capsys.readouterr().err == "--folds 41: rings has only 40 graphs.\n"
