"""Readouts over processes against one process: the same bits, forward and backward."""

import functools
import math
import os
import time
from contextlib import closing

import pytest
import torch
import torch.distributed as dist
from batches import batches
from bits import assert_same_bits
from distributed_processes import WORLDS, Processes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import Linear, Module, Parameter, ReLU, Sequential
from torch.nn.parallel import DistributedDataParallel
from torch_geometric.nn import MeanAggregation

import readouts
from readouts import Segments, distributed
from readouts.distributed import DistributedReadout
from readouts.distributed.ranks import Ranks
from readouts.functional.checks import FLOATS, INTEGERS
from readouts.functional.order import INTERPOLATIONS, MIDDLES
from readouts.nn import (
    AttentionReadout,
    DeepSetsReadout,
    MultiheadAttentionReadout,
    MultiReadout,
    PartialReadout,
    PowerMeanReadout,
    QuantileReadout,
    Set2SetReadout,
    SoftmaxReadout,
    SortReadout,
    SumReadout,
    TrimmedMeanReadout,
    WeightedMeanReadout,
)

ALL = ("sum", "mean", "max", "min", "var", "std", "median")
SEVERAL = (*[(name,) for name in ALL], ALL, ("max", "mean", "median", "max"), ("min", "sum"))
SIZE, NODES, FEATURES = 7, 60, 3
TIMEOUT = 4  # seconds


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    with closing(Processes(max(WORLDS), tmp_path_factory.mktemp("store"), timeout=60)) as processes:
        yield processes


def name_of(dtype):
    return str(dtype).removeprefix("torch.")


def features(dtype, *shape):
    """Numbers with ties and several magnitudes, for floats an infinity and a NaN."""
    generator = torch.Generator().manual_seed(len(shape))
    x = torch.randn(NODES, *shape, generator=generator, dtype=torch.float64)
    x = torch.where(torch.rand(x.shape, generator=generator) < 0.3, x.round(), x * 50)
    if not dtype.is_floating_point:
        return x.abs().to(dtype) if dtype in (torch.uint8, torch.bool) else x.to(dtype)
    x *= 10.0 ** torch.randint(-3, 3, x.shape, generator=generator)
    x.view(-1)[3:5] = torch.tensor([math.inf, math.nan])
    return x.to(dtype)


def partitions(world):
    """The graphs of nodes, of which the last is empty, and ways to spread the nodes over ranks."""
    generator = torch.Generator().manual_seed(world)
    index = torch.randint(0, SIZE - 1, (NODES,), generator=generator)
    owners = {"random": torch.randint(0, world, (NODES,), generator=generator)}
    return index, owners | {
        "one rank": torch.full((NODES,), world - 1),
        "by graph": index % world,
        "in turns": torch.arange(NODES) % world,
    }


def loss(out):
    """A loss with a slope of its own for every number of a result."""
    slope = torch.randn(out.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (out * slope.to(out.dtype)).sum()


def compare(group, owner, single, several, *tensors):
    """Compare single(*tensors), and its gradients, with several(...) of the rows that every rank has."""
    mine = owner == dist.get_rank(group)
    wanted = [tensor.is_floating_point() for tensor in tensors]
    whole = [t.clone().requires_grad_(float) for t, float in zip(tensors, wanted, strict=True)]
    parts = [t[mine].clone().requires_grad_(float) for t, float in zip(tensors, wanted, strict=True)]
    expected, actual = single(*whole), several(*parts)
    assert_same_bits(actual, expected)
    if expected.requires_grad:
        expected = torch.autograd.grad(loss(expected), [t for t in whole if t.requires_grad])
        actual = torch.autograd.grad(loss(actual), [t for t in parts if t.requires_grad])
        for one, other in zip(actual, expected, strict=True):
            assert_same_bits(one, other[mine])


def compare_calls(group, owner, name, *tensors, **options):
    """Compare a function of `readouts.distributed` with that of `readouts`."""
    single = functools.partial(getattr(readouts, name), **options)
    several = functools.partial(getattr(distributed, name), **options, group=group)
    compare(group, owner, single, several, *tensors)


def check_readout(group, x, index, owner, reduces, **options):
    for reduce in reduces:
        compare_calls(group, owner, "readout", x, index, reduce=reduce, **options)


def check_dtype(group, dtype):
    index, owners = partitions(group.size())
    check_readout(group, features(dtype, FEATURES), index, owners.pop("random"), SEVERAL, size=SIZE)
    for owner in owners.values() if group.size() > 1 else ():
        check_readout(group, features(dtype, FEATURES), index, owner, (ALL,), size=SIZE)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=name_of)
