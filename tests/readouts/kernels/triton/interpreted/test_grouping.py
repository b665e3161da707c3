"""Grouping by Triton kernels: on a GPU, or on the CPU under TRITON_INTERPRET=1."""

import os

import pytest
import torch

from readouts.kernels.portable import grouping as portable
from readouts.kernels.triton import grouping as gpu
from readouts.ops.registry import kernel_for

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("needs TRITON_INTERPRET=1 or a GPU", allow_module_level=True)
pytest.importorskip("triton")

DEVICE = "cpu" if INTERPRETED else "cuda"
TILE = 32 if INTERPRETED else gpu.TILE
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")  # in Triton 3.6


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(gpu, "TILE", TILE)


def assert_groups(index, size):
    """Compare ptr with the portable kernel, check that order is a permutation by graph, and return it."""
    ptr, order = (t.cpu() for t in gpu.group(index.to(DEVICE), size))
    index = index.long()
    assert ptr.equal(portable.group(index, size)[0])
    assert ptr.dtype == order.dtype == torch.int64
    assert order.sort().values.equal(torch.arange(len(index)))
    assert index[order].equal(index.sort().values)
    return order


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize(
    ("nodes", "size"),
    [
        *((0, 0), (0, 3), (1, 1), (TILE, 2), (TILE + 1, TILE), (3 * TILE - 1, 1)),
        *((4 * TILE, 3), (4 * TILE, 50), (5 * TILE, 20 * TILE)),
    ],
    ids=str,
)
def test_groups(nodes, size, dtype):
    index = torch.randint(0, max(size, 1), (nodes,), dtype=dtype)
    assert_groups(index, size)
    assert assert_groups(index.sort().values, size).equal(torch.arange(nodes))


def test_a_graph_of_half_the_nodes_and_empty_graphs():
    index = torch.randint(0, 1000, (6 * TILE,)) * 2 + 1
    index[torch.randperm(len(index))[: 3 * TILE]] = 77
    assert_groups(index, 2003)


def test_sorted_but_for_one_node():
    """Between two tiles or inside of one; every tile but one is sorted, the whole is not."""
    index = torch.arange(3 * TILE) // 5 + 1
    for place in (TILE - 1, TILE, TILE + 7, 3 * TILE - 1):
        moved = index.clone()
        moved[place] = 0
        assert_groups(moved, 3 * TILE)


def test_columns_of_a_matrix():
    index = torch.randint(0, 9, (2 * TILE, 3))
    assert_groups(index[:, 1], 9)


def test_deterministic_algorithms():
    index = torch.randint(0, 9, (2 * TILE,))
    torch.use_deterministic_algorithms(True)
    try:
        assert assert_groups(index.int(), 9).equal(index.argsort(stable=True))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.skipif(not INTERPRETED, reason="an assertion on a GPU ends the process")
@pytest.mark.parametrize("size", [0, 7])
@pytest.mark.parametrize("wrong", [-1, 7, 2**31 - 1, -(2**31), 2**40, -(2**62)])
def test_wrong_graphs_are_reported(wrong, size):
    for index in (torch.arange(40) // 6, torch.randint(0, 7, (40,))):
        index[17] = wrong
        for given in (index, index.int()) if abs(wrong) < 2**32 else (index,):
            with pytest.raises(RuntimeError, match=f"batch: expected graphs from 0 to {size - 1}"):
                gpu.group(given, size)


@pytest.mark.skipif(not INTERPRETED, reason="an assertion on a GPU ends the process")
@pytest.mark.parametrize("wrong", [-1, 7, -300, 300, 2**62])
def test_wrong_graphs_leave_other_memory_alone(wrong, monkeypatch):
    """Results lie within larger tensors, of which nothing else may change; every node is placed once."""
    memory = []

    class Guarded(torch.Tensor):
        def new_zeros(self, number, dtype=None, device=None):
            if device is not None:  # by the interpreter
                return torch.empty(number, dtype=self.dtype)
            memory.append(torch.full((number + 1024,), -5, dtype=dtype))
            return memory[-1][512:-512].zero_()

        new_empty = new_zeros

    monkeypatch.setattr(torch, "_assert_async", lambda right, message: None)
    for index in (torch.arange(40) // 6, torch.randint(0, 7, (40,))):
        index[17] = wrong
        _, order = gpu.group(index.as_subclass(Guarded), 7)
        assert order.sort().values.equal(torch.arange(40))
    assert len(memory) == 4
    for whole in memory:
        assert (whole[:512] == -5).all()
        assert (whole[-512:] == -5).all()


def test_supports():
    assert [gpu.supports(dtype) for dtype in (torch.int64, torch.int32, torch.int16)] == [True, True, False]
    assert kernel_for(torch.device("cuda"), torch.int64, "grouping") is gpu


@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
def test_nothing_waits_for_the_device():
    index = torch.randint(0, 9, (5000,), device=DEVICE)
    gpu.group(index, 9)  # compiling may wait
    torch.cuda.set_sync_debug_mode("error")
    gpu.group(index, 9)
    torch.cuda.set_sync_debug_mode("default")
