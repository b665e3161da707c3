"""The Triton kernels return the bits of the reference: on a GPU, or on the CPU under TRITON_INTERPRET=1.

`tests/test_gpu.py` runs this file interpreted. An interpreted program takes tens of milliseconds, so a
test here puts many awkward columns into one batch.
"""

import itertools
import math
import os

import pytest
import torch
from batches import MULTIPLE, batches, floats
from bits import AS_INTEGERS, assert_same_bits
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from readouts import ops
from readouts.kernels import reference
from readouts.kernels.portable import elementary as portable
from readouts.kernels.triton import elementary as gpu
from readouts.ops import elementary, registry
from readouts.reductions import ELEMENTARY

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("needs TRITON_INTERPRET=1 or a GPU", allow_module_level=True)

loops = pytest.importorskip("readouts.kernels.triton.loops")
results = pytest.importorskip("readouts.kernels.triton.results")

DEVICE = "cpu" if INTERPRETED else "cuda"
SOME_EXAMPLES = settings(
    max_examples=6 if INTERPRETED else 200,
    phases=[Phase.reuse, Phase.generate],  # shrinking takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
TRIPLE = ("sum", "mean", "max")
SUMS = ("sum", "mean", "var", "std")

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # of numpy: overflow, inf - inf
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),  # in Triton 3.6
]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """Interpreted, rows are not spread over 32 threads, which would only take time."""
    if INTERPRETED:
        monkeypatch.setattr(gpu, "BLOCK", 4)
        monkeypatch.setattr(gpu, "PARTS", 2)


@pytest.fixture(params=[False, True], ids=["whole", "cut"])
def _long(request, monkeypatch):
    """Graphs as they are, or cut into pieces of four nodes (eight, in limbs) where there are more than 24."""
    if request.param:
        monkeypatch.setattr(gpu, "LONG", 24)
        monkeypatch.setattr(gpu, "PIECES", (2, 3))


class poisoned:  # noqa: N801
    """What is not written is NaN or a huge integer."""

    def __enter__(self):
        torch.use_deterministic_algorithms(True)

    def __exit__(self, *exception):
        torch.use_deterministic_algorithms(False)


def grouped(index, size, sort=True):
    """Return the nodes of every graph, ptr and order."""
    count = torch.bincount(index, minlength=size)
    ptr = torch.nn.functional.pad(count.cumsum(0), (1, 0))
    return count, ptr, index.argsort(stable=True) if sort else None


def reduce(x, index, size, names, sort=True, kept=None):
    """Reduce; `kept` is a list that takes what is kept for the backward pass."""
    _, ptr, order = grouped(index, size, sort)
    moved = [None if t is None else t.to(DEVICE) for t in (x, index, ptr, order)]
    with poisoned():
        if kept is None:
            return gpu.reduce(*moved, names).cpu()
        out, more = gpu.reduce_keeping(*moved, names)
    kept.append(more)
    return out.cpu()


def reduce_backward(grad, x, out, index, names, sort=True, kept=(None,)):
    _, ptr, order = grouped(index, len(grad), sort)
    moved = [None if t is None else t.to(DEVICE) for t in (grad, x, out, index, ptr, order)]
    with poisoned():
        return gpu.reduce_backward(*moved, names, *kept).cpu()


def assert_agrees(x, index, size, names=ELEMENTARY, sort=True):
    """Compare forward and, with a gradient of many magnitudes, backward."""
    count = torch.bincount(index, minlength=size)
    expected = reference.reduce(x, index, count, names)
    kept = []
    assert_same_bits(reduce(x, index, size, names, sort=sort, kept=kept), expected)
    grad = torch.randn(expected.shape, dtype=torch.float64).to(x.dtype)
    slope = reference.reduce_backward(grad, x, index, count, names)
    assert_same_bits(reduce_backward(grad, x, expected, index, names, sort=sort), slope)
    assert_same_bits(reduce_backward(grad, x, expected, index, names, sort=sort, kept=kept), slope)


def assert_columns_agree(columns, dtype, names=("sum", "mean", "max", "min")):
    """Compare columns of different lengths as features of one graph, where zeros do not count."""
    x = torch.tensor(list(itertools.zip_longest(*columns, fillvalue=0.0)), dtype=torch.float64).to(dtype)
    assert_agrees(x, torch.zeros(len(x), dtype=torch.int64), 1, names, sort=False)


