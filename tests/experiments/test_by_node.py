"""Networks trained node by node: copies do not mix, what `train` reports, and who may be compared."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from datasets import load
from experiments import by_node
from experiments.by_node import Fold, Task
from experiments.learning.networks import Network


def dots(kinds, classes):
    """Graphs of three nodes without edges, all of one kind."""
    no_edges = torch.empty(2, 0, dtype=torch.int64)
    return tuple(
        Data(x=torch.eye(2)[[kind] * 3], edge_index=no_edges, y=torch.tensor([label]))
        for kind, label in zip(kinds, classes, strict=True)
    )


def test_copies_are_networks_of_their_own():
    graphs = by_node.task_of(load("rings"), 0).graphs[:5]
    pair, one = (Network("gin", "sum", 7, 6, copies=copies).eval() for copies in (2, 1))
    found = pair(by_node.together(pair, graphs))
    assert not torch.equal(*found)
    for place, logits in enumerate(found):
        one.load_state_dict({name: value[place : place + 1] for name, value in pair.state_dict().items()})
        assert torch.equal(one(by_node.together(one, graphs))[0], logits)


@pytest.mark.parametrize(("epochs", "late"), [(1, 0), (10, 8)])
def test_what_training_reports(epochs, late):
    """Kinds tell the classes of the four graphs to train on; one in three of the others is of class 1."""
    task = Task("DOTS", dots([0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 0, 0]), 7, 2)
    torch.manual_seed(0)
    network = Network("gin", "mean", 2, 2, copies=2)
    known = by_node.together(network, task.graphs[:4])
    seen = {}
    trained = by_node.train(
        network,
        Fold(task, 0, 2, range(4), [4, 5, 6], 0, epochs, "cpu"),
        look=lambda epoch: seen.setdefault(epoch, by_node.scores(network, known).tolist()),
    )
    assert list(seen) == list(range(epochs + 1))
    for place, of_copy in enumerate(trained):
        assert of_copy.keys() == set(by_node.TRAINED)
        assert of_copy["train accuracy"] == seen[epochs][place]
        assert of_copy["late change"] == seen[epochs][place] - seen[late][place]
        assert of_copy["largest class"] == pytest.approx(2 / 3)
    held_out = by_node.together(network, task.graphs[4:])
    assert [of_copy["accuracy"] for of_copy in trained] == by_node.scores(network, held_out).tolist()


def rows(train_accuracy=0.9, accuracy=0.8, late=0.0, graphs=200):
    """Two folds of a network, which differ in nothing."""
    found = dict(zip(by_node.TRAINED, (train_accuracy, accuracy, 0.6, late), strict=True))
    common = {"data": "D", "readout": "sum", "graphs": graphs, "folds": 2}
    return [
        common | {"fold": fold, "metric": metric, "value": value}
        for fold in range(2)
        for metric, value in found.items()
    ]


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        (rows(), None),
        (rows(late=0.021), None),
        (rows(late=-0.03), "sum had converged in 0 % of the folds"),
        (rows(late=0.03, graphs=100), None),  # fewer than two of 50 graphs
        (rows(late=0.03, train_accuracy=0.99), None),
        (rows(accuracy=0.6), "the best network (60.0) is not ahead of the best baseline (60.0)"),
    ],
)
def test_who_may_be_compared(measured, reason):
    against = by_node.objections(measured, "D")
    assert against == ([reason] if reason else [])
    found = by_node.compared("claim", against, (True, "numbers"))
    assert found.holds is (None if reason else True)
    assert found.numbers == (f"not compared, for {reason}" if reason else "numbers")
    ahead = by_node.objections(measured, "D", baselines={"forest": [0.95]})
    assert "is not ahead of the best baseline (95.0)" in ahead[-1]
