"""Permutation checks: verdicts, culprits, forms of input and dtypes."""

import dataclasses

import pytest
import torch
from models_for_testing import WIDTH, Cumulated, Net, Recurrent, molecules, tensors
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import (
    GCNConv,
    SAGEConv,
    SimpleConv,
    global_add_pool,
    global_max_pool,
    global_mean_pool,
)

from readouts.nn import MultiReadout, SumReadout
from readouts.testing import (
    Verdict,
    assert_edge_order_invariant,
    assert_motion_invariant,
    assert_permutation_equivariant,
    assert_permutation_invariant,
    check_batch_independence,
    check_edge_order_invariance,
    check_gradient_equivariance,
    check_motion_invariance,
    check_permutation_equivariance,
    check_permutation_invariance,
    gradients,
)
from readouts.testing.engine import examine
from readouts.testing.inputs import read
from readouts.testing.permutations import shuffles
from readouts.testing.progress import Listener, listening


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


# Edges alone


def edge_features():
    """Inputs of `messages`: edges, their features, and the graph of every node."""
    x, edge_index, batch = tensors()
    return dict(x=x, edge_index=edge_index, edge_attr=torch.randn(edge_index.shape[1], 1), batch=batch)


def test_edges_move_alone_with_all_that_belongs_to_them():
    def messages(x, edge_index, edge_attr, batch):
        return SumReadout()(x[edge_index[0]] * edge_attr, batch[edge_index[0]])

    def columns(graphs):
        rows = (*graphs.links["edge_index"].tolist(), graphs.edges["edge_attr"].flatten().tolist())
        return list(zip(*rows, strict=True))

    inputs = edge_features()
    groups, _ = shuffles(messages, read((), inputs, messages), 5, 0, nodes=False)
    for trial in (trial for group in groups for trial in group):
        assert all(value.equal(trial.second.nodes[name]) for name, value in trial.first.nodes.items())
        assert columns(trial.first) != columns(trial.second)
        assert sorted(columns(trial.first)) == sorted(columns(trial.second))
    report = check_edge_order_invariance(messages, **inputs)
    assert (report.verdict, report.output) == (Verdict.ROUNDING, "x")  # of the gradient of a gather
    assert report.trials == 36  # 18 of outputs, and the same of gradients
    per_edge = check_edge_order_invariance(lambda x, edge_index: x[edge_index[0]].detach(), *tensors()[:2])
    assert per_edge.verdict is Verdict.IDENTICAL


@pytest.mark.parametrize(
    ("model", "output"),
    [
        (lambda x, edge_index, edge_attr, batch: edge_attr[:1] * x.amax(), "output"),
        (lambda x, edge_index, edge_attr, batch: edge_attr.max(0).values, "edge_attr"),
        (lambda x, edge_index, edge_attr, batch: x[edge_index[0]].max(0).values, "x"),
    ],
    ids=["output", "gradient of edges", "gradient of nodes"],
)
def test_order_of_edges_is_found_in_outputs_and_gradients(model, output):
    inputs = edge_features()
    inputs["edge_attr"] = (
        torch.ones_like(inputs["edge_attr"]) if output == "edge_attr" else inputs["edge_attr"]
    )
    report = check_edge_order_invariance(model, **inputs)
    assert report.verdict is Verdict.BROKEN, str(report)
    assert report.output == output
    assert "edges = torch.tensor([1, 0])" in report.counterexample
    assert "order = " not in report.counterexample
    with pytest.raises(AssertionError):
        exec(report.counterexample, {"torch": torch, "model": model})
    with pytest.raises(AssertionError, match="BROKEN: edge order invariance"):
        assert_edge_order_invariant(model, **inputs)


def test_rounding_of_edges_and_models_without_gradient():
    conv = GCNConv(WIDTH, 3)
    assert check_edge_order_invariance(conv, *tensors()[:2]).verdict is Verdict.ROUNDING
    count = check_edge_order_invariance(lambda x, edge_index: edge_index.amax(), *tensors()[:2])
    assert count.verdict is Verdict.IDENTICAL
    assert count.notes == ("outputs only, because there is no gradient",)
    with pytest.raises(ValueError, match="expected two edges or more, got 1"):
        check_edge_order_invariance(conv, torch.randn(3, WIDTH), torch.tensor([[0], [1]]))


@pytest.mark.parametrize("aggr", ["lstm", "sum"])
def test_edges_stay_sorted_where_the_model_wants_them_so(aggr):
    """PyG's LSTM aggregation raises on edges that are not sorted by their target."""
    torch.manual_seed(0)
    data = molecules().sort(sort_by_row=False)
    model = SAGEConv(WIDTH, 2, aggr=aggr)
    report = check_permutation_equivariance(model, data.x, data.edge_index)
    assert report.verdict is (Verdict.BROKEN if aggr == "lstm" else Verdict.ROUNDING)
    assert bool(report.notes) is (aggr == "lstm")
    if aggr == "lstm":
        assert report.difference < float("inf")
        with pytest.raises(AssertionError):
            exec(report.counterexample, {"torch": torch, "model": model})


# Names, keywords, lists


def test_arguments_have_the_names_of_the_parameters():
    x, edge_index, batch = tensors()

    def model(h, edge_index, z, edge_weight, *, index):
        return h[:1] * z[:1, None] * edge_weight[:1]

    z = torch.arange(len(x))
    inputs = (x, edge_index, z, torch.rand(edge_index.shape[1], 1))
    report = check_permutation_invariance(model, *inputs, index=batch)
    assert report.verdict is Verdict.BROKEN
    assert "before = model(h, edge_index, z, edge_weight, index=batch)" in report.counterexample
    with pytest.raises(AssertionError):
        exec(report.counterexample, {"torch": torch, "model": model})
    gradient = check_gradient_equivariance(model, *inputs, index=batch)
    with pytest.raises(AssertionError):
        exec(gradient.counterexample, {"torch": torch, "model": model})


