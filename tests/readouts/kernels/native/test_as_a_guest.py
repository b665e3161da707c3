"""The native core as a guest: many threads, forks, folders that cannot be written to, awkward rows."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
import torch
from batches import FLOATS
from bits import assert_same_bits
from tasks import tasks

from readouts import ops, readout
from readouts.kernels import reference
from readouts.kernels.native import elementary as native
from readouts.kernels.native import memory, weighted
from readouts.kernels.native.library import core, team_of_torch
from readouts.kernels.portable import elementary as portable
from readouts.kernels.portable import weighted as portable_weighted
from readouts.reductions import ELEMENTARY as NAMES

pytestmark = pytest.mark.skipif(core.isa is None, reason="without the native core")


def workload(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(20_000, 16, generator=generator)
    index = torch.randint(0, 50, (20_000,), generator=generator)
    return x, index


def results(seed):
    x, index = workload(seed)
    x.requires_grad_()
    out = readout(x, index, NAMES, size=50)
    out.square().sum().backward()
    return out.detach(), x.grad


def test_eight_python_threads_at_once(monkeypatch):
    monkeypatch.setattr(memory, "GRAIN", 1000)
    expected = [results(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for actual, wanted in zip(pool.map(results, range(8)), expected, strict=True):
                assert_same_bits(actual[0], wanted[0])
                assert_same_bits(actual[1], wanted[1])


def send_results(connection, seed):
    connection.send([tensor.numpy() for tensor in results(seed)])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_children_forked_after_use(monkeypatch):
    monkeypatch.setattr(memory, "GRAIN", 1000)
    expected = results(3)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=send_results, args=(theirs, 3))
    child.start()
    assert ours.poll(60), "the forked child hangs"
    for actual, wanted in zip(ours.recv(), expected, strict=True):
        assert_same_bits(torch.from_numpy(actual), wanted)
    child.join()
    assert child.exitcode == 0


def test_a_pool_serves_where_pytorch_brings_no_threads(monkeypatch):
    monkeypatch.setattr(memory, "GRAIN", 1000)
    expected = [results(seed) for seed in range(8)]
    core.set_team(None)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(results, range(8)))
    finally:
        core.set_team(team_of_torch())
    for actual, wanted in zip(found, expected, strict=True):
        assert_same_bits(actual[0], wanted[0])
        assert_same_bits(actual[1], wanted[1])


class Workloads(torch.utils.data.Dataset):
    """A data set whose items are readouts."""

    def __len__(self):
        return 6

    def __getitem__(self, seed):
        return results(seed)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_workers_of_a_data_loader(monkeypatch):
    monkeypatch.setattr(memory, "GRAIN", 1000)
    expected = [results(seed) for seed in range(6)]
    loader = torch.utils.data.DataLoader(
        Workloads(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    for actual, wanted in zip(loader, expected, strict=True):
        assert_same_bits(actual[0], wanted[0])
        assert_same_bits(actual[1], wanted[1])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("spread", [0, 20, 40, 60, 100, 140, 180])
def test_any_spread_of_magnitudes(dtype, spread):
    """From certified tiles over split ones to those that the portable kernel has to redo."""
    scales = torch.pow(2.0, torch.rand(600, 3, dtype=torch.float64) * spread - spread / 2)
    x = (torch.randn(600, 3, dtype=torch.float64) * scales).clamp(-6e4, 6e4).to(dtype)
    index = torch.arange(600) // 290
    count = torch.bincount(index)
    grad = torch.randn(3, len(NAMES), 3).to(dtype)
    groups = index, *ops.group(index, 3)
    expected = reference.reduce(x, index, count, NAMES)
    assert_same_bits(native.reduce(x, *groups, NAMES), expected)
    actual = native.reduce_backward(grad, x, expected, *groups, NAMES)
    assert_same_bits(actual, portable.reduce_backward(grad, x, expected, *groups, NAMES))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("features", [1, 5, 15, 16, 17, 31, 33, 300])
def test_any_number_of_features(dtype, features):
    x = torch.randn(70, features).to(dtype)
    index = torch.randint(0, 4, (70,))
    groups = index, *ops.group(index, 5)
    assert_same_bits(native.reduce(x, *groups, NAMES), portable.reduce(x, *groups, NAMES))
    out, grad = portable.reduce(x, *groups, NAMES), torch.randn(5, len(NAMES), features).to(dtype)
    for names, block in ((NAMES, slice(None)), (NAMES[:2], slice(2))):
        actual = native.reduce_backward(grad[:, block], x, out[:, block], *groups, names)
        expected = portable.reduce_backward(grad[:, block], x, out[:, block], *groups, names)
        assert_same_bits(actual, expected)


def test_ordinary_rows_need_no_second_kernel(monkeypatch):
    monkeypatch.setattr(portable, "reduce", None)
    x, index = torch.randn(100_000, 8), torch.arange(100_000) // 25_000
    assert readout(x.double(), index, NAMES).shape == (4, 48)
    assert readout(x.bfloat16(), index, NAMES).shape == (4, 48)
    x[::7] *= 1e-9  # as the tails of smooth activations are
    assert readout(x, index, NAMES).shape == (4, 48)
    x[::7] = torch.inf
    assert readout(x, index, NAMES).isnan().any()


def test_one_graph_cut_by_every_thread():
    x = torch.randn(1001, 2)
    x[100:900:3] = x.amax(0)  # ties on both sides of every cut
    x.requires_grad_()
    index, count = torch.zeros(1001, dtype=torch.int64), torch.tensor([1001])
    with tasks(7):
        out = readout(x, index, NAMES)
        out.sum().backward()
    assert_same_bits(out.view(1, 6, 2), reference.reduce(x.detach(), index, count, NAMES))
    grad = torch.ones(1, 6, 2)
    assert_same_bits(
        x.grad,
        portable.reduce_backward(grad, x.detach(), out.view(1, 6, 2), index, *ops.group(index, 1), NAMES),
    )


def test_an_index_that_was_tampered_with_is_no_crash():
    index = torch.tensor([1, 0, 1])
    groups = index, *ops.group(index, 2)
    index.numpy()[1] = 7  # unseen by PyTorch
    with pytest.raises(IndexError, match=r"batch: expected the graphs that were there"):
        native.reduce_backward(torch.ones(2, 1, 4), None, None, *groups, ("sum",))


@pytest.mark.parametrize("names", [("sum",), ("mean", "max"), ("sum", "min")])
@pytest.mark.parametrize("large", [127, 128, 129, 500])
def test_a_large_graph_does_not_hide_that_a_small_one_was_rounded(names, large):
    """In float64 the small graph's sum is a tie, which the last number decides."""
    small = torch.tensor([1.0, 2.0**-24, 2.0**-120])
    for parts in ([small, torch.ones(large)], [torch.ones(large), small], [small, torch.ones(large), small]):
        x, sizes = torch.cat(parts).view(-1, 1), torch.tensor([len(part) for part in parts])
        index = torch.arange(len(parts)).repeat_interleave(sizes)
        assert_same_bits(readout(x, index, names), reference.reduce(x, index, sizes, names).flatten(1))