def test_every_dtype_and_partition(processes, dtype, world):
    processes.run(world, check_dtype, dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@given(data=st.data())
@settings(max_examples=5)
def test_any_numbers(processes, dtype, data):
    x, index, count = data.draw(batches(dtype))
    world = data.draw(st.sampled_from(WORLDS[1:]))
    owner = data.draw(st.lists(st.integers(0, world - 1), min_size=len(x), max_size=len(x)))
    owner = torch.tensor(owner, dtype=torch.int64)
    processes.run(world, check_readout, x, index, owner, (ALL,), size=len(count))
    processes.run(world, check_order_statistics, x, index, owner, len(count), ("linear", "midpoint"))


def check_order_statistics(group, x, index, owner, size, interpolations):
    call = functools.partial(compare_calls, group, owner)
    for interpolation in interpolations:
        call("quantile", x, index, q=[0.0, 0.3, 1.0, 0.85], size=size, interpolation=interpolation)
    for interpolation in MIDDLES:
        call("median", x, index, size=size, interpolation=interpolation)
    for proportion in (0.0, 0.1, 0.34):
        call("trimmed_mean", x, index, proportion=proportion, size=size)


def check_order(group, dtype):
    index, owners = partitions(group.size())
    x = features(dtype, FEATURES)
    check_order_statistics(group, x, index, owners["random"], SIZE, INTERPOLATIONS)
    check_order_statistics(group, x, index, owners["by graph"], SIZE, ())


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.uint8, torch.bool], ids=name_of)
def test_order_statistics(processes, dtype):
    processes.run(3, check_order, dtype)


def check_averages(group, dtype):
    index, owners = partitions(group.size())
    x, one, all = (features(dtype, *shape) for shape in ((FEATURES,), (1,), (FEATURES, 1)))
    weight = features(dtype)
    for owner in (owners["random"], owners["one rank"]):
        call = functools.partial(compare_calls, group, owner, size=SIZE, empty=7)
        call("weighted_mean", x, weight, index)
        call("weighted_mean", x, all[..., 0], index)
        call("softmax_mean", x, one, index)
        call("softmax_mean", x, all[..., 0], index)
        call("softmax_mean", weight, weight, index)
        call("softmax_mean", x, weight.float(), index)
        call("softmax_mean", x, all[..., 0].double(), index)
        call("logsumexp", x, index)
        call("weighted_mean", x[:, :0], weight, index)
        call("softmax_mean", x[:, :0], one, index)
        call("logsumexp", x[:, :0], index)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int32], ids=name_of)
def test_averages(processes, dtype):
    processes.run(3, check_averages, dtype)


def check_shapes(group):
    index, owners = partitions(group.size())
    owner = owners["random"]
    mine = owner == group.rank()
    x = features(torch.float32, 2, FEATURES)
    check_readout(group, features(torch.float32), index, owner, ("std", ALL), size=SIZE, empty=math.nan)
    check_readout(group, x, index, owner, ("max", ALL), size=SIZE, empty=-1)
    check_readout(group, x, index.int(), owner, ALL)  # without size
    check_readout(group, x[..., :0], index, owner, ALL, size=SIZE)
    check_readout(group, x.transpose(1, 2), index, owner, (ALL,), size=SIZE)
    check_readout(group, x[:0], index[:0], owner[:0], (ALL,), size=SIZE)
    check_readout(group, x[:0], index[:0], owner[:0], (ALL,), size=0)
    index, order = index.sort(stable=True)
    x, mine = x[order], mine[order]
    expected = readouts.readout(x, index, ALL, size=SIZE)
    given = Segments.from_batch(index[mine], SIZE)
    assert_same_bits(distributed.readout(x[mine], given, ALL, group=group), expected)
    assert_same_bits(distributed.readout(x[mine], ptr=given.ptr, reduce=ALL, group=group), expected)
    assert_same_bits(distributed.readout(x[mine], None, ALL, group=group), readouts.readout(x, None, ALL))


