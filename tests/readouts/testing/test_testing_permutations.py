"""Permutation checks: verdicts, culprits, forms of input and dtypes."""

import pytest
import torch
from models_for_testing import WIDTH, Cumulated, Net, Recurrent, molecules, tensors
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCNConv, SimpleConv, global_add_pool, global_max_pool, global_mean_pool

from readouts.nn import MultiReadout, SumReadout
from readouts.testing import (
    Verdict,
    assert_permutation_equivariant,
    assert_permutation_invariant,
    check_permutation_equivariance,
    check_permutation_invariance,
)


def test_rounding_is_told_from_a_fault_by_numbers():
    report = check_permutation_invariance(Net(global_add_pool).eval(), *tensors())
    assert report.verdict is Verdict.ROUNDING
    assert report.wide_difference < 1e-4 * report.difference
    assert report.units < 100
    assert report.culprit.kind == "SumAggregation"


def test_bits_stay_with_exact_sums():
    """No matrix product lies between, which may round a row differently at another place."""

    def model(x, edge_index, batch):
        return MultiReadout(["sum", "mean", "max"])(SimpleConv(aggr=SumReadout())(x, edge_index), batch)

    report = check_permutation_invariance(model, *tensors(), permutations=20)
    assert report.verdict is Verdict.IDENTICAL
    assert (report.difference, report.culprit, report.counterexample) == (0.0, None, "")


def test_function_between_two_modules_is_at_fault():
    class Between(Net):
        def forward(self, x, edge_index, batch):
            x = self.convs[0](x, edge_index)
            x = x * torch.arange(len(x))[:, None]
            return self.head(global_mean_pool(self.convs[1](x, edge_index), batch))

    report = check_permutation_invariance(Between().eval(), *tensors())
    assert report.verdict is Verdict.BROKEN
    assert str(report.culprit) == "between convs.0 (GCNConv) and convs.1 (GCNConv), in the code of Between"


def test_function_behind_the_last_module_is_at_fault():
    class Behind(Net):
        def forward(self, x, edge_index, batch):
            return self.convs[0](x, edge_index)[:2]

    report = check_permutation_invariance(Behind().eval(), *tensors())
    assert report.verdict is Verdict.BROKEN
    assert str(report.culprit) == "Behind, in its own code after convs.0 (GCNConv)"


def test_closure_is_looked_into():
    gru, linear = Recurrent(), nn.Linear(WIDTH, WIDTH)
    report = check_permutation_invariance(lambda x, batch: gru(linear(x), batch), tensors()[0], tensors()[2])
    assert report.verdict is Verdict.BROKEN
    assert (report.culprit.name, report.culprit.kind) == ("gru.gru", "GRU")


def test_dropout_is_random_and_named():
    model = Net(before=nn.Dropout(0.5)).train()
    report = check_permutation_invariance(model, *tensors())
    assert report.verdict is Verdict.RANDOM
    assert (report.culprit.name, report.culprit.kind) == ("before", "Dropout")
    assert report.mode == "in training mode"
    assert "model.eval()" in report.reason
    assert check_permutation_invariance(model.eval(), *tensors()).invariant


def test_equivariance_of_nodes_and_edges():
    def nodes_and_edges(data):
        return {"nodes": data.x * 2, "edges": data.x[data.edge_index[0]], "total": data.x.amax(0)}

    assert check_permutation_equivariance(nodes_and_edges, molecules()).verdict is Verdict.IDENTICAL
    assert check_permutation_equivariance(GCNConv(WIDTH, 3), *tensors()[:2]).verdict is Verdict.ROUNDING
    report = check_permutation_equivariance(Cumulated(), tensors()[0])
    assert report.verdict is Verdict.BROKEN
    assert "before[order]" in report.counterexample


def test_invariance_is_not_fooled_by_one_row_per_node():
    """Nodes laid out in a row are as many numbers as nodes; they ought to stay, not to move along."""
    x = torch.randn(6, 1)
    assert check_permutation_invariance(lambda x: x.flatten(), x).verdict is Verdict.BROKEN
    assert check_permutation_equivariance(lambda x: x.flatten(), x).verdict is Verdict.IDENTICAL