@pytest.mark.parametrize("names", [("sum",), ("mean", "max"), ("var",)])
def test_flushing_of_subnormal_numbers_changes_no_bit(names):
    x = torch.randn(300, 20, dtype=torch.float64) * 2e-310
    index = torch.arange(300) // 50
    expected = readout(x, index, names)
    assert torch.set_flush_denormal(True)
    try:
        for number in (1, 4):
            with tasks(number):
                assert_same_bits(readout(x, index, names), expected)
    finally:
        torch.set_flush_denormal(False)
    with tasks(4):  # no thread of the pool keeps the setting
        assert_same_bits(readout(x, index, names), expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("features", [1, 3, 8, 16, 21, 70])
@pytest.mark.parametrize("shared", [True, False], ids=["one-weight", "weights"])
def test_weighted_kernels_agree_with_the_portable_ones(dtype, features, shared):
    x, index = torch.randn(500, features).to(dtype), torch.randint(0, 6, (500,))
    weight = torch.rand(500, 1 if shared else features).to(dtype) ** 20
    weight[::7], x[7] = 0, torch.nan
    groups = index, *ops.group(index, 7)
    table, other = torch.randn(2, 7, features, dtype=torch.float64)
    for number in (1, 3):
        with tasks(number):
            found, wanted = (
                kernel.weighted_mean(x, weight, *groups) for kernel in (weighted, portable_weighted)
            )
            assert_same_bits(found[0], wanted[0])
            assert_same_bits(found[1], wanted[1])
            actual = weighted.scale_rows(table, weight, index)
            assert_same_bits(actual, portable_weighted.scale_rows(table, weight, index))
            mean = other[:, :1] if shared else other
            for weights in (None, weight):
                actual = weighted.weight_gradient(x, weights, table, mean, index, shared=shared)
                expected = portable_weighted.weight_gradient(x, weights, table, mean, index, shared=shared)
                assert_same_bits(actual, expected)


def test_a_weighted_mean_is_exact_over_a_graph_that_every_thread_cuts():
    x, weight = torch.randn(1001, 2), torch.rand(1001, 1)
    groups = torch.zeros(1001, dtype=torch.int64), torch.tensor([0, 1001]), None
    with tasks(7):
        means, totals = weighted.weighted_mean(x, weight, *groups)
    pairs = zip(x.tolist(), weight.tolist(), strict=True)
    products = [[Fraction(a) * Fraction(w) for a in row] for row, (w,) in pairs]
    total = float(sum(Fraction(w) for (w,) in weight.tolist()))
    assert totals.tolist() == [[total]]
    assert means.tolist() == [[float(sum(column)) / total for column in zip(*products, strict=True)]]