def assert_graphs_agree(columns, dtype, names):
    """Compare columns of different lengths as graphs of one feature."""
    index = torch.cat([torch.full((len(column),), b) for b, column in enumerate(columns)])
    x = torch.tensor([value for column in columns for value in column], dtype=torch.float64).to(dtype)
    shuffle = torch.randperm(len(x))
    assert_agrees(x[shuffle].view(-1, 1), index[shuffle], len(columns), names)


@pytest.mark.usefixtures("_long")
@SOME_EXAMPLES
@given(st.data())
def test_forward(dtype, data):
    x, index, count = data.draw(batches(dtype))
    names = data.draw(st.sampled_from(MULTIPLE))
    sort = data.draw(st.booleans())
    index = index if sort else index.sort().values
    assert_same_bits(reduce(x, index, len(count), names, sort=sort), reference.reduce(x, index, count, names))


@pytest.mark.usefixtures("_long")
@SOME_EXAMPLES
@given(st.data())
def test_backward(dtype, data):
    x, index, count = data.draw(batches(dtype))
    names = data.draw(st.sampled_from(MULTIPLE))
    shape = len(count), len(names), x.shape[1]
    numbers = st.lists(floats(dtype), min_size=math.prod(shape), max_size=math.prod(shape))
    grad = torch.tensor(data.draw(numbers)).to(dtype).view(shape)
    kept = [] if data.draw(st.booleans()) and gpu.keeps(names) else None
    out = reduce(x, index, len(count), names, kept=kept)
    actual = reduce_backward(grad, x, out, index, names, kept=kept or (None,))
    assert_same_bits(actual, reference.reduce_backward(grad, x, index, count, names))


@pytest.mark.usefixtures("_long")
@pytest.mark.parametrize("names", MULTIPLE, ids="-".join)
def test_every_choice_of_reductions(names):
    x = torch.randn(60, 3)
    x[::4] = x[1]
    index = torch.randint(0, 3, (60,)).sort().values + (torch.arange(60) > 50)
    assert_agrees(x, index, 6, names, sort=False)


@pytest.mark.skipif(not INTERPRETED, reason="test_cuda.py runs the operators on a device")
@pytest.mark.parametrize("names", [TRIPLE, ("min", "std"), ("var",)], ids="-".join)
def test_operators_keep_what_backward_needs(names, monkeypatch):
    """Gradients, second derivatives and fake tensors of the operator that keeps statistics."""
    monkeypatch.setattr(elementary, "_KEEPING", {"cpu"})
    for dtype in (torch.float32, torch.float64):
        monkeypatch.setitem(registry._chosen, ("cpu", dtype, "elementary"), gpu)
    keep = gpu._Batch.keep
    monkeypatch.setattr(gpu._Batch, "keep", None)
    index = torch.randint(0, 3, (12,))
    count, ptr, order = grouped(index, 4)
    x = torch.randn(12, 2).mul(4).round().requires_grad_()
    out = ops.reduce(x, index, ptr, order, names)
    grad = torch.randn(out.shape).requires_grad_()
    (slope,) = torch.autograd.grad(out, x, grad, create_graph=True)
    assert_same_bits(out.detach(), reference.reduce(x.detach(), index, count, names))
    assert_same_bits(
        slope.detach(), reference.reduce_backward(grad.detach(), x.detach(), index, count, names)
    )
    monkeypatch.setattr(gpu._Batch, "keep", keep)
    function = lambda grad: torch.autograd.grad(out, x, grad, retain_graph=True)[0]  # noqa: E731
    several = torch.randn(2, *out.shape)
    assert_same_bits(torch.func.vmap(function)(several), torch.stack([function(one) for one in several]))
    monkeypatch.undo()
    along = torch.randn(x.shape)
    again = torch.autograd.grad(ops.reduce(x, index, ptr, order, names), x, grad, create_graph=True)[0]
    assert_same_bits(*(torch.autograd.grad(s, grad, along, retain_graph=True)[0] for s in (slope, again)))
    operator = torch.ops.readouts.reduce_keeping.default
    torch.library.opcheck(operator, (x.double().detach().requires_grad_(), index, ptr, order, list(names)))


@pytest.mark.parametrize("names", [("sum",), ("mean",), ("mean", "sum", "mean")], ids="-".join)
def test_backward_of_linear_reductions_needs_no_features(names):
    index, grad = torch.arange(40) // 30, torch.randn(3, len(names), 2)
    expected = reference.reduce_backward(grad, torch.randn(40, 2), index, torch.tensor([30, 10, 0]), names)
    assert_same_bits(reduce_backward(grad, None, None, index, names), expected)