def test_shapes_and_graphs(processes):
    processes.run(3, check_shapes)


class Gate(Module):
    """A score or a weight of every node, without a matrix product."""

    def __init__(self):
        super().__init__()
        self.weight = Parameter(torch.linspace(0.5, 1, FEATURES))

    def forward(self, x):
        return (x * self.weight).sum(-1, keepdim=True).abs()


MODULES = {
    "names": lambda: ["sum", "median", "max", "softmax", "mean"],
    "attention": lambda: AttentionReadout(Gate(), ReLU()),
    "weighted": lambda: WeightedMeanReadout(Gate(), empty=3),
    "deep sets": lambda: DeepSetsReadout(ReLU(), ReLU(), "std"),
    "one name": lambda: "log_sum_exp",
    "trimmed": lambda: MultiReadout([TrimmedMeanReadout(0.2), AttentionReadout(Gate())]),
    "quantiles": lambda: QuantileReadout([0.2, 0.9], learnable=True),
    "softmax": lambda: SoftmaxReadout(0.5, learn=True, channels=FEATURES),
    "size": lambda: MultiReadout(["size_aware_mean", SumReadout(empty=2), "min", "std"]),
    "moments": lambda: MultiReadout(["moment", WeightedMeanReadout(Gate())]),
    "power means": lambda: PowerMeanReadout(2.0, learn=True, channels=FEATURES),
    "multihead": lambda: MultiheadAttentionReadout(FEATURES, heads=3, seeds=2, layer_norm=True),
    "set2set": lambda: Set2SetReadout(FEATURES, 2, empty=5),
}
# parameters of the graphs have whole gradients on every rank
WHOLE = ("quantiles", "softmax", "power means", "multihead", "set2set")


def check_module(group, name):
    index, owners = partitions(group.size())
    x = features(torch.float32, FEATURES)
    x = torch.where(x.isfinite(), x, 1) / 100
    torch.manual_seed(0)
    several = DistributedReadout(MODULES[name](), group)
    single = several.readout
    for owner in (owners["random"], owners["one rank"]):
        compare(
            group,
            owner,
            lambda x, index: single(x, index, dim_size=SIZE),
            lambda x, index: several(x, index, dim_size=SIZE),
            x,
            index,
        )
        if name in WHOLE:
            mine = owner == group.rank()
            parameters = list(single.parameters())
            expected = torch.autograd.grad(loss(single(x, index, dim_size=SIZE)), parameters)
            actual = torch.autograd.grad(loss(several(x[mine], index[mine], dim_size=SIZE)), parameters)
            for one, other in zip(actual, expected, strict=True):
                assert_same_bits(one, other)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", MODULES)
def test_modules(processes, name, world):
    processes.run(world, check_module, name)


@pytest.mark.parametrize(
    ("reduce", "message"),
    [
        (SortReadout(3), "it returns whole nodes"),
        (["sum", PartialReadout("mean", 0.5)], "which nodes it takes depends on all of them"),
        (MeanAggregation(), "it is none of"),
        ("weighted_mean", "with a gate"),
        ("nothing", "expected one of"),
    ],
)
def test_modules_without_distributed_form_are_refused(reduce, message):
    with pytest.raises((TypeError, ValueError), match=message):
        DistributedReadout(reduce)


def test_repr():
    assert repr(DistributedReadout("sum", ddp=True)) == "DistributedReadout(SumReadout(), ddp=True)"


class Model(Module):
    """A network of nodes, a readout, a network of graphs."""

    def __init__(self, readout):
        super().__init__()
        self.nodes, self.readout = Sequential(Linear(FEATURES, 5), ReLU()), readout
        self.graphs = Linear(15, 2)

    def forward(self, x, index):
        return self.graphs(self.readout(self.nodes(x), index, dim_size=SIZE))


def inner_readouts():
    """Readouts with parameters before and after the sums over nodes, 15 features from 5."""
    gate, softmax = Linear(5, 1), SoftmaxReadout(0.5, learn=True)
    yield MultiReadout(["mean", AttentionReadout(gate), softmax])
    yield MultiReadout([MultiheadAttentionReadout(5), Set2SetReadout(5, 2)])


