"""Public functions on a CUDA device return the bits of the CPU, forward and backward."""

import copy

import pytest
import torch
import torch.distributed as dist
from bits import assert_same_bits
from torch.nn import Linear, Sequential, Sigmoid

import readouts
from readouts import Accumulator, Segments, distributed, nn, ops, readout
from readouts.functional.order import INTERPOLATIONS
from readouts.reductions import ELEMENTARY

DEVICE = "cuda"
if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

SIZES = [40, 0, 1, 300, 7, 2, 6000, 25]  # nodes of graphs
B, F = len(SIZES), 5
TRIPLE = ("sum", "mean", "max")
CLOSE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}
ARGUMENTS = {  # of modules whose results are rounded on the way: matrix products, exp, log, pow
    "AttentionReadout": lambda: dict(gate_nn=Linear(F, 1)),
    "DeepSetsReadout": lambda: dict(local_nn=Linear(F, F), global_nn=Linear(F, F)),
    "LogSumExpReadout": dict,
    "MultiheadAttentionReadout": lambda: dict(channels=F),
    "PowerMeanReadout": lambda: dict(p=3.0),
    "Set2SetReadout": lambda: dict(in_channels=F, processing_steps=2),
    "SizeAwareMeanReadout": dict,
    "SoftmaxReadout": dict,
    "WeightedMeanReadout": lambda: dict(gate=Sequential(Linear(F, 1), Sigmoid())),
}
EXACT = {
    **{f"{name.capitalize()}Readout": dict for name in ELEMENTARY},
    "MedianReadout": dict,
    "QuantileReadout": lambda: dict(q=[0.25, 0.9]),
    "TrimmedMeanReadout": lambda: dict(proportion=0.1),
    "SortReadout": lambda: dict(k=3),
    "MultiReadout": lambda: dict(reduce=["sum", "mean", "median", "std"]),
}


@pytest.fixture(params=["sorted", "shuffled"])
def batch(request):
    """The graph of every node."""
    index = torch.arange(B).repeat_interleave(torch.tensor(SIZES))
    return index if request.param == "sorted" else index[torch.randperm(len(index))]


@pytest.fixture
def x(batch, dtype):
    """Features of several magnitudes, with ties."""
    x = torch.randn(len(batch), F, dtype=torch.float64) * torch.pow(2.0, torch.arange(F) * 3 - 6)
    x[::5] = x[0].clone()
    return x.to(dtype)


def assert_same_on_both(call, *tensors, close=False):
    """Compare the results of a call on both devices, and the gradients of all tensors of floats."""
    found = []
    for device in ("cpu", DEVICE):
        given = [tensor.to(device) for tensor in tensors]
        leaves = [t.requires_grad_() for t in (t.detach().clone() for t in given) if t.is_floating_point()]
        rest = [t for t in given if not t.is_floating_point()]
        out = call(*leaves, *rest)
        results = [out.detach()]
        if out.requires_grad:
            weights = (torch.arange(out.numel()) % 7 - 3).view(out.shape).to(out)
            results += torch.autograd.grad(out, leaves, weights)
        assert all(result.device.type == device for result in results)
        found.append([result.cpu() for result in results])
    for expected, actual in zip(*found, strict=True):
        if close:
            torch.testing.assert_close(actual, expected, rtol=CLOSE[actual.dtype], atol=CLOSE[actual.dtype])
        else:
            assert_same_bits(actual, expected)


@pytest.mark.parametrize("names", [*((name,) for name in ELEMENTARY), TRIPLE, ELEMENTARY], ids="-".join)
def test_readout(names, x, batch):
    assert_same_on_both(lambda x, batch: readout(x, batch, names, size=B), x, batch)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool], ids=str)
def test_readout_of_integers(dtype, batch):
    x = torch.randint(0, 2 if dtype == torch.bool else 100, (len(batch), F)).to(dtype)
    assert_same_on_both(lambda x, batch: readout(x, batch, ("sum", "max", "mean"), size=B), x, batch)


def test_readout_without_size_by_ptr_and_of_one_graph(x, batch):
    index = batch.sort().values
    ptr = torch.nn.functional.pad(torch.tensor(SIZES).cumsum(0), (1, 0))
    assert_same_on_both(lambda x, batch: readout(x, batch, TRIPLE), x, index)
    assert_same_on_both(lambda x, ptr: readout(x, None, TRIPLE, ptr=ptr), x, ptr)
    assert_same_on_both(lambda x: readout(x, None, TRIPLE), x)


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (3, 2, 4), (3,)], ids=str)
def test_unusual_shapes(shape):
    x, batch = torch.randn(shape), torch.arange(shape[0]) % 2
    assert_same_on_both(lambda x, batch: readout(x, batch, TRIPLE, size=3), x, batch)