def ends(dtype):
    """Return the largest and the least number of a dtype, and half a unit in the last place of 1."""
    limits = torch.finfo(dtype)
    return limits.max, limits.smallest_normal * limits.eps, limits.eps / 2


def test_roundings_that_catch_a_careless_sum(dtype):
    largest, least, half = ends(dtype)
    tiny = half * 2.0**-60  # 0 in float16
    columns = [
        (1.0, half),
        (1.0, half, least),
        (1.0, half, -least),
        (1.0 + 2 * half, half),
        (1.0 + 2 * half, half, -least),
        (-1.0, -half, -least),
        (-1.0, half / 2, least),
        (1.0, -half / 2, -least),
        *[
            (sign * a, sign * half, b)
            for sign in (1, -1)
            for a in (1.0, 1.0 + 2 * half)
            for b in (tiny, -tiny)
        ],
        *[(1.0, -half / 2, b) for b in (tiny, -tiny)],
        (largest, largest),
        (largest, largest * half / 2),
        (largest, largest * half / 2, least),
        (largest, largest * half / 2, -least),
        (-largest, -largest * half / 2),
        (largest, largest, -largest, -largest, 1.0),
        (largest, least, -largest),
        (least, least, least),
        (least, least, 0.0, 0.0),
        (least, 0.0),
        (-least, 0.0),
        (-least, 0.0, 0.0),
        (least, -least),
        (-0.0, -0.0),
        (-0.0, 0.0),
        (least, largest, 1.0),
        (1.0, 1.0 + 2 * half),
        (1.0 + 2 * half, 1.0 + 4 * half),
        (1.0, 1.0 + 2 * half, 1.0, 1.0 + 2 * half, least, -least / 2, 0.0, 0.0),
    ]
    assert_columns_agree(columns, dtype)
    if dtype == torch.float32:
        assert_graphs_agree(columns, dtype, ELEMENTARY)


def test_float64_at_the_ends_of_its_range():
    scales = [2.0**power for power in (-1074, -1062, -1045, -1010, -960, -899, 985, 1015, 1020)]
    for nodes in (3, 7):
        x = (torch.rand(nodes, len(scales), dtype=torch.float64) * 4 - 1) * torch.tensor(scales).double()
        assert_agrees(x, torch.zeros(nodes, dtype=torch.int64), 1, SUMS, sort=False)
        x[1:] = 0
        x[0] = 2.0 ** torch.arange(-1074, -1074 + 5 * 9, 5, dtype=torch.float64)
        assert_agrees(x, torch.zeros(nodes, dtype=torch.int64), 1, ("sum", "mean"), sort=False)


@pytest.mark.usefixtures("_long")
def test_stairs_that_three_numbers_do_not_hold(dtype):
    """Five numbers far apart, of which the first three cancel, together in a tile or each in its own."""
    start = {10: 15, 7: 120, 23: 120, 52: 0}[gpu.MANTISSA[dtype]]
    stairs = [(1 + torch.finfo(dtype).eps) * 2.0 ** (start - 60 * step) for step in range(5)]
    columns = torch.zeros(3, 8 * 4, dtype=torch.float64)
    columns[0, : 5 * 4 : 4] = torch.tensor(stairs).double()
    columns[0, 5 * 4 :: 4] = -torch.tensor(stairs[:3]).double()
    columns[1, :5], columns[1, 17:20] = columns[0, : 5 * 4 : 4], columns[0, 5 * 4 :: 4]
    columns[2] = columns[1].flip(0)
    x = columns.to(dtype).view(-1, 1)
    index = torch.arange(3).repeat_interleave(8 * 4)
    count = torch.bincount(index, minlength=4)
    actual = reduce(x, index, 4, ("sum", "mean"), sort=False)
    assert_same_bits(actual, reference.reduce(x, index, count, ("sum", "mean")))


