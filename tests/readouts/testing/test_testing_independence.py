"""Batch independence, gradients and report cards beyond the planted faults."""

import pytest
import torch
from models_for_testing import WIDTH, ArgmaxGradient, Net, PaddedMean, gin, molecules, tensors
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GINConv, global_add_pool, global_max_pool, global_mean_pool
from torch_geometric.utils import to_dense_batch

from readouts.nn import MaxReadout, SumReadout
from readouts.testing import (
    Verdict,
    assert_batch_independent,
    assert_gradient_equivariant,
    check_batch_independence,
    check_gradient_equivariance,
    check_size_sensitivity,
)


def test_readouts_keep_their_bits_in_any_company():
    _, _, batch = tensors()
    for model in (SumReadout(), MaxReadout(), lambda x, batch: SumReadout()(x, batch)):
        report = check_batch_independence(model, torch.randn(len(batch), 3), batch)
        assert report.verdict is Verdict.IDENTICAL, str(report)
        assert report.trials == 24
        assert report.notes == ()


def test_nan_in_another_graph_is_found():
    def model(x, batch):
        mask = batch[:, None] == torch.arange(int(batch.max()) + 1)
        return mask.float().t() @ x  # 0 * NaN

    report = check_batch_independence(model, *tensors()[::2])
    assert report.verdict is Verdict.BROKEN
    assert report.shown_by == "beside a graph of NaN"


def test_order_of_the_graphs_is_found():
    def model(x, batch):
        return global_add_pool(x, batch) * (torch.arange(int(batch.max()) + 1)[:, None] == 0)

    assert check_batch_independence(model, *tensors()[::2]).verdict is Verdict.BROKEN


def test_graph_that_cannot_be_run_alone():
    class Several(nn.Module):
        def forward(self, x, batch):
            if int(batch.max()) == 0:
                raise ValueError("one graph only")
            return global_add_pool(x, batch)

    report = check_batch_independence(nn.ModuleList([Several()])[0], *tensors()[::2])
    assert report.verdict is Verdict.BROKEN
    assert "one graph only" in report.reason
    assert report.culprit.kind == "Several"


def test_company_that_cannot_be_run_is_noted():
    def model(x, batch):
        if x.isnan().any():
            raise FloatingPointError("NaN")
        return global_add_pool(x, batch)

    report = check_batch_independence(model, *tensors()[::2])
    assert report.invariant
    assert report.notes == ("cannot be run beside a graph of NaN: FloatingPointError",)


def test_model_of_one_graph_only_is_refused():
    def model(x, batch):
        if int(batch.max()):
            raise ValueError("several graphs")
        return x.sum(0, keepdim=True)

    with pytest.raises(ValueError, match="expected one that takes several graphs"):
        check_batch_independence(model, torch.randn(3, 2), torch.zeros(3, dtype=torch.int64))


def test_model_that_cannot_be_run_raises_its_own_error():
    with pytest.raises(ZeroDivisionError):
        check_batch_independence(lambda x, batch: 1 / 0, *tensors()[::2])


def test_attributes_of_a_graph_stay_with_it():
    """One row per graph, and as many graphs as edges."""
    parts = [
        Data(
            x=torch.randn(3, 2),
            edge_index=torch.tensor([[0], [2]]),
            edge_attr=torch.randn(1, 2),
            level=torch.randn(1, 2),
        )
        for _ in range(4)
    ]

    def model(data):
        messages = data.x[data.edge_index[0]] * data.edge_attr
        return global_add_pool(messages, data.batch[data.edge_index[0]], data.num_graphs) + data.level

    assert check_batch_independence(model, Batch.from_data_list(parts)).verdict is Verdict.IDENTICAL


def test_asserts():
    model = Net(PaddedMean()).eval()
    with pytest.raises(AssertionError, match="BROKEN"):
        assert_batch_independent(model, *tensors())
    assert_batch_independent(SumReadout(), *tensors()[::2], allow="identical")
    with pytest.raises(AssertionError, match="BROKEN"):
        assert_gradient_equivariant(Net(ArgmaxGradient()).eval(), *tensors())
    assert_gradient_equivariant(MaxReadout(), *tensors()[::2], allow="identical")


