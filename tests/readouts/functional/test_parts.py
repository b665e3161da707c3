"""Large inputs are computed part by part: the bits are those of the undivided computation."""

import pytest
import torch
from bits import assert_same_bits

from readouts import Segments
from readouts.functional import moments, order, parts, weighted
from readouts.nn import (
    MultiheadAttentionReadout,
    PowerMeanReadout,
    QuantileReadout,
    Set2SetReadout,
    SoftmaxReadout,
)

SORTED = torch.tensor([0] * 9 + [2] * 5 + [3] + [4] * 30 + [6] * 2)  # graphs 1, 5 and 7 are empty
LAYOUTS = {
    "sorted": SORTED,
    "unsorted": SORTED[torch.randperm(len(SORTED), generator=torch.Generator().manual_seed(1))],
    "single": torch.zeros_like(SORTED),
}
SCORES = torch.linspace(-3, 3, len(SORTED))


def module(build, *arguments, **options):
    """Return a readout as a function of x, graphs and the values of its parameters."""
    torch.manual_seed(3)
    made = {dtype: build(*arguments, **options).to(dtype) for dtype in (torch.float32, torch.float64)}

    def function(x, graphs):
        learned = made[torch.float64 if x.dtype == torch.float64 else torch.float32]
        return learned(x, graphs), list(learned.parameters())

    return function


READOUTS = {
    "moments": lambda x, graphs: (moments.moments(x, graphs), []),
    "quantile": lambda x, graphs: (order.quantile(x, graphs, [0.1, 0.5, 0.75]), []),
    "nearest": lambda x, graphs: (order.quantile(x, graphs, 0.3, interpolation="nearest"), []),
    "trimmed mean": lambda x, graphs: (order.trimmed_mean(x, graphs, 0.2), []),
    "logsumexp": lambda x, graphs: (weighted.logsumexp(x, graphs, empty=2), []),
    "power mean": lambda x, graphs: (weighted.power_mean(x, 3.0, graphs), []),
    "geometric mean": lambda x, graphs: (weighted.power_mean(x, 0.0, graphs), []),
    "softmax": lambda x, graphs: (SoftmaxReadout(2.0, empty=-1)(x, graphs), []),
    "scores": lambda x, graphs: (weighted.softmax_mean(x, x * x, graphs), []),
    "one score": lambda x, graphs: (weighted.softmax_mean(x, SCORES.double(), graphs), []),
    "weights": lambda x, graphs: (weighted.weighted_mean(x, x.abs(), graphs), []),
    "one weight": lambda x, graphs: (weighted.weighted_mean(x, SCORES, graphs), []),
    "learned softmax": module(SoftmaxReadout, 2.0, learn=True, channels=40),
    "learned power": module(PowerMeanReadout, 2.0, learn=True),
    "learned quantile": module(QuantileReadout, [0.2, 0.6], learnable=True),
    "set2set": module(Set2SetReadout, 40, 2),
    "multihead": module(MultiheadAttentionReadout, 40, 2, 3),
}


@pytest.fixture
def counted(monkeypatch):
    """Divide from one byte on, into parts as small as possible, and return the list of parts."""
    made, part = [], parts._Part
    monkeypatch.setattr(parts, "_Part", lambda *arguments: made.append(part(*arguments)) or made[-1])
    monkeypatch.setattr(parts, "LARGE", 1)
    monkeypatch.setattr(parts, "LEAST", 1)
    return made


def values(dtype):
    x = torch.randn(len(SORTED), 40, generator=torch.Generator().manual_seed(0)).mul(9)
    x[::4] = 2
    return x.to(dtype)


def results(function, x, index, **options):
    """Return the readout and all of its gradients."""
    x = x.clone()
    if not x.is_floating_point():
        return [function(x, Segments.from_batch(index, 8))[0].detach()]
    out, learned = function(x.requires_grad_(), Segments.from_batch(index, 8))
    weight = torch.linspace(-1, 2, out.numel()).view(out.shape).to(out)
    return [out.detach(), *torch.autograd.grad(out, [x, *learned], weight, **options)]


@pytest.mark.parametrize(
    ("layout", "dtype"),
    [
        *((layout, torch.float32) for layout in LAYOUTS),
        ("unsorted", torch.float64),
        ("sorted", torch.float16),
        ("unsorted", torch.int32),
    ],
)
@pytest.mark.parametrize("name", READOUTS)
def test_parts_have_the_bits_of_the_whole(name, layout, dtype, counted, monkeypatch):
    attends = name in ("set2set", "multihead")
    if attends and dtype not in (torch.float32, torch.float64):
        pytest.skip("has networks of its own, in their dtype")
    function, x, index = READOUTS[name], values(dtype), LAYOUTS[layout]
    found = results(function, x, index)
    light = (name, dtype) == ("one weight", torch.float32)
    light |= name == "trimmed mean" and layout in ("sorted", "single")
    if not light:
        assert len({part.segments.num_nodes for part in counted}) > 2 or (
            layout == "single" and len(counted) > 0
        )
    with monkeypatch.context() as undivided:
        undivided.setattr(parts, "_is_large", lambda *_: False)
        for actual, expected in zip(found, results(function, x, index), strict=True):
            assert_same_bits(actual, expected)


@pytest.mark.parametrize("name", ["moments", "quantile", "softmax", "learned power", "one score"])
def test_derivatives_of_every_kind(name, counted, monkeypatch):
    """Second derivatives, several gradients at once, and torch.func are those of the whole."""

    def found():
        x = values(torch.float64).requires_grad_()
        function = lambda x: READOUTS[name](x, Segments.from_batch(SORTED, 8))[0]  # noqa: E731
        (first,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
        second = torch.autograd.grad(first.square().sum(), x)
        out = function(x)
        several = torch.autograd.grad(out, x, torch.stack([out, 2 * out]).detach(), is_grads_batched=True)
        mapped = torch.func.vmap(function)(torch.stack([x, 2 * x]).detach())
        _, along = torch.func.jvp(function, (x.detach(),), (torch.ones_like(x),))
        return [first.detach(), *second, *several, mapped, along]

    actual = found()
    assert counted
    monkeypatch.setattr(parts, "_is_large", lambda *_: False)
    for a, b in zip(actual, found(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_graphs_changed_before_backward(counted):
    segments = Segments.from_batch(SORTED, 8)
    out = moments.moments(values(torch.float32).requires_grad_(), segments)
    segments.index[0] = 5
    with pytest.raises(IndexError, match="expected the graphs that were counted"):
        out.sum().backward()


def test_small_inputs_are_not_divided(monkeypatch):
    monkeypatch.setattr(parts._InParts, "apply", None)
    for function in READOUTS.values():
        function(values(torch.float32), Segments.from_batch(SORTED, 8))


def test_tracing_does_not_divide(counted):
    function = torch.compile(
        lambda x: moments.moments(x, SORTED, size=8), fullgraph=True, backend="aot_eager"
    )
    out = function(values(torch.float64))
    assert not counted
    torch.testing.assert_close(out, moments.moments(values(torch.float64), SORTED, size=8))
