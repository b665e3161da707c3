"""The assembly of the kernels that group nodes, emulated: right groups, no access outside of tensors."""

import functools
import os
import shutil

import pytest
import torch

pytest.importorskip("triton", reason="needs Triton")
if shutil.which("g++") is None:
    pytest.skip("needs g++", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("nothing is compiled under TRITON_INTERPRET=1", allow_module_level=True)

from emulated.driver import emulated, run, specialisations

from readouts.kernels.portable import grouping as portable
from readouts.kernels.triton import grouping as gpu

WRONG = 12  # indices of the fuzz


def assert_groups(index, size):
    ptr, order = gpu.group(index, size)
    assert ptr.equal(portable.group(index.long(), size)[0])
    assert order.sort().values.equal(torch.arange(len(index)))
    assert index[order].equal(index.sort().values)
    return order


def make_index(nodes, size, kind):
    """The graphs of nodes, half of them in one graph if it is a giant one."""
    index = torch.randint(0, size, (nodes,))
    if kind == "giant":
        index[torch.randperm(nodes)[: nodes // 2]] = size // 3
    return index.sort().values if kind == "sorted" else index


@pytest.mark.thorough
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("kind", ["sorted", "shuffled", "giant"])
def test_groups(kind, dtype, reverse):
    with emulated(functools.partial(run, reverse=reverse)) as driver:
        for nodes, size in ((1, 1), (255, 2), (1500, 3), (1500, 200), (1500, 5000)):
            order = assert_groups(make_index(nodes, size, kind).to(dtype), size)
            if kind == "sorted":
                assert order.equal(torch.arange(nodes))
    assert {launch.name for launch in driver.launches} == {"count_nodes", "place_nodes"}


@pytest.mark.thorough
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("kind", ["sorted", "shuffled"])
def test_a_wrong_index_is_reported_and_leaves_other_memory_alone(kind, reverse, monkeypatch):
    """The emulator stops at an access outside of tensors; every node is placed once, all the same."""
    found = []
    monkeypatch.setattr(torch, "_assert_async", lambda right, message: found.append(bool(right)))
    with emulated(functools.partial(run, reverse=reverse)):
        for attempt in range(WRONG):
            index = make_index(700, 40, kind)
            places = torch.randint(0, 700, (1 + attempt % 3,))
            index[places] = torch.tensor([-1, 40, 41, 2**40, -(2**63), 2**63 - 1])[attempt % 6]
            ptr, order = gpu.group(index, 40)
            assert order.sort().values.equal(torch.arange(700))
            assert ptr[-1] == ((index >= 0) & (index < 40)).sum()
        ptr, order = gpu.group(torch.zeros(9, dtype=torch.int64), 0)
        assert order.sort().values.equal(torch.arange(9))
    assert found == [False] * (WRONG + 1)


def test_nothing_is_compiled_after_the_first_batch():
    with specialisations() as found, pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "_assert_async", lambda right, message: None)  # nothing is run
        gpu.group(torch.zeros(1, dtype=torch.int64), 1)
        first = len(found)
        for nodes, size in ((16, 16), (3000, 1), (17, 5000), (4096, 64)):
            gpu.group(torch.randint(0, size, (nodes + 1,))[1:], size)
    assert first == len(found) == 2