def test_infinities_and_nan(dtype):
    inf, nan, (largest, least, _) = math.inf, math.nan, ends(dtype)
    columns = [
        (inf, 1.0),
        (-inf, 1.0),
        (inf, -inf),
        (inf, inf, 2.0, inf),
        (nan, 1.0, 2.0),
        (1.0, nan, inf, -inf),
        (-inf, -inf),
        (inf, largest, -largest, least),
        (nan,),
        (1.0, -1.0, 3.0),
    ]
    assert_columns_agree(columns, dtype, ELEMENTARY)
    assert_graphs_agree(columns, dtype, ("max", "min", "mean"))
    x = torch.tensor(columns[1] + columns[4]).to(dtype).view(-1, 1)
    x[2:3].view(AS_INTEGERS[dtype.itemsize]).bitwise_or_(torch.iinfo(AS_INTEGERS[dtype.itemsize]).min)
    assert x[2].signbit()
    assert_agrees(x, torch.zeros(5, dtype=torch.int64), 1, ("max", "min", "sum"), sort=False)


def test_nan_has_the_bits_of_a_cpu(dtype):
    """Of sums, extremes, squared deviations and gradients, whatever the sign and payload of the NaN in x."""
    inf, bits = math.inf, AS_INTEGERS[dtype.itemsize]
    columns = [(math.nan, 1.0), (1.0, -math.nan), (inf, -inf), (inf, inf)]
    x = torch.tensor(columns, dtype=torch.float64).T.to(dtype)
    x[0, 0:1].view(bits).bitwise_or_(torch.iinfo(bits).min + 1)
    index, count = torch.zeros(2, dtype=torch.int64), torch.tensor([2])
    default = torch.full((), math.nan, dtype=dtype).view(bits)
    out = reduce(x, index, 1, ELEMENTARY, sort=False)
    grad = reduce_backward(x[:1, None].expand(1, 6, 4), x, out, index, ELEMENTARY, sort=False)
    assert_same_bits(out, reference.reduce(x, index, count, ELEMENTARY))
    for result in (out, grad):
        assert result.isnan().any()
        assert (result.view(bits)[result.isnan()] == default).all()


@pytest.mark.usefixtures("_long")
@pytest.mark.parametrize("ptr", [[20, 40, 60], [0, 70, 60], [0, 40, 90], [0, 50, 40], [-30, 30, 60]], ids=str)
def test_wrong_offsets_leave_other_memory_alone(ptr):
    """Results lie within larger tensors, of which nothing else may change."""
    index, names = torch.arange(60) // 30, ("sum", "max")
    memory = []

    class Guarded(torch.Tensor):
        """Allocates results in the middle of a larger tensor."""

        def new_empty(self, *shape, dtype=None, device=None):
            if device is not None:  # by the interpreter
                return super().new_empty(*shape, dtype=dtype, device=device)
            size = torch.empty(shape, device="meta").shape
            memory.append(torch.ones(size.numel() + 1024, dtype=dtype or self.dtype, device=self.device))
            return memory[-1][512 : 512 + size.numel()].view(size).as_subclass(Guarded)

    x, ptr = torch.randn(60, 2, device=DEVICE).as_subclass(Guarded), torch.tensor(ptr, device=DEVICE)
    out = gpu.reduce(x, index, ptr, None, names)
    gpu.reduce_backward(out, x, out, index, ptr, None, names)
    assert len(memory) >= 2
    for whole in memory:
        assert (whole[:512] == 1).all()
        assert (whole[-512:] == 1).all()