def test_special_numbers(x, batch):
    x[::50] = torch.inf
    x[1::70, 1] = -torch.inf
    x[2::900] = torch.nan
    assert_same_on_both(lambda x, batch: readout(x, batch, ELEMENTARY, size=B), x, batch)
    assert_same_on_both(lambda x, batch: readouts.median(x, batch, size=B), x, batch)


def test_groups(batch):
    """Grouping may order the nodes of a graph in its own way; offsets, counts and sets are the same."""
    here, there = (Segments.from_batch(batch.to(device), B) for device in ("cpu", DEVICE))
    assert there.ptr.cpu().equal(here.ptr)
    assert there.index.cpu().equal(here.index)
    assert there.count.cpu().equal(here.count)
    if there.order is not None:
        assert batch[there.order.cpu()].equal(batch.sort().values)
        assert there.order.sort().values.cpu().equal(torch.arange(len(batch)))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("graphs", [1, 5, 70_000])
def test_groups_of_many_nodes(graphs, dtype):
    batch = torch.randint(0, graphs, (100_000,), dtype=dtype, device=DEVICE)
    for index in (batch, batch.sort().values):
        groups = Segments.from_batch(index, graphs)
        assert groups.ptr.diff().equal(torch.bincount(batch, minlength=graphs))
        assert batch.sort().values.equal(index[groups.order])
        assert groups.order.sort().values.equal(torch.arange(100_000, device=DEVICE))
    assert groups.order.equal(torch.arange(100_000, device=DEVICE))


def test_groups_are_always_the_same_with_deterministic_algorithms(batch):
    torch.use_deterministic_algorithms(True)
    try:
        order = Segments.from_batch(batch.to(DEVICE), B).order
    finally:
        torch.use_deterministic_algorithms(False)
    assert order.cpu().equal(batch.argsort(stable=True))


def test_groups_in_a_cuda_graph():
    batch = torch.randint(0, 9, (5000,), device=DEVICE)
    other = torch.randint(0, 9, (5000,), device=DEVICE)
    Segments.from_batch(batch, 9)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        groups = Segments.from_batch(batch, 9)
    batch.copy_(other)
    graph.replay()
    assert groups.ptr.diff().equal(torch.bincount(other, minlength=9))
    assert other[groups.order].equal(other.sort().values)


def test_partial_readout_takes_the_same_nodes(batch):
    module = nn.PartialReadout("sum", count=3, mode="strided")
    x = torch.arange(len(batch), dtype=torch.float64).view(-1, 1)
    assert_same_on_both(lambda x, batch: module(x, batch, dim_size=B), x, batch)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_quantiles(interpolation, x, batch):
    call = lambda x, batch: readouts.quantile(  # noqa: E731
        x, batch, [0.0, 0.3, 1.0], size=B, interpolation=interpolation
    )
    assert_same_on_both(call, x, batch)


def test_other_order_statistics(x, batch):
    assert_same_on_both(lambda x, batch: readouts.median(x, batch, size=B), x, batch)
    assert_same_on_both(lambda x, batch: readouts.trimmed_mean(x, batch, 0.2, size=B), x, batch)


@pytest.mark.parametrize(
    ("graphs", "nodes", "features"), [(64, 12, 70), (40, 30, 64), (300, 60, 33), (3, 20_000, 2)]
)
def test_medians_of_graphs_of_similar_sizes(graphs, nodes, features, dtype):
    index = torch.randint(0, graphs, (graphs * nodes,))
    x = torch.randn(len(index), features).to(dtype).relu()
    assert_same_on_both(lambda x, batch: readouts.median(x, batch, size=graphs), x, index)


@pytest.mark.parametrize("number", [1, 3, 40])
def test_ranks_in_any_order_and_out_of_range(number, x, batch):
    ranks = torch.randint(-9, 7000, (B, number))
    call = lambda x, batch, ranks: ops.select(x, batch, *ops.group(batch, B), ranks)  # noqa: E731
    assert_same_on_both(call, x, batch, ranks)


def test_weighted_means(x, batch):
    weight = torch.randint(1, 8, (len(batch), 1)).to(x.dtype)
    call = lambda x, weight, batch: readouts.weighted_mean(x, weight, batch, size=B)  # noqa: E731
    assert_same_on_both(call, x, weight, batch)