def test_names_tell_nodes_from_edges_where_there_are_as_many():
    ring = torch.tensor([[0, 1, 2], [1, 2, 0]])

    def model(x, edge_index, edge_attr):
        return SumReadout()(x[edge_index[0]] * edge_attr)

    report = check_permutation_invariance(model, torch.randn(3, 1), ring, edge_attr=torch.rand(3, 1))
    assert report.verdict is Verdict.IDENTICAL


def test_lists_of_graphs_and_graphs_by_keyword():
    graphs = molecules().to_data_list()

    def model(data):
        return SumReadout()(data.x, data.batch)

    for check in (check_permutation_invariance, check_gradient_equivariance, check_batch_independence):
        assert check(model, graphs).verdict is Verdict.IDENTICAL
        assert check(model, data=molecules()).verdict is Verdict.IDENTICAL
    broken = check_permutation_invariance(lambda data: data.x[:1], data=molecules())
    assert "before = model(data=Batch.from_data_list([data]))" in broken.counterexample


# What is said of rounding


def test_what_cancels_is_compared_with_what_cancelled():
    """The gradient of a bias before a batch norm is zero in exact arithmetic."""
    torch.manual_seed(0)
    norm = Net(before=nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))).train()
    with listening(Listener(explain_rounding=False)):
        report = check_gradient_equivariance(norm, *tensors(), permutations=2)
    assert report.verdict is Verdict.ROUNDING
    assert report.difference < 1e-3 or "amplified" in report.reason, str(report)

    def zero(x):
        return (0.1 * x).sum(0) - (0.1 * x).flip(0).cumsum(0)[-1]

    report = check_permutation_invariance(zero, torch.randn(40, 2))
    assert report.verdict is Verdict.ROUNDING
    assert report.cancels
    assert 0 < report.difference < 1e-5
    assert "of the largest number of inputs and results" in str(report)
    assert "the terms cancel" in report.reason


def test_gradient_that_jumps_by_rounding_alone():
    """The sum is zero but for rounding, whose sign depends on the order in float32 and float64 alike."""

    def model(x):
        return sum(row for row in 0.1 * x).abs()

    jumping = dataclasses.replace(gradients.QUESTION, may_jump=False)
    found = set()
    for seed in range(12):
        half = torch.randn(3, 1, generator=torch.Generator().manual_seed(seed))
        x = torch.cat([half, -half])
        report = check_gradient_equivariance(model, x, permutations=1, seed=seed)
        assert report.verdict is not Verdict.BROKEN, str(report)
        groups, _ = shuffles(model, read((x,)), 1, seed)
        with listening(Listener(shrink=False)):
            found.add(examine(model, jumping, groups, lambda *_: "").verdict)
    assert Verdict.BROKEN in found  # without a look at the jump


def test_gradient_of_ties_that_rounding_breaks_at_one_position():
    """As matrix products on some processors: equal rows, of which the last is added in another order."""
    weight = torch.rand(80, 80, generator=torch.Generator().manual_seed(0)) + 30

    def rows_of(x):
        terms = (x[:, :, None] * weight).unbind(1)
        return torch.cat([sum(terms)[:-1], sum(terms[::-1])[-1:]])

    for seed in range(1, 4):
        x = torch.randn(1, 80, generator=torch.Generator().manual_seed(seed)).expand(9, 80).clone()
        shared = check_gradient_equivariance(lambda x: rows_of(x).amax(0), x, permutations=4, seed=seed)
        assert shared.verdict is Verdict.ROUNDING, str(shared)
        assert "jumps" in shared.reason
        first = check_gradient_equivariance(lambda x: rows_of(x).max(0).values, x, permutations=4, seed=seed)
        assert first.verdict is Verdict.BROKEN, str(first)


# Positions


def distances(pos, batch):
    return SumReadout()(
        torch.stack([(pos - row).square().sum(1).sqrt().amax() for row in pos])[:, None], batch
    )


@pytest.mark.parametrize("width", [2, 3])
def test_positions_rotate_and_shift_exactly(width):
    pos, batch = torch.randn(12, width), torch.arange(12) // 12
    good = check_motion_invariance(distances, pos, batch)
    assert good.invariant, str(good)
    for model in (
        lambda pos, batch: pos.amax(0),
        lambda pos, batch: pos.abs().sum(1).amax(),  # axes may be swapped and turned round
        lambda pos, batch: pos.norm(dim=1).amax(),  # rotations alone do not show it
        lambda pos, batch: pos.double().pow(4).sum(),
    ):
        report = check_motion_invariance(model, pos, batch)
        assert report.verdict is Verdict.BROKEN, str(report)
        with pytest.raises(AssertionError):
            exec(report.counterexample, {"torch": torch, "model": model})
    with pytest.raises(AssertionError, match="rotation and translation"):
        assert_motion_invariant(lambda pos: pos.amax(), pos=pos)


def test_positions_are_needed():
    with pytest.raises(ValueError, match=r"pos: expected float positions .* got none"):
        check_motion_invariance(lambda x: x, torch.randn(3, 3))
    with pytest.raises(ValueError, match=r"got torch.float32 \[3, 5\]"):
        check_motion_invariance(lambda pos: pos, torch.randn(3, 5))