def test_everything_that_belongs_to_nodes_and_edges_moves():
    parts = [
        Data(
            x=torch.randn(5, 2),
            pos=torch.randn(5, 3),
            mask=torch.tensor([True, False, True, True, False]),
            y=torch.randn(5),
            edge_index=torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]),
            edge_attr=torch.randn(4, 2),
            face=torch.tensor([[0], [1], [2]]),
            level=torch.tensor([graph]),
        )
        for graph in range(3)
    ]

    def model(data):
        message = (data.pos[data.edge_index[0]] - data.pos[data.edge_index[1]]).square() * data.edge_attr[
            :, :1
        ]
        nodes = data.x[:, :1] * data.y[:, None] * data.mask[:, None]
        corners = data.x[data.face].sum(0)
        owner = data.batch[data.edge_index[0]]
        size = data.num_graphs
        return [
            global_max_pool(message, owner, size),
            global_max_pool(nodes, data.batch, size),
            global_max_pool(corners, data.batch[data.face[0]], size) + data.level[:, None],
            data.ptr,
        ]

    assert check_permutation_invariance(model, Batch.from_data_list(parts)).invariant
    assert check_permutation_invariance(lambda data: data.y[:1], parts[0]).verdict is Verdict.BROKEN


def test_float64_models_are_judged_against_float32():
    x, edge_index, batch = tensors()
    good = check_permutation_invariance(Net(global_add_pool).double().eval(), x.double(), edge_index, batch)
    assert (good.verdict, good.dtype) == (Verdict.ROUNDING, "torch.float64")
    bad = check_permutation_invariance(Net(Recurrent()).double().eval(), x.double(), edge_index, batch)
    assert bad.verdict is Verdict.BROKEN


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype):
    x, _, batch = tensors()

    def total(x):
        return sum(row for row in x)

    assert check_permutation_invariance(total, x.to(dtype)).verdict is Verdict.ROUNDING
    report = check_permutation_invariance(lambda x, batch: x[:2], x.to(dtype), batch)
    assert report.verdict is Verdict.BROKEN


def test_casts_inside_the_model_do_not_look_like_faults():
    """A model that asks for float32 by name would not round less in float64."""

    def model(x, batch):
        return global_add_pool(x.float(), batch) + torch.zeros(1, dtype=torch.float32)

    assert check_permutation_invariance(model, tensors()[0], tensors()[2]).verdict is Verdict.ROUNDING


def test_model_that_knows_one_dtype_is_judged_by_size():
    class OneType(nn.Module):
        def forward(self, x, batch):
            if x.dtype != torch.float32:
                raise TypeError("float32 only")
            return global_add_pool(x, batch)

    x, _, batch = tensors()
    report = check_permutation_invariance(OneType(), x, batch)
    assert report.verdict is Verdict.ROUNDING
    assert "by size alone" in report.reason
    report = check_permutation_invariance(
        lambda x, batch: OneType()(x * torch.arange(len(x))[:, None], batch), x, batch
    )
    assert report.verdict is Verdict.BROKEN


def test_small_faults_beside_large_outputs_are_found():
    """The fault is a millionth of the other output."""

    def model(x, batch):
        return {"large": 1e9 * global_add_pool(x, batch), "small": 1e-3 * x[0]}

    report = check_permutation_invariance(model, tensors()[0], tensors()[2])
    assert report.verdict is Verdict.BROKEN
    assert report.output == "output['small']"


def test_asserts():
    x, edge_index, batch = tensors()
    model = Net(global_add_pool).eval()
    assert_permutation_invariant(model, x, edge_index, batch)
    with pytest.raises(AssertionError, match="ROUNDING"):
        assert_permutation_invariant(model, x, edge_index, batch, allow="identical")
    with pytest.raises(AssertionError, match="BROKEN"):
        assert_permutation_equivariant(Cumulated(), x)
    with pytest.raises(ValueError, match="allow"):
        assert_permutation_invariant(model, x, edge_index, batch, allow="anything")


@pytest.mark.parametrize(
    ("inputs", "error", "text"),
    [
        ((), TypeError, "expected Data, Batch, or tensors"),
        (("x",), TypeError, "got str"),
        ((torch.zeros(0, 2),), ValueError, "at least one node"),
        ((torch.zeros(1, 2),), ValueError, "nothing to permute|two nodes or more"),
        (
            (torch.zeros(4, 2), torch.tensor([[0], [3]]), torch.tensor([0, 0, 1, 1])),
            ValueError,
            "edges within graphs",
        ),
    ],
)
def test_inputs_that_cannot_be_used(inputs, error, text):
    with pytest.raises(error, match=text):
        check_permutation_invariance(lambda *inputs: inputs[0].sum(0), *inputs)