def test_means_on_and_beside_ties(dtype):
    """Means of integers of as many bits as the dtype has, halfway between two of them and close to that."""
    top = int(2 / torch.finfo(dtype).eps)
    columns = []
    for nodes, rest, little in itertools.product((4, 6, 8), (0, 1, -1), (0.0, 2.0**-14, -(2.0**-14))):
        for middle in (5 * top // 8, 5 * top // 8 + 1):
            total = nodes * middle + nodes // 2 + rest
            values = (total // (nodes - 1) + torch.randint(-9, 9, (nodes - 2,))).tolist()
            columns.append([*values, total - sum(values), little])
    assert all(0 < value < top for column in columns for value in column[:-1])
    assert_graphs_agree(columns, dtype, ("mean",))


def test_segments_on_the_edge_of_what_a_float64_holds(dtype, monkeypatch):
    """Numbers that cancel but for one: its last bit is lost where a segment is added too boldly."""
    tiles = gpu._layout(dtype, 1) | {"LANES": 1, "ROWS": 8, "POWER": 5}
    monkeypatch.setattr(gpu, "_layout", lambda dtype, features: dict(tiles))
    eps = torch.finfo(dtype).eps
    edge = 52 - gpu.MANTISSA[dtype] - 5
    columns = []
    for gap in range(edge - 1, edge + 6):
        large = (2 - eps * torch.randint(1, 8, (15,))).tolist()
        small = (1 + eps) * 2.0**-gap
        zeros, negative = [0.0] * 8, [-value for value in large]
        columns.append([small, *large, *negative[:8], *negative[8:], 0.0, *zeros, small, *zeros])
    x = torch.tensor(columns, dtype=torch.float64).to(dtype).view(-1, 1)
    index = torch.arange(len(columns)).repeat_interleave(len(columns[0]))
    assert_agrees(x, index, len(columns), ("sum", "mean"), sort=False)


@pytest.mark.skipif(not INTERPRETED, reason="compiled kernels do not see another function")
@pytest.mark.parametrize("names", [("sum", "mean", "max"), ("min", "mean")], ids="-".join)
def test_ordinary_columns_need_no_repair(names, monkeypatch):
    x = torch.randn(80, 3)
    x[::7] *= 1e-4
    x[3, 0], x[5, 1], x[33, 1] = math.inf, math.nan, -math.inf
    expected = reference.reduce(x, torch.arange(80) // 30, torch.tensor([30, 30, 20]), names)
    monkeypatch.setattr(loops, "add_far", None)
    assert_same_bits(reduce(x, torch.arange(80) // 30, 3, names), expected)


@pytest.mark.usefixtures("_long")
@pytest.mark.parametrize("spread", [20, 24, 26, 70, 180, 2000])
def test_any_spread_of_magnitudes(dtype, spread):
    """From certified tiles over several grids to columns that only integers hold."""
    scales = torch.pow(2.0, torch.rand(60, 3, dtype=torch.float64) * spread - spread / 2)
    scales[0], scales[1] = 2.0 ** -(spread / 2), 2.0 ** (spread / 2)
    x = (torch.rand(60, 3, dtype=torch.float64) + 1) * scales * torch.tensor([1, -1]).repeat(30).view(-1, 1)
    x = x.to(dtype)
    x = torch.where(x.isfinite(), x, 1)
    x[40:50, 2] = -x[30:40, 2]  # what is left after cancellation
    index = torch.arange(60) // 45
    names = SUMS if spread == 26 else ("sum", "mean")
    count = torch.bincount(index)
    actual = reduce(x, index, 2, names, sort=False)
    assert_same_bits(actual, reference.reduce(x, index, count, names))
    shuffle = torch.randperm(60)
    assert_same_bits(reduce(x[shuffle], index[shuffle], 2, names), actual)


def test_infinite_range_of_scales_in_one_graph(dtype):
    powers = torch.arange(-1080.0, 1030, 9, dtype=torch.float64)
    x = torch.pow(2.0, powers).to(dtype).view(-1, 1)
    x = torch.where(x.isinf(), 1, x)
    x = torch.cat([x, -x[::3], x[::5]])
    index = torch.zeros(len(x), dtype=torch.int64)
    expected = reference.reduce(x, index, torch.tensor([len(x)]), SUMS)
    assert_same_bits(reduce(x, index, 1, SUMS, sort=False), expected)


@pytest.mark.skipif(not INTERPRETED, reason="compiled kernels do not see another constant")
def test_integers_alone_give_the_same_bits(dtype, monkeypatch):
    monkeypatch.setattr(results, "LARGE", loops.tl.constexpr(-1.0))
    x, index = torch.randn(40, 2).to(dtype), torch.arange(40) % 2
    x[:, 1] *= 1e-3
    assert_agrees(x, index, 3, ELEMENTARY)


@pytest.mark.skipif(not INTERPRETED, reason="compiled kernels do not see another function")
def test_ordinary_columns_need_no_integers(dtype, monkeypatch):
    monkeypatch.setattr(results, "patched", None)
    x = torch.randn(80, 3).to(dtype)
    x[::7] *= 1e-4
    assert_agrees(x, torch.arange(80) // 30, 3)


def test_gradients_are_rounded_once(monkeypatch):
    """Sums of three gradients next to the middle of two numbers; one node, many features."""
    monkeypatch.setattr(gpu, "BLOCK", 128)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        _, least, half = ends(dtype)
        bits = torch.linspace(0, torch.finfo(dtype).max, 7).to(dtype).view(AS_INTEGERS[dtype.itemsize])
        starts = torch.cat([bits + step for step in range(3)] + [torch.arange(6).to(bits)]).view(dtype)
        starts = starts[starts.isfinite()]
        unit = (starts.view(AS_INTEGERS[dtype.itemsize]) + 1).view(dtype).double() - starts.double()
        unit[unit.isinf()] = starts[unit.isinf()].double() * half
        little = torch.tensor([0.0, 1.0, -1.0]).double() * max(least / 4, 2.0**-149)
        grads = torch.stack(
            [
                torch.tensor([sign * a, sign * b, c])
                for (a, u), sign, c in itertools.product(
                    zip(starts.tolist(), unit.tolist(), strict=True), (1, -1), little.tolist()
                )
                for b in (u / 2, u / 4, 3 * u / 4)
            ]
        )
        grad = grads.to(dtype).T.unsqueeze(0)
        x = torch.zeros(1, grad.shape[2], dtype=dtype)
        expected = reference.reduce_backward(grad, x, torch.tensor([0]), torch.tensor([1]), ("sum",) * 3)
        actual = reduce_backward(grad, None, None, torch.tensor([0]), ("sum",) * 3, sort=False)
        assert_same_bits(actual, expected)


@pytest.mark.usefixtures("_long")
def test_skewed_sizes_and_more_features_than_a_block():
    index = torch.cat([torch.arange(8), torch.full((50,), 3), torch.tensor([9, 9])])
    x = torch.randn(60, 5 if INTERPRETED else 150)
    x[20:50:3] = x.amax(0)  # ties in many pieces
    shuffle = torch.randperm(60)
    assert_agrees(x[shuffle], index[shuffle], 11, ("sum", "max", "min"))


def test_more_nodes_than_a_program_takes(monkeypatch):
    monkeypatch.setattr(gpu, "BLOCK", 128)
    x, names = torch.randn(4200, 2), ("mean", "max")
    index = (torch.arange(4200) > 40).long()
    assert gpu.LONG < 4200
    count = torch.bincount(index)
    out = reference.reduce(x, index, count, names)
    assert_same_bits(reduce(x, index, 2, names, sort=False), out)
    grad = torch.randn(out.shape)
    actual = reduce_backward(grad, x, out, index, names, sort=False)
    _, ptr, order = grouped(index, 2)
    assert_same_bits(actual, portable.reduce_backward(grad, x, out, index, ptr, order, names))


def test_any_number_of_features_fits_into_a_grid(monkeypatch):
    """Dimensions of a CUDA grid are limited to 2**31 - 1, 65535 and 65535."""

    class Kernel:
        def __getitem__(self, grid):
            grids.append(grid)
            return lambda *arguments, **options: None

    grids = []
    for name in ("forward", "repair", "backward"):
        monkeypatch.setattr(loops, name, Kernel())
    x, index = torch.empty(1, 10**7), torch.zeros(1, dtype=torch.int64)
    reduce_backward(reduce(x, index, 1, ("sum",)), None, None, index, ("sum",))
    limits = 2**31, 2**16, 2**16
    assert grids
    assert all(extent < limit for grid in grids for extent, limit in zip(grid, limits, strict=False))


@pytest.mark.parametrize("shape", [(0, 3, 2), (4, 0, 2), (0, 0, 1), (0, 2, 0)], ids=str)
def test_no_work(shape):
    nodes, features, size = shape
    index, x = torch.zeros(nodes, dtype=torch.int64), torch.ones(nodes, features)
    zeros = torch.zeros(size, 2, features)
    assert_same_bits(reduce(x, index, size, ("sum", "max")), zeros)
    assert_same_bits(reduce_backward(zeros, x, zeros, index, ("sum", "max")), torch.zeros(nodes, features))


def test_supports():
    assert all(gpu.supports(dtype) for dtype in gpu.MANTISSA)
    assert not gpu.supports(torch.int64)


@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
@pytest.mark.parametrize("nodes", [50, 20_000])
def test_nothing_waits_for_the_device(nodes):
    index = torch.arange(nodes) // 30
    _, ptr, order = grouped(index, nodes // 30 + 1)
    x, index, ptr, order = (t.to(DEVICE) for t in (torch.randn(nodes, 8), index, ptr, order))
    for _ in range(2):  # compiling may wait
        out = gpu.reduce(x, index, ptr, order, ELEMENTARY)
        gpu.reduce_backward(out, x, out, index, ptr, order, ELEMENTARY)
        torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")
