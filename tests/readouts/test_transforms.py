"""What PyTorch does to models: compile, export, vmap, functional derivatives, DDP, fake tensors."""

import pytest
import torch
from bits import assert_same_bits

from readouts import Segments, global_mean_pool, ops, readout
from readouts.functional import moments, order, weighted
from readouts.kernels import devices
from readouts.nn import MeanReadout, MultiReadout
from readouts.reductions import ELEMENTARY

X = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
INDEX = torch.tensor([3, 0, 0, 1, 3, 3, 0])
PTR = torch.tensor([0, 2, 2, 7])


def with_gradient(function, x):
    x = x.clone().requires_grad_()
    out = function(x)
    out.square().sum().backward()
    return out.detach(), x.grad


FUNCTIONS = {
    "batch": lambda x: readout(x, INDEX, ("sum", "mean", "max"), size=4),
    "all": lambda x: readout(x, INDEX, ELEMENTARY, size=4),
    "ptr": lambda x: readout(x, ptr=PTR, reduce="std"),
    "single graph": lambda x: readout(x, reduce="var"),
    "segments": lambda x: readout(x, Segments.from_batch(INDEX, 4), "min"),
    "pool": lambda x: global_mean_pool(x, INDEX, 4),
    "empty": lambda x: readout(x, INDEX, "max", size=6, empty=-1.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compile_without_graph_breaks(name):
    torch._dynamo.reset()
    compiled = torch.compile(FUNCTIONS[name], fullgraph=True, backend="aot_eager")
    for actual, expected in zip(with_gradient(compiled, X), with_gradient(FUNCTIONS[name], X), strict=True):
        assert_same_bits(actual, expected)


def test_compile_with_changing_sizes():
    torch._dynamo.reset()
    function = lambda x, index, size: readout(x, index, ("sum", "max"), size=size)  # noqa: E731
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for nodes, size in ((5, 2), (9, 3), (17, 11)):
        x, index = torch.randn(nodes, 3), torch.arange(nodes) % size
        assert_same_bits(compiled(x, index, size), function(x, index, size))


def test_compiled_code_still_checks_the_batch():
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, i: readout(x, i, size=2), fullgraph=True, backend="aot_eager")
    with pytest.raises(IndexError, match=r"batch: .* got 3"):
        compiled(X, INDEX)


class Model(torch.nn.Module):
    def __init__(self, readout):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.readout = readout

    def forward(self, x, index):
        return self.readout(self.linear(x), index, dim_size=4)


@pytest.mark.parametrize("readout", [MeanReadout(), MultiReadout(["sum", "std"])], ids=str)
def test_export(readout):
    model = Model(readout)
    nodes = torch.export.Dim("nodes", min=2)
    program = torch.export.export(model, (X, INDEX), dynamic_shapes=({0: nodes}, {0: nodes}))
    for rows in (7, 3):
        assert_same_bits(program.module()(X[:rows], INDEX[:rows]), model(X[:rows], INDEX[:rows]))


@pytest.mark.parametrize("reduce", ELEMENTARY)
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_vmap_over_features(reduce, dim):
    x = torch.randn(7, 3, 5).movedim(1, dim)
    actual = torch.func.vmap(lambda x: readout(x, INDEX, reduce, size=4), in_dims=dim)(x)
    expected = torch.stack([readout(part, INDEX, reduce, size=4) for part in x.unbind(dim)])
    assert_same_bits(actual, expected)


EVERY = {
    **{name: lambda x, i, name=name: readout(x, i, name, size=4) for name in (*ELEMENTARY, "median")},
    "several": lambda x, i: readout(x, i, ("sum", "max", "std"), size=4),
    "quantile": lambda x, i: order.quantile(x, i, [0.3, 0.5], size=4),
    "trimmed mean": lambda x, i: order.trimmed_mean(x, i, 0.1, size=4),
    "softmax": lambda x, i: weighted.softmax_mean(x, x[:, 0], i, size=4),
    "softmaxes": lambda x, i: weighted.softmax_mean(x, 2 * x, i, size=4),
    "weighted": lambda x, i: weighted.weighted_mean(x, x[:, 0], i, size=4),
    "weights": lambda x, i: weighted.weighted_mean(x, x * x, i, size=4),
    "logsumexp": lambda x, i: weighted.logsumexp(x, i, size=4),
    "power mean": lambda x, i: weighted.power_mean(x, 2.0, i, size=4),
    "moments": lambda x, i: moments.moments(x, i, size=4),
}


@pytest.mark.parametrize("name", EVERY)
def test_several_gradients_at_once(name):
    x = (torch.rand(7, 2, dtype=torch.float64) + 0.5).requires_grad_()
    out = EVERY[name](x, INDEX)
    grads = torch.randn(3, *out.shape, dtype=torch.float64)
    (actual,) = torch.autograd.grad(out, x, grads, is_grads_batched=True, retain_graph=True)
    expected = [torch.autograd.grad(out, x, grad, retain_graph=True)[0] for grad in grads]
    torch.testing.assert_close(actual, torch.stack(expected), rtol=1e-12, atol=1e-12)
    total = lambda x: EVERY[name](x, INDEX).square().sum()  # noqa: E731
    expected = torch.autograd.functional.hessian(total, x)
    for strategy in ("reverse-mode", "forward-mode"):
        actual = torch.autograd.functional.hessian(total, x, vectorize=True, outer_jacobian_strategy=strategy)
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_vmap_over_nothing(name, dim):
    x, batches = torch.rand(7, 2), torch.zeros(0, 7, dtype=torch.int64)
    nothing, shape = x.unsqueeze(dim).narrow(dim, 0, 0), EVERY[name](x, INDEX).shape
    one = lambda x: EVERY[name](x, INDEX)  # noqa: E731
    assert torch.func.vmap(one, in_dims=dim)(nothing).shape == (0, *shape)
    gradient = torch.func.grad(lambda x: one(x).sum())
    assert torch.func.vmap(gradient, in_dims=dim)(nothing).shape == (0, 7, 2)
    assert torch.func.vmap(lambda i: EVERY[name](x, i))(batches).shape == (0, *shape)


def test_vmap_over_batches():
    indices = torch.stack([INDEX, INDEX.flip(0), 3 - INDEX])
    actual = torch.func.vmap(lambda index: readout(X, index, ("sum", "max"), size=4))(indices)
    assert_same_bits(actual, torch.stack([readout(X, index, ("sum", "max"), size=4) for index in indices]))
    borders = torch.tensor([[0, 2, 7], [0, 0, 7]])
    actual = torch.func.vmap(lambda ptr: readout(X, ptr=ptr))(borders)
    assert_same_bits(actual, torch.stack([readout(X, ptr=ptr) for ptr in borders]))


@pytest.mark.parametrize("reduce", ELEMENTARY)
def test_functional_derivatives(reduce):
    x = torch.randn(5, 2, dtype=torch.float64)
    index = torch.tensor([0, 1, 0, 1, 1])
    function = lambda x: readout(x, index, reduce, size=2)  # noqa: E731
    torch.testing.assert_close(
        torch.func.jacrev(function)(x), torch.autograd.functional.jacobian(function, x), rtol=0, atol=0
    )
    total = lambda x: (function(x) ** 2).sum()  # noqa: E731
    expected = torch.autograd.functional.hessian(total, x)
    for hessian in (torch.func.jacrev(torch.func.jacrev(total)), torch.func.hessian(total)):
        torch.testing.assert_close(hessian(x), expected, rtol=1e-12, atol=1e-12)
    _, tangent = torch.func.jvp(function, (x,), (torch.ones_like(x),))
    expected = torch.autograd.functional.jvp(function, x, torch.ones_like(x))[1]
    torch.testing.assert_close(tangent, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("transform", ["grad", "vmap"])
def test_compiled_transforms(transform):
    torch._dynamo.reset()
    x, index = torch.randn(3, 4, 2), torch.tensor([0, 0, 1, 1])
    if transform == "grad":
        function = torch.func.grad(lambda x: readout(x, index, "std", size=2).sum())
        x = x[0]
    else:
        function = torch.func.vmap(lambda x: readout(x, index, "max", size=2))
    compiled = torch.compile(function, backend="aot_eager")
    torch.testing.assert_close(compiled(x), function(x), rtol=0, atol=0)


def test_distributed_data_parallel(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        model = Model(MeanReadout())
        twin = torch.nn.parallel.DistributedDataParallel(model)
        twin(X, INDEX).square().sum().backward()
        gradient = model.linear.weight.grad.clone()
        model.zero_grad()
        model(X, INDEX).square().sum().backward()
        assert_same_bits(gradient, model.linear.weight.grad)
    finally:
        torch.distributed.destroy_process_group()


def test_operators_keep_the_rules_of_torch_library():
    x, grad = torch.randn(7, 2), torch.randn(4, 2, 2)
    groups = INDEX, *ops.group(INDEX, 4)
    operators = torch.ops.readouts
    calls = [(operators.group, (INDEX, 4)), (operators.expand_ptr, (PTR, 7))]
    for names in (("sum", "mean"), ("max", "std")):
        out = torch.randn(4, 2, 2)
        calls.append((operators.reduce, (x, *groups, names)))
        calls.append((operators.reduce_backward, (grad, x, out, *groups, names)))
    for operator, arguments in calls:
        verdicts = torch.library.opcheck(operator.default, arguments)
        assert set(verdicts.values()) == {"SUCCESS"}


def test_nothing_waits_for_a_device_when_the_size_is_given():
    """A meta tensor has no values, so that every read of one (which would wait on a GPU) raises."""
    x, index = torch.empty(7, 4, device="meta"), torch.empty(7, device="meta", dtype=torch.int64)
    with pytest.raises(RuntimeError, match=r"meta tensors"):
        readout(x, index)
    x.requires_grad_()
    out = readout(x, index, ELEMENTARY, size=4)
    assert out.shape == (4, 24)
    out.sum().backward()
    assert readout(x, ptr=torch.empty(5, device="meta", dtype=torch.int64)).shape == (4, 4)


def test_devices_without_float64_go_through_the_cpu(monkeypatch):
    arguments = X, INDEX, *ops.group(INDEX, 4), ("sum",)
    expected = ops.reduce(*arguments)
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", {"cpu"})
    assert_same_bits(torch.ops.readouts.reduce(*arguments), expected)