def test_softmax(x, batch):
    """Equal scores have weights of 1; exp of others is rounded by the device."""
    call = lambda x, scores, batch: readouts.softmax_mean(x, scores, batch, size=B)  # noqa: E731
    assert_same_on_both(call, x, torch.zeros_like(x), batch)
    assert_same_on_both(call, x, torch.randn_like(x), batch, close=True)


def test_means_by_exp_log_and_pow(x, batch):
    positive = x.abs() + 0.5
    assert_same_on_both(lambda x, batch: readouts.logsumexp(x, batch, size=B), x, batch, close=True)
    assert_same_on_both(
        lambda x, batch: readouts.power_mean(x, 2.0, batch, size=B), positive, batch, close=True
    )


def test_moments(x, batch):
    call = lambda x, batch: readouts.moments(x.double(), batch, size=B)  # noqa: E731
    assert_same_on_both(call, x, batch, close=True)


@pytest.mark.parametrize("name", [*EXACT, *ARGUMENTS])
def test_modules(name, batch):
    x = torch.randn(len(batch), F)
    module = getattr(nn, name)(**(EXACT | ARGUMENTS)[name]())
    modules = {"cpu": module, DEVICE: copy.deepcopy(module).to(DEVICE)}
    call = lambda x, batch: modules[x.device.type](x, batch, dim_size=B)  # noqa: E731
    if name in EXACT:
        assert_same_on_both(call, x, batch)
    else:  # matrix products add in another order on a GPU
        here, there = (call(x.to(device), batch.to(device)).detach().cpu() for device in ("cpu", DEVICE))
        torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-4)


def test_every_module_is_tested():
    assert set(nn.__all__) - {*EXACT, *ARGUMENTS} == {
        "MomentReadout",  # cube roots, tested as a function
        "PartialReadout",
        "SqueezeExcitation",
        "from_pyg",
        "readout_resolver",
    }


@pytest.mark.parametrize("names", [("mean",), ("max",), ("std",), ELEMENTARY], ids="-".join)
def test_double_backward(names, batch):
    def second(x, batch):
        out = readout(x, batch, names, size=B)
        (slope,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        return torch.autograd.grad((slope * slope.detach().sign()).sum(), x)[0]

    x = torch.randn(len(batch), F, dtype=torch.float64)
    here, there = (second(x.to(d).requires_grad_(), batch.to(d)).cpu() for d in ("cpu", DEVICE))
    assert_same_bits(there, here)


def test_accumulator(x, batch):
    half = len(x) // 2
    results = []
    for device in ("cpu", DEVICE):
        first, second = Accumulator(ELEMENTARY, B), Accumulator(ELEMENTARY, B)
        first.update(x[:half].to(device), batch[:half].to(device))
        second.update(x[half:].to(device), batch[half:].to(device))
        first.merge(second)
        results.append(first.result().cpu())
    assert_same_bits(*reversed(results))


def test_exact_scatter(batch):
    x, index = torch.randn(len(batch), F), batch.unsqueeze(1).expand(-1, F)

    def scattered(x, index):
        with readouts.exact_scatter():
            out = x.new_zeros(B, F).scatter_add(0, index, x)
            return out + x.new_zeros(B, F).index_add(0, index[:, 0], x)

    assert_same_on_both(scattered, x, index)


def test_shuffled_nodes_have_the_same_bits(x, batch):
    x, batch = x.to(DEVICE), batch.to(DEVICE)
    shuffle = torch.randperm(len(batch), device=DEVICE)
    for call in (
        lambda x, batch: readout(x, batch, ELEMENTARY, size=B),
        lambda x, batch: readouts.softmax_mean(x, x, batch, size=B),
        lambda x, batch: readouts.quantile(x, batch, 0.3, size=B),
    ):
        assert_same_bits(call(x[shuffle], batch[shuffle]), call(x, batch))


@pytest.fixture(scope="module")
def _nccl():
    if not dist.is_nccl_available():
        pytest.skip("needs NCCL")
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("_nccl")
def test_distributed_on_one_rank(x, batch):
    names = (*ELEMENTARY, "median")
    here, there = (x.to(device, copy=True).requires_grad_() for device in ("cpu", DEVICE))
    expected = readout(here, batch, names, size=B)
    out = distributed.readout(there, batch.to(DEVICE), names, size=B)
    assert_same_bits(out.detach().cpu(), expected.detach())
    expected.sum().backward()
    out.sum().backward()
    assert_same_bits(there.grad.cpu(), here.grad)
