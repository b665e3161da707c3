"""The assembly of the Triton kernels, emulated: bits of the reference, and no access outside of tensors."""

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
from emulated.program import AssertionFaultError

from readouts.kernels import reference
from readouts.kernels.portable import elementary as portable
from readouts.kernels.portable import grouping
from readouts.kernels.triton import elementary as gpu

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # of numpy: overflow, inf - inf
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),  # in Triton 3.6
]
F64, F32, F16 = torch.float64, torch.float32, torch.float16
TRIPLE = ("sum", "mean", "max")
SMALL = [1, 0, 7, 30, 3, 0, 64, 2]  # nodes of graphs
LARGE = [4500, 0, 20, 700, 1, 0]  # more than a program reduces alone
WRONG = 25  # inputs of the fuzz


def make_features(nodes, features, dtype, kind):
    """Random numbers with ties; of any magnitude, or with values that are no ordinary numbers."""
    x = torch.randn(nodes, features, dtype=F64)
    if kind == "wide":
        x *= torch.pow(2.0, 60 * torch.randn(nodes, features, dtype=F64))
    x[::5] = x[0].clone()
    x = x.to(dtype)
    if kind == "special":
        x[:, 0] = -0.0
        x[nodes // 2, 1], x[nodes // 3, 1], x[nodes // 4, 2] = torch.inf, -torch.inf, torch.nan
    return x


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize(
    ("sizes", "features", "dtype", "names"),
    [  # few kinds, for to compile one takes ten seconds
        (SMALL, 70, F32, TRIPLE),
        (LARGE, 70, F32, TRIPLE),
        (SMALL, 3, F16, ("mean", "min")),
        (SMALL, 3, F64, ("std", "max")),
        (LARGE, 3, F64, ("std", "max")),
    ],
)
def test_bits_of_the_reference(sizes, features, dtype, names, reverse):
    index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    index = index[torch.randperm(len(index))]
    count = torch.tensor(sizes)
    ptr = torch.nn.functional.pad(count.cumsum(0), (1, 0))
    order = index.argsort(stable=True)
    arguments = index, ptr, order, names
    for kind in ("ordinary", "wide", "special") if sizes == SMALL else ("ordinary",):
        x = make_features(len(index), features, dtype, kind)
        expected = portable.reduce(x, *arguments)  # the reference takes minutes for large graphs
        grad = torch.randn(expected.shape, dtype=F64).to(dtype)
        slope = portable.reduce_backward(grad, x, expected, *arguments)
        if sizes == SMALL:
            assert_same_bits(expected, reference.reduce(x, index, count, names))
            assert_same_bits(slope, reference.reduce_backward(grad, x, index, count, names))
        with emulated(functools.partial(run, reverse=reverse)) as driver:
            out, kept = gpu.reduce_keeping(x, *arguments)
            assert_same_bits(out, expected)
            assert_same_bits(gpu.reduce_backward(grad, x, expected, *arguments, kept), slope)
            if sizes == LARGE and not reverse:  # compiles more
                assert_same_bits(gpu.reduce(x, *arguments), expected)
                assert_same_bits(gpu.reduce_backward(grad, x, expected, *arguments), slope)
        assert len(driver.launches) >= 2


def attempt(call):
    """Call, and accept what a device may do about a wrong index: an exception or an assertion."""
    try:
        return call()
    except (IndexError, ValueError, RuntimeError, AssertionFaultError):
        return None


def wrong(values, least, most):
    """Put a few values that are out of range, or that decrease, into a copy."""
    values = values.clone()
    for _ in range(int(torch.randint(1, 4, ()))):
        place = int(torch.randint(len(values), ()))
        values[place] = [-1, most, least - 7, most + 1000, int(values[place]) - 3, 2**40][
            int(torch.randint(6, ()))
        ]
    return values


@pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("target", ["batch", "ptr", "index"])
def test_nothing_outside_of_tensors_is_touched(sizes, target):
    """A wrong batch is grouped as on a GPU; a wrong ptr or index reaches the kernels as it is."""
    nodes, size, features = sum(sizes), len(sizes), 70
    x = make_features(nodes, features, F32, "ordinary")
    right = torch.arange(size).repeat_interleave(torch.tensor(sizes))
    good = torch.nn.functional.pad(torch.tensor(sizes).cumsum(0), (1, 0))
    reached = 0
    for _ in range(WRONG):
        index, ptr, order = right, good, torch.arange(nodes)
        if target == "ptr":
            ptr = wrong(good, 0, nodes)
        else:
            index = wrong(right[torch.randperm(nodes)], 0, size)
            groups = attempt(functools.partial(grouping.group, index, size))
            if groups is None and target == "batch":
                continue
            ptr, order = (good, order) if groups is None or target == "index" else groups
        before = [tensor.clone() for tensor in (x, index, ptr)]
        with emulated() as driver:
            batch = index, ptr, order, TRIPLE
            out, kept = attempt(functools.partial(gpu.reduce_keeping, x, *batch)) or (None, None)
            out = x.new_zeros(size, len(TRIPLE), features) if out is None else out
            for statistics in (kept, None):
                attempt(functools.partial(gpu.reduce_backward, out, x, out, *batch, statistics))
        assert all(map(torch.equal, before, (x, index, ptr)))
        reached += len(driver.launches)
    assert reached or target == "batch"
