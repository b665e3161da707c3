"""Gradients spread as worked out by hand, sum and mean are democratic, and what is not would be noticed."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch_geometric.data import Data

from datasets import GraphSet, load
from experiments import gradients as experiment
from experiments.__main__ import BAD_INPUT, main
from experiments.by_node import folds_of, together
from experiments.console import UserError
from experiments.experiment import one_thread
from experiments.gradients import MAPS, READOUTS, VECTOR, Network, gini, gradients, losses, spread
from experiments.records import RowLog, pick
from readouts import Segments

FOLDS, EPOCHS = 2, 4
NO_EDGES = torch.empty(2, 0, dtype=torch.int64)


def run(graphs, folder):
    task = experiment.choose(graphs, seed=0)
    with RowLog(folder, "gradients") as log:
        return task, experiment.measure([task], log, "cpu", 0, FOLDS, EPOCHS)


def bags(classes, sizes, kinds=3):
    """Graphs without edges; every graph after the first begins with a node of kind 1."""
    graphs = []
    for position, n in enumerate(sizes):
        label = torch.zeros(n, dtype=torch.int64)
        label[:1] = min(position, 1)
        x = torch.nn.functional.one_hot(label, kinds).float()
        graphs.append(Data(x=x, edge_index=NO_EDGES, y=torch.tensor([position % classes])))
    return GraphSet("bags", tuple(graphs), classes)


def paths(*sizes):
    """Paths whose nodes are all of different kinds, with two labels each."""
    graphs = []
    for position, n in enumerate(sizes):
        edges = torch.tensor([[i, i + 1] for i in range(n - 1)] + [[i + 1, i] for i in range(n - 1)]).T
        y = torch.tensor([[position % 2, position // 2 % 2]]).float()
        graphs.append(Data(x=torch.eye(max(sizes))[:n], edge_index=edges, y=y))
    return graphs


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return run(load("rings"), tmp_path_factory.mktemp("gradients"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 1.0, 1.0, 1.0], 0),
        ([0.0, 0.0, 0.0, 3.0], 1),
        ([0.0, 5.0], 1),
        ([1.0, 2.0, 3.0], 2 / 6),  # pairs differ by 1, 1, 2: 2 * 4 / (2 * 2 * 6)
        ([0.0, 0.0], 0),
    ],
)
def test_gini_by_hand(values, expected):
    graphs = Segments.from_batch(torch.tensor([0, 0, *[1] * len(values), 2, 2]), 3)
    found = gini(torch.tensor([1.0, 3.0, *values, 0.0, 7.0], dtype=torch.float64), graphs)
    assert found.tolist() == pytest.approx([0.5, expected, 1])


def test_spread_by_hand():
    """Of four nodes the labels agree on one, oppose on one, one hears one, one none; a graph at peace."""
    first = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]).double()
    second = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 3.0], [3.0, 4.0]]).double()
    found = spread(first, second, Segments.from_batch(torch.tensor([0, 0, 0, 0, 1, 1])))
    assert found["nodes"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["nodes a channel"] == pytest.approx((3 / 8 + 1) / 2)
    assert found["met"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["opposed"] == pytest.approx((1 / 3 + 0) / 2)
    assert found["strength"] == pytest.approx(((1 + 0.5**0.5) / 2 + (0 + 3 / 5) / 2) / 2)
    assert found["divided"] == 0.5


@pytest.mark.parametrize("head", [VECTOR, MAPS])
@pytest.mark.parametrize("readout", READOUTS)
def test_gradients_are_those_of_the_loss(head, readout):
    """Against finite differences of the loss, in float64."""
    torch.manual_seed(1)
    network = Network(5, readout, head)
    batch = together(network, paths(3, 5))
    first, second = gradients(network, batch)
    network = network.double()
    states = network.eval().nodes(replace(batch, x=batch.x.double())).detach()
    step = 1e-6
    for row, channel in ((0, 0), (2, 5), (6, 15), (7, 3)):
        moved = states.repeat(2, 1, 1)
        moved[0, row, channel] += step
        moved[1, row, channel] -= step
        network.train()
        above, below = (losses(network.logits(one, batch.graphs), batch.y).sum(dim=0) for one in moved)
        for found, slope in zip((first, second), (above - below) / (2 * step), strict=True):
            assert found[row, channel].item() == pytest.approx(slope.item(), abs=1e-6)


def test_nodes_that_are_alike_share_the_gradient_of_a_maximum():
    torch.manual_seed(0)
    ring = load("rings").graphs[0]  # cyclopropane: three equal C, six equal H
    graph = Data(x=ring.x, edge_index=ring.edge_index, y=torch.ones(1, 2))
    for head in (VECTOR, MAPS):
        network = Network(ring.x.size(1), "max", head)
        for gradient in gradients(network, together(network, [graph])):
            kinds = [gradient[ring.node_label == label] for label in ring.node_label.unique()]
            assert len(kinds) == 2
            assert all(torch.equal(kind, kind[:1].expand_as(kind)) for kind in kinds)


def test_a_sure_answer_has_a_gradient():
    logits = torch.tensor([[60.0, -60.0]], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(losses(logits, torch.tensor([[1.0, 0.0]])).sum(), logits)
    assert found[0].tolist() == pytest.approx([-math.exp(-60), math.exp(-60)], rel=1e-9, abs=0)


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, [0, 1]), (4, [0, 1, 3, 4]), (30, [0, 1, 3, 10, 30]), (100, [0, 1, 3, 10, 30, 100])],
)
def test_logged_epochs(epochs, expected):
    assert experiment.logged(epochs) == expected


def test_sum_and_mean_are_democratic_on_rings_and_max_is_not(measured):
    task, rows = measured
    assert len(rows) == FOLDS * 2 * len(READOUTS) * (4 * 8 + 4)
    for name in ("sum", "mean"):
        assert experiment.average(rows, readout=name, metric="nodes") == 1
        assert experiment.average(rows, readout=name, metric="met") == 1
        assert experiment.average(rows, readout=name, metric="gini") < 1e-12
        assert experiment.average(rows, readout=name, metric="divided") == 0
    for head in (VECTOR, MAPS):
        assert experiment.average(rows, readout="max", metric="gini", head=head) > 0.1
        assert experiment.average(rows, readout="max", metric="nodes a channel", head=head) < 0.8
    assert "the labels are family and share of nodes" in task.sentence


def test_a_job_in_another_process_gives_the_same_rows(measured):
    task, rows = measured
    fold = folds_of(task, FOLDS, 0, EPOCHS, "cpu")[1]
    job = pickle.loads(pickle.dumps(partial(experiment.follow, fold, "max", MAPS)))
    with one_thread():
        *found, trained = job()
    assert [at.keys() for at in found] == [set(experiment.LOGGED)] * 4
    rows = [row for row in rows if row["fold"] == 1]
    for metric in experiment.LOGGED:
        expected = experiment.path(rows, metric, readout="max", head=MAPS)
        assert [at[metric] for at in found] == expected
    for metric, value in trained.items():
        assert value == pick(rows, metric=metric, readout="max", head=MAPS)


def changed(rows, value, **wanted):
    return [row | {"value": value} if wanted.items() <= row.items() else row for row in rows]


def test_verdicts_follow_from_the_rows(measured):
    rows = changed(measured[1], 0.9, readout="max", metric="gini")
    rows = changed(rows, 0.8, readout="max", metric="divided", head=VECTOR)
    rows = changed(rows, 0.1, readout="max", metric="met", head=MAPS)
    rows = changed(changed(rows, 0.0, metric="late change"), 0.9, metric="accuracy")
    found = list(experiment.findings(rows))
    assert [one.holds for one in found] == [True] * 6
    assert [one.kind for one in found] == ["check", "finding", "finding"] * 2
    against = [
        (0, "does not get the same", {"readout": "mean", "metric": "gini", "epoch": 3}, 0.01),
        (3, "does not get the same", {"readout": "sum", "metric": "nodes", "fold": 1}, 0.99),
        (0, "do not pull as one", {"readout": "sum", "metric": "divided", "fold": 0}, 0.1),
        (1, "max is not winner-take-all", {"readout": "max", "metric": "gini", "epoch": 1}, 0.4),
        (2, "in 50 % of the graphs or more", {"readout": "max", "metric": "divided"}, 0.5),
        (5, "50 % or fewer have one of both", {"readout": "max", "metric": "met", "epoch": 4}, 0.5),
    ]
    for place, words, wanted, value in against:
        said = list(experiment.findings(changed(rows, value, **wanted)))[place].sentence
        assert ": not as claimed, " in said
        assert words in said
    for metric, value in (("late change", 0.2), ("accuracy", 0.4)):
        untrained = list(experiment.findings(changed(rows, value, metric=metric, epoch=EPOCHS)))
        assert [one.holds for one in untrained] == [True, None, None] * 2


def test_labels_are_cut_as_evenly_as_may_be():
    assert experiment.upper(torch.tensor([1, 5, 2, 2, 9])).tolist() == [False, True, False, False, True]
    assert experiment.upper(torch.tensor([0, 0, 0, 1])).tolist() == [False, False, False, True]
    assert experiment.upper(torch.tensor([3.0, 3.0])).tolist() == [False, False]


def test_one_class_two_nodes_no_edges_and_empty_graphs(tmp_path):
    task, rows = run(bags(1, [2, 0, 2, 3, 4, 2, 1, 5]), tmp_path)
    assert task.sentence.startswith(
        "bags: 6 graphs of two nodes or more (a seeded sample of 8); the labels are share of nodes of kind "
    )
    assert task.labels[1] == "size"
    assert len(list(experiment.findings(rows))) == 6
    assert [path.name for path in experiment.figure(rows, tmp_path)] == ["gradients.png"]


def test_what_cannot_run_is_refused(tmp_path, capsys):
    with pytest.raises(UserError, match="bags: expected graphs of two nodes or more, got none"):
        experiment.choose(bags(2, [1, 0, 1]), 0)
    with pytest.raises(UserError, match=r"bags: expected graphs that differ in two of .*, got class"):
        experiment.choose(bags(2, [0, 2, 2, 2]), 0)
    assert main(["gradients", "--folds", "41", "--out", str(tmp_path)]) == BAD_INPUT
    assert capsys.readouterr().err == "--folds 41: rings has only 40 graphs.\n"


def test_command(tmp_path, capsys):
    assert main(["gradients", "--folds", "2", "--epochs", "1", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "rings, one vector, max: " in said
    assert (tmp_path / "gradients.png").exists()
