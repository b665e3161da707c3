"""The assembly of the order statistics, emulated: bits of the portable kernel, nothing outside of tensors."""

import functools
import os
import shutil

import pytest
import torch
from bits import assert_same_bits

pytest.importorskip("triton", reason="needs Triton")
if shutil.which("g++") is None:
    pytest.skip("needs g++", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("nothing is compiled under TRITON_INTERPRET=1", allow_module_level=True)

from emulated.driver import emulated, run

from readouts.kernels.portable import order as portable
from readouts.kernels.triton import order as gpu

pytestmark = pytest.mark.thorough
SIZES = [[2, 0, 16, 1, 7], [31, 32, 0, 17], [33, 1, 64, 0], [100, 0, 65, 2], [5000, 3]]
WRONG = [[20, 90, 60], [-30, 30, 60], [0, 61, 60], [0, 40, 30], [-(2**40), 2**40, 60], [59, 60, 2**62]]


@pytest.fixture(autouse=True)
def _columns_for_all(monkeypatch):
    """Few columns are not left to the portable kernel."""
    monkeypatch.setattr(gpu, "COLUMNS", 0)


def make_features(nodes, features, dtype):
    """Random numbers with ties, both zeros, infinities, subnormal numbers and a NaN."""
    x = torch.randn(nodes, features, dtype=torch.float64)
    x[::3] = x[0].clone()
    x[1::7], x[2::7], x[3::11], x[4::11] = 0.0, -0.0, torch.inf, -torch.inf
    x[5::6] *= torch.finfo(dtype).smallest_normal / 4
    x[nodes // 2, 1::4] = torch.nan
    return x.to(dtype)


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("sort", [False, True], ids=["sorted", "order"])
def test_bits_of_the_portable_kernel(dtype, sort, reverse):
    for sizes in SIZES:
        for features in (1, 3, 70):
            count = torch.tensor(sizes)
            index = torch.arange(len(sizes)).repeat_interleave(count)
            ptr = torch.nn.functional.pad(count.cumsum(0), (1, 0))
            index = index[torch.randperm(len(index))] if sort else index
            order = index.argsort(stable=True) if sort else None
            x = make_features(len(index), features, dtype)
            middle = torch.stack([(count - 1) // 2, count // 2], 1)
            ranks = torch.randint(-3, max(sizes), (len(sizes), 3))
            with emulated(functools.partial(run, reverse=reverse)) as driver:
                means, values = gpu.midpoint(x, index, ptr, order, middle)
                selected = gpu.select(x, index, ptr, order, ranks)
            assert len(driver.launches) == 2
            expected = portable.midpoint(x, index, ptr, order, middle)
            assert_same_bits(means, expected[0])
            assert_same_bits(values, expected[1])
            assert_same_bits(selected, portable.select(x, index, ptr, order, ranks))


@pytest.mark.parametrize("ptr", WRONG, ids=str)
def test_nothing_outside_of_tensors_is_touched(ptr):
    """An access outside of all tensors is a fault of the emulator; a graph with wrong offsets is empty.

    Where `order` names no row of x, another row is read.
    """
    x, ptr, ranks = torch.rand(60, 70) + 1, torch.tensor(ptr), torch.tensor([[2**50, -(2**50), 7]] * 2)
    sound = (ptr[:-1] >= 0) & (ptr[:-1] <= ptr[1:]) & (ptr[1:] <= 60)
    before = x.clone(), ptr.clone(), ranks.clone()
    outside = torch.randperm(60)
    outside[::9] = torch.tensor([-1, 60, 2**40, -(2**62), 61, 2**57, 2**63 - 1])
    for order in (None, torch.randperm(60), outside):
        with emulated() as driver:
            out = gpu.select(x, ptr, ptr, order, ranks)
        assert len(driver.launches) == 1
        assert ((out > 0).flatten(1).all(1) == sound).all()
    assert all(map(torch.equal, before, (x, ptr, ranks)))
