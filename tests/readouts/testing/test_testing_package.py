"""The kit leaves model, data, modes and random numbers as they are, and loads little."""

import copy
import functools
import importlib
import json
import random
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from models_for_testing import Cumulated, Net, molecules, tensors
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import global_add_pool

import readouts.testing
from readouts.testing import (
    Verdict,
    check_batch_independence,
    check_gradient_equivariance,
    check_permutation_equivariance,
    check_permutation_invariance,
    check_size_sensitivity,
)
from readouts.testing.outputs import same_bits
from readouts.testing.progress import Listener, TimeUpError, listening

CHECKS = [
    check_batch_independence,
    check_gradient_equivariance,
    check_permutation_equivariance,
    check_permutation_invariance,
    check_size_sensitivity,
]


class Stateful(nn.Module):
    """Counts its calls, normalises by the batch, drops out, changes its input and makes random numbers."""

    def __init__(self):
        super().__init__()
        self.net, self.dropout, self.calls = Net(before=nn.BatchNorm1d(4)), nn.Dropout(0.1), 0

    def forward(self, data):
        self.calls += 1
        data.x = self.dropout(data.x) + random.random() + np.random.rand() + torch.rand(1)
        data.pos += 1
        return self.net(data)


@pytest.mark.parametrize("check", CHECKS)
def test_everything_stays_as_it_was(check):
    model, data = Stateful(), molecules(graphs=3)
    model.net.head.eval()
    modes = [module.training for module in model.modules()]
    weights, before = copy.deepcopy(model.state_dict()), data.clone()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    check(model, data)
    assert torch.get_rng_state().equal(states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()
    assert [module.training for module in model.modules()] == modes
    assert model.calls == 0
    assert all(same_bits(value, weights[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert data.keys() == before.keys()
    assert all(same_bits(data[name], before[name]) for name in ("x", "pos", "edge_index", "batch"))
    assert not data.x.requires_grad
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("check", CHECKS)
def test_state_stays_where_a_check_goes_to_the_end(check):
    """Running statistics, and tensors that a function holds."""
    net, shift = Net(before=nn.BatchNorm1d(4)), torch.zeros(4)
    inputs = tensors(graphs=2)
    before = [value.clone() for value in inputs]
    weights = copy.deepcopy(net.state_dict())

    def model(x, edge_index, batch):
        shift.add_(1)
        return net(x + shift.detach() * 0, edge_index, batch)

    check(model, *inputs)
    assert shift.eq(0).all()
    assert all(same_bits(value, weights[name]) for name, value in net.state_dict().items())
    assert all(map(torch.equal, inputs, before))


def test_data_that_is_the_result_of_other_modules():
    """Such tensors are no leaves of autograd, and cannot be copied with `copy.deepcopy`."""
    x = nn.Linear(2, 2)(torch.randn(5, 2))
    assert check_permutation_equivariance(lambda x: x, x).verdict == "identical bits"
    report = check_permutation_invariance(lambda data: data.x.amax(0), Data(x=x))
    assert report.verdict == "identical bits"
    assert x.requires_grad


def test_rows_that_may_be_nodes_or_edges_are_refused():
    ring = torch.tensor([[0, 1, 2], [1, 2, 0]])
    with pytest.raises(ValueError, match="got 3 nodes and 3 edges; pass Data"):
        check_permutation_invariance(lambda x, *edges: x.amax(0), torch.randn(3, 2), ring, torch.rand(3))


def test_sparse_inputs_are_refused():
    with pytest.raises(TypeError, match="dense tensors"):
        check_permutation_invariance(lambda x, a: x, torch.randn(3, 2), torch.eye(3).to_sparse())


def test_report_as_json():
    report = check_permutation_equivariance(Cumulated(), torch.randn(4, 2))
    fields = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert fields["verdict"] == "broken"
    assert fields["culprit"]["text"] == fields["culprit"]["kind"] == "Cumulated"
    assert fields["counterexample"] == report.counterexample
    raised = check_permutation_invariance(lambda x: x[: 1 + int(x[0, 0] > 0)], torch.randn(9, 2))
    assert raised.difference == float("inf")
    assert json.loads(json.dumps(raised.to_dict(), allow_nan=False))["difference"] is None


def test_public_names():
    assert readouts.testing.__all__ == sorted(readouts.testing.__all__)
    for name in readouts.testing.__all__:
        assert getattr(readouts.testing, name).__doc__, name


def test_no_module_is_shadowed():
    """A name that a package and its module share makes `import package.module` return something else."""
    root = Path(readouts.__file__).parent
    shadowed = set()
    for init in root.rglob("__init__.py"):
        package = importlib.import_module(".".join(init.parent.relative_to(root.parent).parts))
        for name in {path.stem for path in init.parent.iterdir()} - {"__init__"}:
            if not isinstance(vars(package).get(name, package), types.ModuleType):
                shadowed.add(f"{package.__name__}.{name}")
    assert not shadowed


def test_import_loads_neither_hypothesis_nor_compilers():
    """What PyG itself loads is not ours to choose."""
    code = (
        "import sys, torch_geometric.nn\n"
        "before = set(sys.modules)\n"
        "import readouts.testing\n"
        "heavy = {'hypothesis', 'triton', 'matplotlib', 'pytest', 'rdkit'}\n"
        "sys.exit(', '.join(heavy & (set(sys.modules) - before)) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def plus(x, net):
    return net(x)


class Holder:
    """An object with a network."""

    def __init__(self):
        self.net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    def read(self, x, batch):
        return global_add_pool(self.net(x), batch)


class Called(Holder):
    """An object that is called."""

    def __call__(self, x, batch):
        return self.read(x, batch)


in_object, in_method, in_partial = Called(), Holder(), Called()
bound, filled = in_method.read, functools.partial(plus, net=in_partial.net)
deep = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))


MODELS = {
    "object in a function": (lambda x, batch: in_object(x, batch), in_object.net),
    "bound method": (bound, in_method.net),
    "bound method in a function": (lambda x, batch: bound(x, batch), in_method.net),
    "partial in a function": (lambda x, batch: global_add_pool(filled(x), batch), in_partial.net),
    "comprehension": (lambda x, batch: global_add_pool(sum([deep(v) for v in (x, x)]), batch), deep),
    "lambda in a function": (lambda x, batch: (lambda v: global_add_pool(deep(v), batch))(x), deep),
}


@pytest.mark.parametrize("name", MODELS)
def test_networks_are_found_copied_and_cast_wherever_they_are(name):
    model, net = MODELS[name]
    before = copy.deepcopy(net.state_dict())
    torch.manual_seed(0)
    report = check_permutation_invariance(model, torch.randn(120, 4), torch.arange(4).repeat_interleave(30))
    assert report.verdict is Verdict.ROUNDING
    assert "shrinks in float64" in report.reason
    for name, weight in net.state_dict().items():
        assert same_bits(weight, before[name]), name


def test_complex_outputs_are_compared_whole():
    faulty = check_permutation_invariance(
        lambda x: torch.complex(torch.zeros(2), x[:2, 0]), torch.randn(5, 2)
    )
    assert faulty.verdict is Verdict.BROKEN
    honest = check_permutation_invariance(
        lambda x: torch.complex(x.amax(0), -x.amin(0)).conj(), torch.randn(5, 2)
    )
    assert honest.verdict is Verdict.IDENTICAL


class Large(nn.Module):
    """Weights that are worth sharing."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(80, 80)

    def forward(self, x):
        return self.linear(x).amax(0)


class WritesWeights(Large):
    """Changes its weights in every call, without autograd's knowledge."""

    def forward(self, x):
        self.linear.weight.data.add_(1.0)
        return super().forward(x)


@pytest.mark.parametrize(("make", "most"), [(Large, 3), (WritesWeights, 10**6)])
def test_large_weights_are_copied_once_for_each_dtype(make, most, monkeypatch):
    copies = []
    deepcopy = nn.Parameter.__deepcopy__
    monkeypatch.setattr(
        nn.Parameter,
        "__deepcopy__",
        lambda self, memo: (copies.append(self.numel() >= 80 * 80), deepcopy(self, memo))[1],
    )
    model = make()
    before = model.linear.weight.detach().clone()
    for check in (check_permutation_invariance, check_gradient_equivariance):
        copies.clear()
        assert check(model, torch.randn(9, 80)).invariant
        assert 0 < sum(copies) <= most
    assert same_bits(model.linear.weight, before)
    assert model.linear.weight.grad is None


def test_time_that_is_up_ends_a_check_with_what_is_known():
    shares, verdicts = [], []

    def stage(text, share):
        shares.append(share)
        if "permutation 4" in text:
            raise TimeUpError

    with listening(Listener(stage, verdicts.append)):
        report = check_permutation_invariance(lambda x: x.amax(0), torch.randn(9, 2))
        assert (report.verdict, report.trials) == (Verdict.IDENTICAL, 4)
        assert report.notes == ("the time was up after 4 of 18 trials",)
        assert verdicts == [report]
        assert shares == [0, *(place / 18 for place in range(5))]
    with listening(Listener(lambda *_: (_ for _ in ()).throw(TimeUpError))), pytest.raises(TimeUpError):
        check_permutation_invariance(lambda x: x.amax(0), torch.randn(9, 2))


def test_verdict_is_told_before_the_counterexample_is_sought():
    told = []

    def stage(text, share):
        if "looking for the layer" in text:
            told.append("culprit")

    with listening(Listener(stage, lambda report: told.append(report.culprit))):
        report = check_permutation_equivariance(Cumulated(), torch.randn(4, 2))
    assert told == [None, "culprit"]
    assert report.culprit is not None
    stages = []
    with listening(Listener(lambda text, share: stages.append((text, share)))):
        check_permutation_equivariance(Cumulated(), torch.randn(40, 2))
    last = [text for text, _ in stages].index("permutation equivariance: writing a counterexample")
    shares = [share for text, share in stages[last + 1 :] if "tries at most" in text]
    assert len(shares) == len(stages[last + 1 :]) > 3  # trials within a try are not told
    assert shares == sorted(shares)
    with listening(Listener(shrink=False)):
        long = check_permutation_equivariance(Cumulated(), torch.randn(40, 2)).counterexample
    assert long.count("[") > 40
