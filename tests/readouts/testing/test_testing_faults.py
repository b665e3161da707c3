"""Planted faults get the right verdict and the right culprit, honest models no false alarm."""

import pytest
import torch
from models_for_testing import FAULTS, HONEST, gin, inputs_of, molecules, tensors
from torch_geometric.nn import global_add_pool

from readouts.testing import (
    Verdict,
    check_batch_independence,
    check_gradient_equivariance,
    check_permutation_invariance,
    counterexample,
)


@pytest.fixture
def _unshrunk(monkeypatch):
    """Leave counterexamples as they are found; `test_testing_counterexamples.py` looks at them."""
    monkeypatch.setattr(counterexample, "BUDGET", 0)


@pytest.mark.usefixtures("_unshrunk")
@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_found_and_named(name):
    fault = FAULTS[name]
    model = fault.make().train(fault.training)
    report = fault.check(model, *tensors())
    assert report.verdict is fault.verdict, str(report)
    assert (report.culprit.name, report.culprit.kind) == (fault.name, fault.kind), str(report)


@pytest.mark.usefixtures("_unshrunk")
@pytest.mark.parametrize("name", HONEST)
def test_honest_model_raises_no_alarm(name):
    for seed in range(5):
        torch.manual_seed(seed)
        model = HONEST[name]().train(seed % 2 == 1)
        inputs = inputs_of(name, seed=seed, graphs=3)
        report = check_permutation_invariance(model, *inputs, permutations=2, seed=seed)
        assert report.invariant, str(report)


@pytest.mark.usefixtures("_unshrunk")
@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("check", [check_batch_independence, check_gradient_equivariance])
def test_honest_model_raises_no_alarm_in_company_and_gradient(name, check):
    report = check(HONEST[name]().eval(), *inputs_of(name, graphs=2))
    assert report.invariant, str(report)


def test_gin_of_exact_sums_keeps_every_bit():
    report = check_permutation_invariance(gin().eval(), *tensors(graphs=8, nodes=18), permutations=100)
    assert report.verdict is Verdict.IDENTICAL, str(report)
    assert report.trials >= 100
    assert (report.difference, report.culprit, report.counterexample) == (0.0, None, "")


def test_same_gin_with_the_sums_of_pyg_rounds():
    model = gin(lambda: "sum", global_add_pool).eval()
    report = check_permutation_invariance(model, *tensors(graphs=8, nodes=18))
    assert report.verdict is Verdict.ROUNDING, str(report)
    assert report.culprit.kind == "SumAggregation"


def test_ten_layers_on_128_molecules_take_the_time_of_a_hundred_forward_passes():
    torch.manual_seed(1)
    model = gin(lambda: "sum", global_add_pool, layers=10).eval()
    batch = molecules(graphs=128, nodes=18)
    nodes = []
    model.register_forward_hook(lambda model, inputs, output: nodes.append(inputs[0].num_nodes))
    report = check_permutation_invariance(model, batch)
    assert report.verdict is Verdict.ROUNDING
    assert batch.num_nodes < sum(nodes) < 100 * batch.num_nodes