def check_ddp(group):
    """Under DistributedDataParallel with ddp=True, gradients are those of one process."""
    index, owners = partitions(group.size())
    x = torch.randn(NODES, FEATURES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.manual_seed(0)
    for inner in inner_readouts():
        single = Model(inner).double()
        loss(single(x, index)).backward()
        expected = {name: parameter.grad.clone() for name, parameter in single.named_parameters()}
        for owner in (owners["random"], owners["one rank"]):
            single.zero_grad()
            mine = owner == group.rank()
            single.readout = DistributedReadout(inner, group, ddp=True)
            model = DistributedDataParallel(single, process_group=group)
            loss(model(x[mine], index[mine])).backward()
            for name, gradient in expected.items():
                actual = single.get_parameter(name.replace("readout.", "readout.readout.", 1))
                torch.testing.assert_close(actual.grad, gradient, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_beside_ddp(processes, world):
    processes.run(world, check_ddp)


def check_a_rank_without_gradients(group):
    """Ranks count ties, and send gradients of learned numbers, though one of them wants none."""
    index, owners = partitions(group.size())
    x, mine = features(torch.float32, FEATURES).nan_to_num(), owners["random"] == group.rank()
    for reduce in ("max", "median", SoftmaxReadout(0.5, learn=True)):
        several = DistributedReadout(reduce, group)
        leaf, local = x.clone().requires_grad_(), x[mine].requires_grad_(group.rank() != 1)
        out = several(local, index[mine], dim_size=SIZE)
        assert out.requires_grad
        loss(out).backward()
        loss(several.readout(leaf, index, dim_size=SIZE)).backward()
        if group.rank() != 1:
            assert_same_bits(local.grad, leaf.grad[mine])


def test_a_rank_may_want_no_gradients(processes):
    processes.run(3, check_a_rank_without_gradients)


def softmax_of_itself(x, batch, group):
    return distributed.softmax_mean(x, x, batch, group=group)


def check_twice(group):
    x = torch.ones(2, 1, requires_grad=True)
    for several in (distributed.readout, distributed.median, distributed.logsumexp, softmax_of_itself):
        with pytest.raises(RuntimeError, match="expected a first derivative, got create_graph=True"):
            torch.autograd.grad(several(x, None, group=group).sum(), x, create_graph=True)


def test_second_derivatives_are_refused(processes):
    processes.run(2, check_twice)


X = torch.ones(4, 2)
GRAPHS = torch.tensor([0, 1, 1, 2])


def call(x=X, batch=GRAPHS, function="readout", **options):
    return {"x": x, "batch": batch, "function": function, "options": options}


def try_call(group, calls):
    """Make the last call on rank 1, the first on all others; then one that is right."""
    given = calls[group.rank() == 1]
    try:
        function = getattr(distributed, given["function"])
        function(given["x"], batch=given["batch"], **given["options"], group=group)
    except (TypeError, ValueError, IndexError) as problem:
        found = type(problem), str(problem)
    assert_same_bits(
        distributed.readout(X, GRAPHS, "sum", group=group), group.size() * readouts.readout(X, GRAPHS, "sum")
    )
    return found


MISMATCHES = {
    "shape": (call(), call(torch.ones(4, 3)), "[N, 2], size=None on ranks 0, 2; "),
    "dtype": (call(), call(X.double()), "float64 [N, 2]"),
    "reduce": (call(reduce="sum"), call(reduce="mean"), "('mean',)"),
    "order": (call(reduce=["sum", "max"]), call(reduce=["max", "sum"]), "('max', 'sum')"),
    "size": (call(size=3), call(size=4), "size=4 on rank 1"),
    "size on one": (call(size=3), call(), "size=None on rank 1"),
    "empty": (call(), call(empty=1), "empty=1"),
    "function": (call(), call(function="median"), "median(interpolation=midpoint"),
    "interpolation": (call(function="median"), call(function="median", interpolation="lower"), "lower"),
    "quantile": (
        call(function="quantile", q=0.5),
        call(function="quantile", q=torch.tensor([0.5, 0.75])),
        "[0.5, 0.75]",
    ),
    "ddp": (call(), call(ddp=True), "ddp=True on rank 1"),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_calls_that_differ_fail_alike_everywhere(processes, name):
    *calls, message = MISMATCHES[name]
    problems = processes.run(3, try_call, calls)
    assert len(set(problems)) == 1
    kind, text = problems[0]
    assert kind is ValueError
    assert "the same call on all ranks" in text
    assert message in text


BAD = {
    "no tensor": (call([1.0]), TypeError, "x: expected a tensor, got list"),
    "graph out of range": (call(batch=torch.tensor([0, 1, 9, 2]), size=3), IndexError, "got 9"),
    "length": (call(batch=GRAPHS[:3]), ValueError, "for each of the 4 nodes, got 3"),
    "name": (call(reduce="mode"), ValueError, "got 'mode'"),
    "empty": (call(empty="no"), TypeError, "empty: expected a real number"),
    "scores": (call(function="softmax_mean", scores=X[:2]), ValueError, "scores: expected one for each"),
    "proportion": (call(function="trimmed_mean", proportion=0.5), ValueError, "proportion: expected"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_argument_of_one_rank_is_told_to_all(processes, name):
    bad, kind, message = BAD[name]
    problems = processes.run(3, try_call, (call(size=3), bad))
    assert len(set(problems)) == 1
    assert problems[0][0] is kind
    assert message in problems[0][1]
    assert "(rank 1 of 3)" in problems[0][1]


def sent(group, function, nodes, options):
    """Return the bytes of every message of a call, backward included."""
    generator = torch.Generator().manual_seed(group.rank())
    x = torch.randint(-3, 4, (nodes, FEATURES), generator=generator).float().requires_grad_()
    sizes, original = [], dist.all_reduce

    def counting(message, *arguments):
        sizes.append(message.nbytes)
        return original(message, *arguments)

    dist.all_reduce = counting
    try:
        values = (x, x) if function == "softmax_mean" else (x,)
        call = functools.partial(getattr(distributed, function), *values, torch.arange(nodes) % SIZE)
        out = call(**options, size=SIZE, group=group)
        forward = len(sizes)
        loss(out).backward()
    finally:
        dist.all_reduce = original
    assert len(sizes) == forward
    return sizes


CALLS = {name: ("readout", {"reduce": name}) for name in ALL}
CALLS |= {"quantile": ("quantile", {"q": [0.1, 0.9]}), "trimmed": ("trimmed_mean", {"proportion": 0.2})}
CALLS |= {"logsumexp": ("logsumexp", {}), "softmax": ("softmax_mean", {})}


@pytest.mark.parametrize("name", CALLS)
def test_messages_do_not_grow_with_nodes(processes, name):
    function, options = CALLS[name]
    few, many = (processes.run(2, sent, function, nodes, options) for nodes in (700, 7000))
    assert few == many


def test_numerator_and_denominator_share_their_messages(processes):
    calls = ((CALLS[name][0], 700, CALLS[name][1]) for name in ("sum", "softmax"))
    sums, weighted = (processes.run(2, sent, *call)[0] for call in calls)
    assert len(weighted) == len(sums) + 1  # the greatest scores


def until_it_fails(group, dies_at=None, hangs=False):
    """Make calls for a minute at most until one fails; return after how long, and the message."""
    if hangs:
        time.sleep(3600)
    if dies_at is not None:
        original, messages = Ranks.sum, iter(range(10**6))

        def dying(self, *tensors):
            if next(messages) == dies_at:
                os._exit(1)
            return original(self, *tensors)

        Ranks.sum = dying
    start = time.monotonic()
    try:
        while time.monotonic() < start + 60:
            distributed.readout(torch.randn(50, 3), None, ("sum", "median"), group=group)
    except RuntimeError as problem:
        return time.monotonic() - start, str(problem)


def test_a_rank_that_dies_or_hangs_is_reported_within_the_timeout(tmp_path):
    with closing(Processes(4, tmp_path, timeout=TIMEOUT)) as processes:
        processes.run(4, check_shapes)
        for rank in range(4):
            processes.send(rank, 4, until_it_fails, 25 if rank == 3 else None)
        for rank in range(3):
            _, message = processes.receive(rank)
            assert "expected an answer from all 4 ranks within the timeout of the group, got" in message
        processes.processes[3].join()
        assert processes.processes[3].exitcode == 1
        processes.send(1, 2, until_it_fails, None, True)
        processes.send(0, 2, until_it_fails)
        seconds, message = processes.receive(0)
        assert seconds > TIMEOUT - 1
        assert "expected an answer from all 2 ranks" in message
