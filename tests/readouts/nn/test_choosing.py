"""The table of docs/choosing.md: every claim about every readout is put to the test."""

import re
from pathlib import Path

import pytest
import torch
from bits import assert_same_bits
from torch.nn import Linear, Sequential, Sigmoid
from torch.utils._python_dispatch import TorchDispatchMode

from readouts import nn

FEATURES = 2
NOT_IN_THE_TABLE = {"MultiReadout", "PartialReadout", "SqueezeExcitation", "from_pyg", "readout_resolver"}
ARGUMENTS = {
    "QuantileReadout": lambda: dict(q=0.25),
    "TrimmedMeanReadout": lambda: dict(proportion=0.1),
    "WeightedMeanReadout": lambda: dict(gate=Sequential(Linear(FEATURES, 1), Sigmoid())),
    "PowerMeanReadout": lambda: dict(p=3.0),
    "AttentionReadout": lambda: dict(gate_nn=Linear(FEATURES, 1)),
    "MultiheadAttentionReadout": lambda: dict(channels=FEATURES),
    "Set2SetReadout": lambda: dict(in_channels=FEATURES, processing_steps=2),
    "DeepSetsReadout": lambda: dict(global_nn=Linear(FEATURES, FEATURES)),
    "SortReadout": lambda: dict(k=3),
}
NODES = 20


def table():
    text = (Path(__file__).parents[3] / "docs" / "choosing.md").read_text()
    lines = re.findall(r"^\| ((?:readout|`\w+Readout`) \| .+) \|$", text, flags=re.MULTILINE)
    head, *rows = [line.split(" | ") for line in lines]
    return {row[0].strip("`"): dict(zip(head, row, strict=True)) for row in rows}


TABLE = table()


@pytest.fixture(params=TABLE)
def name(request):
    return request.param


@pytest.fixture
def read(name):
    """The readout of one graph."""
    module = getattr(nn, name)(**ARGUMENTS.get(name, dict)())
    return lambda x: module(x, torch.zeros(len(x), dtype=torch.int64), dim_size=1)


@pytest.fixture
def x():
    """Positive features, for power means."""
    return torch.rand(NODES, FEATURES) + 0.5


def test_every_readout_has_a_row():
    assert set(TABLE) == set(nn.__all__) - NOT_IN_THE_TABLE


def test_compile_with_symbolic_sizes(name, x):
    """Sizes, and numbers such as `empty`, are symbolic from the first call on."""
    options = ARGUMENTS.get(name, dict)()
    if name != "DeepSetsReadout":  # its value of an empty graph is that of its network
        options["empty"] = 0.5
    module = getattr(nn, name)(**options)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="eager", dynamic=True)
    index = torch.arange(NODES) % 3
    assert_same_bits(compiled(x, index, dim_size=4), module(x, index, dim_size=4))


def test_copies(name, read, x):
    alike = torch.allclose(read(torch.cat([x, x])), read(x), rtol=1e-5)
    assert TABLE[name]["copies"] == ("same" if alike else "differ")


def test_mixture(name, read):
    one, two = torch.tensor([[1.0, 0.5]]), torch.tensor([[2.0, 0.25]])
    alike = torch.allclose(read(torch.cat([one, one, two])), read(torch.cat([one, two])), rtol=1e-4)
    assert TABLE[name]["mixture"] == ("same" if alike else "differ")


def test_outlier(name, read, x):
    moved = 0.0
    for value in (-1e6, 1e6):
        wild = x.clone()
        wild[7] = value
        moved = max(moved, float((read(wild) - read(x)).detach().abs().max()))
    assert TABLE[name]["outlier"] == ("unbounded" if moved > 100 else "bounded")
    assert moved < 1 or moved > 100


def test_gradient(name, read, x):
    (gradient,) = torch.autograd.grad(read(x.requires_grad_()).square().sum(), x)
    learning = int((gradient != 0).any(dim=1).sum())
    kept, selected = range(NODES - 8, NODES), range(1, 5)
    claims = {"every node": NODES, "all but the trimmed": kept, "selected nodes": selected}
    claim = claims[TABLE[name]["gradient"]]
    assert learning == claim if isinstance(claim, int) else learning in claim


def test_empty_graph(name):
    module = getattr(nn, name)(**ARGUMENTS.get(name, dict)())
    out = module(torch.zeros(0, FEATURES), torch.zeros(0, dtype=torch.int64), dim_size=1)
    if TABLE[name]["empty graph"] == "global_nn of 0":
        assert out.equal(module.global_nn(torch.zeros(1, FEATURES)))
    else:
        assert out.eq(float(TABLE[name]["empty graph"])).all()


class Passes(TorchDispatchMode):
    """Counts the operators that go over all nodes."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
        self.count += operator.namespace == "readouts" and "group" not in operator.name()
        return operator(*arguments, **(keywords or {}))


def test_passes(name, read, x):
    with Passes() as passes:
        read(x)
    assert str(passes.count) == TABLE[name]["passes"]
