"""Order statistics in Triton have the bits of the portable kernel; interpreted as `test_triton.py` is."""

import math
import os

import pytest
import torch
from batches import floats
from bits import AS_INTEGERS, assert_same_bits
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from readouts.kernels.portable import order as portable
from readouts.kernels.triton import order as gpu

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("needs TRITON_INTERPRET=1 or a GPU", allow_module_level=True)

kernels = pytest.importorskip("readouts.kernels.triton.ranks")

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy: overflow, inf - inf
DEVICE = "cpu" if INTERPRETED else "cuda"
SIZES = {  # nodes of graphs; one program has several graphs, and the longest decides its method
    "few": [2, 0, 16, 1],
    "32": [31, 32],
    "64": [33, 64],
    "many": [100, 0, 65],
}


@pytest.fixture(autouse=True)
def _columns_for_all(monkeypatch):
    """Few columns are not left to the portable kernel; interpreted, programs do more at once."""
    monkeypatch.setattr(gpu, "COLUMNS", 0)
    if INTERPRETED:
        monkeypatch.setattr(gpu, "WIDTH", 128)
        monkeypatch.setattr(kernels, "TILE", kernels.tl.constexpr(128))


def make_features(nodes, features, dtype):
    """Ties, both zeros, infinities and subnormal numbers; a NaN, of either sign, in every third column."""
    x = torch.randn(nodes, features, dtype=torch.float64)
    x[::3] = x[0].clone()
    x[1::7], x[2::7] = 0.0, -0.0
    x[3::11], x[4::11] = math.inf, -math.inf
    x[5::6] *= torch.finfo(dtype).smallest_normal / 4
    x = x.to(dtype)
    bits = x.view(AS_INTEGERS[dtype.itemsize])
    bits[nodes // 2, 2::6], bits[nodes // 2, 5::6] = -1, torch.iinfo(bits.dtype).max
    return x


def assert_agrees(x, index, ptr, ranks):
    """Compare medians of nodes in the order of their graphs, and statistics of nodes in any order."""
    nan = torch.full((), math.nan, dtype=x.dtype).view(AS_INTEGERS[x.dtype.itemsize])
    middle = torch.stack([(ptr.diff() - 1) // 2, ptr.diff() // 2], 1)
    expected = portable.midpoint(x, index, ptr, None, middle)
    found = gpu.midpoint(*(t.to(DEVICE) for t in (x, index, ptr)), None, middle.to(DEVICE))
    shuffle = torch.randperm(len(index))
    x, index = x[shuffle], index[shuffle]
    expected += (portable.select(x, index, ptr, None, ranks),)
    given = x, index, ptr, index.argsort(stable=True), ranks
    found += (gpu.select(*(t.to(DEVICE) for t in given)),)
    for actual, right in zip(found, expected, strict=True):
        assert_same_bits(actual.cpu(), right)
        assert (actual.cpu().view(nan.dtype)[right.isnan()] == nan).all()


@pytest.mark.parametrize("features", [1, 3, 70])
@pytest.mark.parametrize("sizes", SIZES)
def test_bits_of_the_portable_kernel(sizes, features, dtype):
    count = torch.tensor(SIZES[sizes])
    index = torch.arange(len(count)).repeat_interleave(count)
    ptr = torch.nn.functional.pad(count.cumsum(0), (1, 0))
    ranks = torch.tensor([59, 59, 60, 61, 62, -3, 2**40]).expand(len(count), -1)
    assert_agrees(make_features(len(index), features, dtype), index, ptr, ranks)


def test_graphs_of_5000_nodes_in_bf16():
    """The name leaves this to `make thorough`."""
    ptr, index = torch.tensor([0, 5000, 9999]), torch.arange(9999) // 5000
    x = make_features(9999, 3, torch.bfloat16)
    assert_agrees(x, index, ptr, torch.tensor([[17, 4000], [9999, 2400]]))


@pytest.mark.skipif(not INTERPRETED, reason="compiled kernels do not see another function")
@pytest.mark.parametrize(
    ("ranks", "searches"), [([30, 31], 1), ([31, 30], 2), ([3, 3, 4, 3], 1), ([3, 5], 2)]
)
def test_neighbouring_ranks_need_one_search(ranks, searches, monkeypatch):
    calls, search = [], kernels.search
    monkeypatch.setattr(kernels, "search", lambda *arguments: calls.append(1) or search(*arguments))
    x, index, ptr = torch.randn(70, 2), torch.zeros(70, dtype=torch.int64), torch.tensor([0, 70])
    given = x, index, ptr, None, torch.tensor([ranks])
    assert_same_bits(gpu.select(*given), portable.select(*given))
    assert len(calls) == searches


@settings(max_examples=10 if INTERPRETED else 200, phases=[Phase.reuse, Phase.generate])
@given(data=st.data(), nodes=st.sampled_from([3, 20, 40, 70]))
def test_any_numbers(dtype, data, nodes):
    values = data.draw(st.lists(floats(dtype), min_size=nodes, max_size=nodes))
    x, sizes = (
        torch.tensor(values, dtype=torch.float64).to(dtype).view(-1, 1),
        [nodes - nodes // 3, nodes // 3],
    )
    index = torch.arange(2).repeat_interleave(torch.tensor(sizes))
    ranks = torch.tensor(data.draw(st.lists(st.integers(-1, nodes), min_size=4, max_size=4))).view(2, 2)
    assert_agrees(x, index, torch.tensor([0, sizes[0], nodes]), ranks)


def test_means_of_two_are_rounded_once(dtype):
    """Sums that overflow, subnormal numbers next to each other, and halves of units."""
    limits = torch.finfo(dtype)
    least, unit = limits.smallest_normal * limits.eps, limits.eps
    pairs = [(limits.max, limits.max), (-limits.max, limits.max), (0.0, least), (-least, 0.0), (-0.0, -0.0)]
    pairs += [(least, 2 * least), (1, 1 + unit), (1 + unit, 1 + 2 * unit), (-math.inf, math.inf)]
    pairs += [(math.inf, math.inf), (1, math.inf), (limits.smallest_normal, least)]
    x = torch.tensor(pairs, dtype=torch.float64).to(dtype).view(-1, 1)
    ptr, index = torch.arange(0, len(x) + 1, 2), torch.arange(len(x)) // 2
    assert_agrees(x, index, ptr, torch.tensor([0, 1]).expand(len(pairs), 2))


@pytest.mark.parametrize("ptr", [[20, 90, 60], [-30, 30, 60], [0, 61, 60], [0, 2**40, 60]], ids=str)
def test_graphs_with_wrong_offsets_are_empty(ptr):
    x, ptr = torch.randn(60, 2, device=DEVICE) + 9, torch.tensor(ptr, device=DEVICE)
    ranks = torch.zeros(2, 1, dtype=torch.int64, device=DEVICE)
    sound = (ptr[:-1] >= 0) & (ptr[:-1] <= ptr[1:]) & (ptr[1:] <= 60)
    assert ((gpu.select(x, None, ptr, None, ranks) > 0).all(2).all(1) == sound).all()


def test_ranks_of_too_few_graphs_or_an_order_of_too_few_nodes_are_refused():
    x, ptr = torch.randn(6, 2, device=DEVICE), torch.tensor([0, 1, 3, 6], device=DEVICE)
    for order, ranks in ((None, torch.zeros(2, 1)), (torch.arange(5), torch.zeros(3, 1))):
        given = order if order is None else order.to(DEVICE)
        with pytest.raises(RuntimeError):
            gpu.select(x, None, ptr, given, ranks.long().to(DEVICE))


def test_few_columns_of_many_nodes_are_sorted_by_the_portable_kernel(monkeypatch):
    monkeypatch.setattr(gpu, "COLUMNS", 4)
    monkeypatch.setattr(gpu, "LONG", 50)
    monkeypatch.setattr(gpu, "_launch", None)
    x, index, ptr = torch.randn(60, 3), torch.arange(60) // 30, torch.tensor([0, 30, 60])
    ranks = torch.tensor([[14, 15], [14, 15]])
    assert_same_bits(gpu.select(x, index, ptr, None, ranks), portable.select(x, index, ptr, None, ranks))
    gpu.midpoint(x, index, ptr, None, ranks)
    for few_nodes_or_many_columns in (x[:50], torch.randn(60, 4)):
        with pytest.raises(TypeError):
            gpu.select(few_nodes_or_many_columns, index, ptr, None, ranks)


def test_supports():
    assert gpu.supports(torch.float16)
    assert not gpu.supports(torch.int64)
