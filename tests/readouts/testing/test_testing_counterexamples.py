"""Counterexamples are as small as can be, and fail when they are pasted into a test."""

import re

import pytest
import torch
from models_for_testing import (
    ArgmaxGradient,
    CentredOnBatch,
    Cumulated,
    FirstNode,
    InOrderOfAppearance,
    Net,
    PaddedMean,
    WeightedByRow,
    molecules,
    tensors,
)
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import global_add_pool

from readouts.testing import (
    check_batch_independence,
    check_gradient_equivariance,
    check_permutation_equivariance,
    check_permutation_invariance,
)
from readouts.testing.counterexample import literal


def assert_pasted_lines_fail(report, model):
    assert report.counterexample, str(report)
    names = {"torch": torch, "Data": Data, "Batch": Batch, "model": model}
    with pytest.raises(AssertionError):
        exec(report.counterexample, names)


def lone(**options):
    """One graph as Data, without a batch vector."""
    return molecules(graphs=1, **options)[0]


class Weighted(nn.Module):
    """Nodes weighted by their row, on Data with or without a batch vector."""

    def forward(self, data):
        batch = torch.zeros(len(data.x), dtype=torch.int64) if data.batch is None else data.batch
        return WeightedByRow()(data.x, batch)


FORMS = {
    "tensors": (Net(FirstNode()), tensors()),
    "features alone": (lambda x: x[0], (torch.randn(5, 2),)),
    "data": (Weighted(), (lone(),)),
    "batch": (Net(FirstNode()), (molecules(),)),
    "rounding": (lambda x: global_add_pool(x, None), (torch.randn(9, 3),)),
    "raises": (lambda x: x[: int(x[0, 0] > 0) + 1].sum(0), (torch.randn(9, 3),)),
    "dictionary": (lambda x: {"all": x.amax(0), "one": [x[1]]}, (torch.randn(9, 3),)),
    "tiny": (lambda x: 1e-8 * x[0], (torch.randn(9, 3),)),
}


@pytest.mark.parametrize("form", FORMS)
def test_invariance(form):
    model, inputs = FORMS[form]
    assert_pasted_lines_fail(check_permutation_invariance(model, *inputs), model)


@pytest.mark.parametrize("inputs", [tensors()[:1], (torch.randn(4, 1, dtype=torch.float64),)])
def test_equivariance(inputs):
    model = Cumulated()
    report = check_permutation_equivariance(model, *inputs)
    assert "before[order]" in report.counterexample
    assert_pasted_lines_fail(report, model)


@pytest.mark.parametrize("data", [lone(), molecules()], ids=["data", "batch"])
def test_equivariance_of_edges_on_data(data):
    def model(data):
        return data.x[data.edge_index[0]].cumsum(0)

    assert_pasted_lines_fail(check_permutation_equivariance(model, data), model)


def padded():
    """A network whose weights do not depend on luck: some leave nothing after relu."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(PaddedMean()).eval()


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (padded(), tensors()),
        (padded(), (molecules(),)),
        (CentredOnBatch(), tensors()[:1]),
        (lambda x, batch: CentredOnBatch()(x), tensors()[::2]),
        (lambda x, edge_index, batch: x[edge_index[0]] - x.amax(), tensors()),
    ],
    ids=["graphs", "batch", "no batch", "nodes", "edges"],
)
def test_batch_independence(model, inputs):
    if len(inputs) == 1 and isinstance(inputs[0], torch.Tensor):
        with pytest.raises(ValueError, match="expected a batch vector"):
            check_batch_independence(model, *inputs)
    else:
        assert_pasted_lines_fail(check_batch_independence(model, *inputs), model)


class Gained(nn.Module):
    """A parameter whose gradient is the first row."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x.detach().amax(0) + self.gain * (x.detach() - x.detach().amax() + 1)[:1].prod()


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (Net(ArgmaxGradient()).eval(), tensors()),
        (Net(ArgmaxGradient()).eval(), (molecules(),)),
        (lambda data: data.x.max(0).values, (lone(),)),
        (lambda x: (x.max(0).values, {"mean": x.mean(0)}), (torch.randn(6, 2),)),
    ],
    ids=["tensors", "batch", "data", "several outputs"],
)
def test_gradients_of_features(model, inputs):
    assert_pasted_lines_fail(check_gradient_equivariance(model, *inputs), model)


def test_gradients_of_parameters():
    model = Gained()
    report = check_gradient_equivariance(lambda x: model(x), torch.randn(5, 2))
    assert report.output == "parameter model.gain"
    assert_pasted_lines_fail(report, model)
    report = check_gradient_equivariance(model, torch.randn(5, 2))
    assert report.output == "parameter gain"
    assert_pasted_lines_fail(report, model)


@pytest.mark.parametrize("pool", [FirstNode(), WeightedByRow(), InOrderOfAppearance()])
def test_swap_of_two_nodes_suffices(pool):
    report = check_permutation_invariance(Net(pool), *tensors())
    assert "order = torch.tensor([1, 0])" in report.counterexample
    assert "edge_index = torch.zeros(2, 0, dtype=torch.int64)" in report.counterexample
    assert "batch = torch.tensor([0, 0])" in report.counterexample


def test_swap_of_two_edges_suffices():
    def model(x, edge_index):
        return x[edge_index[0]][:1]

    report = check_permutation_invariance(model, *tensors(graphs=1)[:2])
    orders = re.findall(r"(?:order|edges) = torch.tensor\(\[([0-9, ]+)\]\)", report.counterexample)
    assert orders == ["1, 0"]


def test_swap_among_a_few_nodes_shows_rounding():
    report = check_permutation_invariance(lambda x: sum(row for row in x), torch.randn(40, 3))
    order = [
        int(node)
        for node in re.search(r"order = torch.tensor\(\[(.*)\]\)", report.counterexample)[1].split(",")
    ]
    assert 3 <= len(order) <= 5
    assert sum(place != node for place, node in enumerate(order)) == 2


def test_two_graphs_suffice_for_batch_independence():
    report = check_batch_independence(Net(PaddedMean()).eval(), *tensors())
    together = report.counterexample.splitlines()[1]
    assert sorted(re.findall(r"torch.tensor\(\[([01, ]+)\]\)", together)[-1].split(", ")) == ["0", "1", "1"]


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor([0.1, -0.0, float("inf"), -float("inf"), float("nan"), 1e-45]),
        torch.tensor([[0.1, 1 / 3]], dtype=torch.float64),
        torch.tensor([0.1, 3.0], dtype=torch.bfloat16),
        torch.tensor([0.1], dtype=torch.float16),
        torch.tensor([[1, 2], [3, 4]], dtype=torch.int32),
        torch.tensor([True, False]),
        torch.tensor(7),
        torch.zeros(0, 3),
        torch.zeros(3, 3),
        torch.ones(10, dtype=torch.int64),
        -torch.zeros(3, 3),
    ],
    ids=str,
)
def test_literals_have_the_same_bits(value):
    from bits import assert_same_bits

    assert_same_bits(eval(literal(value), {"torch": torch}), value)