def test_gradient_of_ties_alone_shows_the_fault():
    """Where no two nodes tie, the gradient of the first winner is the gradient of the winner."""
    report = check_gradient_equivariance(lambda x: x.max(0).values, torch.randn(6, 3))
    assert report.verdict is Verdict.BROKEN
    assert "features" in report.shown_by
    assert check_gradient_equivariance(lambda x: x.amax(0), torch.randn(6, 3)).verdict is Verdict.IDENTICAL


def test_no_gradient_is_refused():
    with pytest.raises(ValueError, match="expected an output with a gradient"):
        check_gradient_equivariance(lambda x: x.detach().sum(0), torch.randn(3, 2))


CARDS = {  # copies, cover and proportions distinguished; behaviour
    "sum": (lambda: global_add_pool, (True, True, True), "sum"),
    "mean": (lambda: global_mean_pool, (False, False, True), "mean"),
    "max": (lambda: global_max_pool, (False, False, False), "max"),
    "sum behind a layer": (lambda: Net(global_add_pool).eval(), (True, True, True), "size"),
    "mean behind layers": (lambda: Net(global_mean_pool).eval(), (False, False, True), "mean"),
}


@pytest.mark.parametrize("name", CARDS)
def test_report_card(name):
    make, seen, alike = CARDS[name]
    model = make()
    takes_edges = isinstance(model, Net)
    x, edge_index, batch = tensors()
    with_edges = model if takes_edges else lambda x, edge_index, batch: model(x, batch)
    card = check_size_sensitivity(with_edges, x, edge_index, batch)
    assert (card.copies, card.lift, card.proportions) == seen
    assert card.behaves_like == alike
    assert card.additive is (alike == "sum")
    assert card.to_dict()["behaves_like"] == alike
    assert card.labels
    assert str(card).count("distinguished") == sum(seen) + 1


def test_report_card_of_a_constant_model_sees_nothing():
    def model(x, batch):
        return torch.ones(int(batch.max()) + 1, 2)

    card = check_size_sensitivity(model, *tensors()[::2])
    assert (card.copies, card.proportions, card.labels) == (False, False, False)
    assert card.behaves_like == "nothing"
    assert "distinguishes none of these" in str(card)


@pytest.mark.parametrize("extreme", ["amax", "amin"])
def test_padding_is_found_in_whatever_graph_it_shows(extreme):
    """The graph in the middle alone has a feature of one sign, in which zeros of padding win."""
    x = torch.tensor([[1.0], [-1.0], [2.0], [-2.0], [3.0], [-1.0], [1.0]])
    x[3:5] = torch.tensor([[-2.0], [-3.0]]) if extreme == "amax" else torch.tensor([[2.0], [3.0]])
    batch = torch.tensor([0, 0, 0, 1, 1, 2, 2])

    def model(x, batch):
        return getattr(to_dense_batch(x, batch)[0], extreme)(dim=1)

    for features in (x, -x, torch.randn(7, 4), torch.ones(7, 1)):
        assert check_batch_independence(model, features, batch).verdict is Verdict.BROKEN


def test_report_card_of_a_random_model():
    card = check_size_sensitivity(
        lambda x, batch: global_add_pool(torch.rand_like(x), batch), *tensors()[::2]
    )
    assert card.behaves_like == "random"


def test_report_card_of_a_mean_gin_cannot_see_a_cover():
    torch.manual_seed(0)
    card = check_size_sensitivity(gin(lambda: "mean", global_mean_pool).eval(), molecules())
    assert (card.copies, card.lift, card.proportions, card.behaves_like) == (False, False, True, "mean")


def test_report_card_says_what_cannot_be_asked():
    card = check_size_sensitivity(lambda x: x.sum(0, keepdim=True), torch.randn(1, 2))
    assert (card.lift, card.proportions) == (None, None)
    assert str(card).count("not tested: no such graph") == 2
    assert card.behaves_like == "sum"


def test_report_card_wants_one_row_per_graph():
    conv = GINConv(nn.Linear(WIDTH, 2))
    with pytest.raises(ValueError, match="expected one row per graph in output"):
        check_size_sensitivity(conv, *tensors()[:2])
