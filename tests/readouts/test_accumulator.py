"""Readouts of streams: the bits of the whole for any chunks, order and tree of merges."""

import copy
import io
import math
import pickle

import pytest
import torch
from batches import batches, floats
from bits import AS_INTEGERS, assert_same_bits
from hypothesis import given
from hypothesis import strategies as st

import readouts.accumulator
from readouts import Accumulator, Segments, readout
from readouts.numerics import superaccumulator

EXACT = ("sum", "mean", "max", "min")
ALL = (*EXACT, "var", "std", "count")
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
NAN, INF = math.nan, math.inf


def accumulated(x, index, reduce, size, **options):
    accumulator = Accumulator(reduce, size, **options)
    accumulator.update(x, index)
    return accumulator


def units_apart(a, b):
    """The largest distance in units in the last place of numbers that are not negative."""
    assert a.dtype == b.dtype
    assert a.isnan().equal(b.isnan())
    as_integers = AS_INTEGERS[a.element_size()]
    steps = (a.view(as_integers).long() - b.view(as_integers).long()).masked_fill(a.isnan(), 0)
    return int(steps.abs().max()) if steps.numel() else 0


def as_it_is(accumulator):
    return accumulator


def pickled(accumulator):
    return pickle.loads(pickle.dumps(accumulator))


def chunked(data, x, index, reduce, size):
    """An accumulator of the nodes in any order, in chunks with cuts anywhere, merged as any tree."""
    order = torch.tensor(data.draw(st.permutations(range(len(x)))), dtype=torch.int64)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=5)))
    pool = [Accumulator(reduce, size)]
    for chunk in order.tensor_split(cuts):
        if data.draw(st.booleans()):
            pool.append(Accumulator(reduce, size))
        pool[-1].update(x[chunk], index[chunk])
    while len(pool) > 1:
        target = pool.pop(data.draw(st.integers(0, len(pool) - 1)))
        source = pool.pop(data.draw(st.integers(0, len(pool) - 1)))
        target.merge(data.draw(st.sampled_from([as_it_is, copy.deepcopy, pickled]))(source))
        pool.append(target)
    return pool[0]


@given(data=st.data())
def test_any_chunks_and_merges_give_the_bits_of_the_whole(dtype, data):
    x, index, count = data.draw(batches(dtype))
    size = len(count)
    merged = chunked(data, x, index, ALL, size)
    whole = accumulated(x, index, ALL, size)
    assert_same_bits(merged.result(), whole.result())
    assert merged.count.equal(count)
    exact = merged.result()[:, : 4 * x.shape[1]]
    assert_same_bits(exact, readout(x, index, EXACT, size=size))


@given(data=st.data())
def test_var_and_std_are_next_to_those_of_readout(dtype, data):
    x, index, count = data.draw(batches(dtype))
    allowed = 3 if dtype == torch.float64 else 1
    var = accumulated(x, index, "var", len(count)).result()
    expected = readout(x, index, "var", size=len(count))
    assert units_apart(var, expected) <= allowed
    std = accumulated(x, index, "std", len(count)).result()
    normal = (expected >= torch.finfo(dtype).smallest_normal) | (expected == 0) | expected.isnan()
    normal |= torch.tensor(dtype != torch.float64)
    units = units_apart(std[normal], readout(x, index, "std", size=len(count))[normal])
    assert units <= allowed


@given(data=st.data())
def test_variance_of_numbers_that_differ_little(dtype, data):
    """Sums of squares that cancel to the last bits, where plain sums are left with nothing."""
    offset = data.draw(floats(dtype, finite=True))
    steps = data.draw(st.lists(st.integers(-3, 3), min_size=1, max_size=20))
    start = torch.tensor(offset, dtype=torch.float64).to(dtype).view(AS_INTEGERS[dtype.itemsize])
    x = (start + torch.tensor(steps)).to(start.dtype).view(dtype).unsqueeze(1)
    x = x.where(x.isfinite(), 0)
    expected = readout(x, None, "var")
    allowed = 3 if dtype == torch.float64 else 1
    assert units_apart(accumulated(x, None, "var", 1).result(), expected) <= allowed


def test_var_of_ordinary_float64_numbers_is_within_one_unit():
    x, index = torch.randn(200_000, 2, dtype=torch.float64), torch.randint(0, 1000, (200_000,))
    for offset in (0.0, 1e3, 1e9):
        for name in ("var", "std"):
            whole = readout(x + offset, index, name)
            assert units_apart(accumulated(x + offset, index, name, 1000).result(), whole) <= 1


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers(dtype):
    x, index = torch.randint(-(2**63), 2**63 - 1, (40, 2)).to(dtype), torch.randint(0, 5, (40,))
    size = 6
    for name in (*EXACT, "var", "std"):
        total = Accumulator(name, size)
        for part in torch.randperm(40).split(7):
            total.merge(accumulated(x[part], index[part], name, size))
        expected = readout(x, index, name, size=size)
        if name in EXACT:
            assert_same_bits(total.result(), expected)
        else:
            assert units_apart(total.result(), expected) <= 1


def test_var_of_large_integers_sees_their_float64_values():
    x = torch.tensor([2**60, 2**60 + 1, 2**60 + 100])
    assert accumulated(x, None, "var", 1).result().item() == readout(x, None, "var").item() == 0
    x = torch.tensor([2**60, 2**60 + 1, 2**60 + 1000])
    assert accumulated(x, None, "var", 1).result().item() == readout(x, None, "var").item() > 0


def test_var_overflows_where_that_of_readout_does():
    x = torch.tensor([[1e160, 1e154, 1.7e308], [-1e160, -1e154, -1.7e308]], dtype=torch.float64)
    x = torch.cat([x, torch.zeros(10**4, 3, dtype=torch.float64)])
    for name in ("var", "std"):
        assert_same_bits(accumulated(x, None, name, 1).result(), readout(x, None, name))
    assert accumulated(x, None, "var", 1).result().isinf().tolist() == [[True, False, True]]


def test_infinities_nan_and_signed_zeros_in_different_chunks():
    x = torch.tensor([[INF, INF, NAN, -0.0, 1.0], [1.0, -INF, 1.0, -0.0, -1.0]])
    names = ("mean", "max", "min", "std", "var")
    total = accumulated(x[:1], None, names, 1)
    total.merge(accumulated(x[1:], None, names, 1))
    assert_same_bits(total.result(), readout(x, None, names))
    for _ in range(50):  # no counter of infinities runs over
        total.merge(copy.deepcopy(total))
        total.state_dict()
    assert_same_bits(total.result(), readout(x, None, names))


def test_more_nodes_than_fit_into_32_bits():
    x = torch.tensor([[1.0, 0.1, -3.0], [2.0, 0.7, 5.0]])
    total = accumulated(x, None, ALL, 1)
    once = total.result()
    for _ in range(40):
        total.merge(total)
    assert total.count.item() == 2**41
    sums, mean, *others = total.result().view(7, 3)
    exact = torch.tensor([sum(map(int, (column.double() * 2**30).tolist())) for column in x.T])
    assert_same_bits(sums, (exact.double() * 2.0**10).float())
    assert_same_bits(torch.stack([mean, *others[:-1]]), once.view(7, 3)[1:-1])


def test_no_limb_runs_over(monkeypatch, dtype):
    """Carries come in time: as many numbers as there is room for leave the limbs far below 2**63."""
    monkeypatch.setattr(superaccumulator, "ROOM", 5)
    x = torch.full((3, 1), torch.finfo(dtype).max, dtype=dtype)
    total, other = Accumulator(ALL, 1), accumulated(-x, None, ALL, 1)
    for _ in range(4):
        total.update(x)
        total.merge(other)
        assert total._pending <= 6
    assert_same_bits(total.result()[:, :2], torch.zeros(1, 2, dtype=dtype))


@pytest.mark.parametrize("features", [(), (1,), (2, 3), (0,)])
@pytest.mark.parametrize("reduce", ["mean", ("sum", "max"), ["var"], "count"], ids=str)
def test_shapes_are_those_of_readout(features, reduce):
    x, index = torch.randn(7, *features), torch.tensor([0, 2, 2, 0, 2, 2, 0])
    out = accumulated(x, index, reduce, 4).result()
    if reduce == "count":
        expected = torch.tensor([3, 0, 4, 0]).view(4, *(1 for _ in features)).expand(4, *features)
        assert_same_bits(out, expected)
    else:
        assert out.shape == readout(x, index, reduce, size=4).shape


@pytest.mark.parametrize("empty", [0, -1.5, NAN])
def test_empty_graphs_take_their_value_and_keep_their_count(empty, dtype):
    x, index = torch.tensor([[1.0], [2.0]], dtype=dtype), torch.tensor([1, 3])
    out = accumulated(x, index, ALL, 5, empty=empty).result()
    assert_same_bits(out[:, :-1], readout(x, index, ALL[:-1], size=5, empty=empty))
    assert out[:, -1].tolist() == [0, 1, 0, 1, 0]


def test_ways_to_name_the_graphs():
    x = torch.randn(6, 2)
    batch, ptr = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 2, 3, 6])
    expected = readout(x, batch, "mean")
    for graphs in (batch, batch.int(), Segments.from_batch(batch), ptr):
        accumulator = Accumulator("mean", size=3)
        accumulator.update(x, None if graphs is ptr else graphs, ptr=ptr if graphs is ptr else None)
        assert_same_bits(accumulator.result(), expected)


def test_chunks_without_nodes_and_no_chunks_at_all():
    total = Accumulator(("sum", "min"), size=2)
    total.merge(Accumulator(("sum", "min"), size=2))
    with pytest.raises(ValueError, match="result: expected an update before it, got none"):
        total.result()
    total.update(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert_same_bits(total.result(), torch.zeros(2, 6))
    assert total.count.tolist() == [0, 0]
    fresh = Accumulator(("sum", "min"), size=2)
    fresh.merge(accumulated(torch.ones(1, 3), torch.tensor([1]), ("sum", "min"), 2))
    assert fresh.result()[1].tolist() == [1.0] * 6


def test_no_graphs_at_all(dtype):
    out = accumulated(torch.zeros(0, 3, dtype=dtype), torch.zeros(0, dtype=torch.int64), ALL, 0).result()
    assert_same_bits(out, torch.zeros(0, 21, dtype=dtype))


def test_merging_leaves_the_other_as_it_is():
    a, b = (accumulated(torch.randn(5, 2), None, ALL, 1) for _ in range(2))
    before = b.result()
    a.merge(b)
    a.update(torch.randn(5, 2))
    assert_same_bits(b.result(), before)


def test_state_can_be_saved_and_continued(dtype):
    x, index = torch.randn(20, 3).to(dtype), torch.randint(0, 4, (20,))
    first = accumulated(x[:10], index[:10], ALL, 4)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    second = Accumulator(ALL, 4)
    second.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    for accumulator in (first, second):
        accumulator.update(x[10:], index[10:])
    assert_same_bits(second.result(), accumulated(x, index, ALL, 4).result())
    assert_same_bits(second.result(), first.result())
    assert repr(second) == repr(first)


def test_pickles_are_small():
    accumulator = accumulated(torch.rand(1000, 64, dtype=torch.float64), None, ("sum", "var"), 1)
    assert accumulator.nbytes > 100_000
    assert len(pickle.dumps(accumulator)) < accumulator.nbytes / 10
    empty = Accumulator("mean", 3, empty=NAN)
    assert repr(pickle.loads(pickle.dumps(empty))) == "Accumulator('mean', size=3)"
    assert math.isnan(pickle.loads(pickle.dumps(empty)).empty)


@pytest.mark.parametrize(
    ("dtype", "mean", "std"),
    [
        (torch.float16, 32, 72),
        (torch.bfloat16, 88, 240),
        (torch.float32, 88, 248),
        (torch.float64, 544, 1632),
        (torch.int64, 32, 112),
        (torch.bool, 32, 112),
    ],
    ids=str,
)
def test_memory_is_what_the_documentation_says(dtype, mean, std):
    x = torch.ones(4, 10, dtype=dtype)
    for reduce, each in (("mean", mean), ("std", std), ("max", 8), (("max", "min"), 16), ("count", 0)):
        accumulator = accumulated(x, None, reduce, 1)
        assert accumulator.nbytes == 8 + 10 * each
        accumulator.update(x)
        assert accumulator.nbytes == 8 + 10 * each


X = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda a: Accumulator("median", 1), ValueError, r"reduce: expected .*count, got 'median'"),
        (lambda a: Accumulator((), 1), ValueError, r"reduce: expected one or more .* got none"),
        (lambda a: Accumulator(3, 1), TypeError, r"reduce: expected a name .* got int"),
        (lambda a: Accumulator("sum", None), TypeError, r"size: expected an integer, got NoneType"),
        (lambda a: Accumulator("sum", -1), ValueError, r"size: .* got -1"),
        (lambda a: Accumulator("sum", 1, empty=None), TypeError, r"empty: .* got NoneType"),
        (lambda a: a.update([1.0]), TypeError, r"x: expected a tensor, got list"),
        (
            lambda a: a.update(X.double(), torch.tensor([0, 1])),
            TypeError,
            r"x: expected torch.float32.*float64",
        ),
        (lambda a: a.update(X[:, :2], torch.tensor([0, 1])), ValueError, r"x: .*\(3,\).* got \(2,\)"),
        (lambda a: a.update(X, torch.tensor([0, 2])), IndexError, r"batch: .*0 to 1.* got 2"),
        (lambda a: a.update(X, torch.tensor([0])), ValueError, r"batch: .*2 nodes, got 1"),
        (lambda a: a.update(X), ValueError, r"size: expected 1.* got 2"),
        (lambda a: a.merge(X), TypeError, r"other: expected an Accumulator, got Tensor"),
        (lambda a: a.merge(Accumulator("max", 2)), ValueError, r"reduce: expected 'sum', got 'max'"),
        (lambda a: a.merge(Accumulator("sum", 3)), ValueError, r"size: expected 2, got 3"),
        (
            lambda a: a.merge(accumulated(X.half(), torch.tensor([0, 1]), "sum", 2)),
            TypeError,
            r"other: expected torch.float32.* got torch.float16",
        ),
        (
            lambda a: a.load_state_dict(Accumulator("sum", 5).state_dict()),
            ValueError,
            r"size: expected 2, got 5",
        ),
    ],
)
def test_errors_say_what_was_expected_and_what_came(call, error, message):
    accumulator = accumulated(X, torch.tensor([0, 1]), "sum", 2)
    before = accumulator.result()
    with pytest.raises(error, match=message):
        call(accumulator)
    assert_same_bits(accumulator.result(), before)


def test_no_gradient_flows():
    x = torch.randn(4, 2, requires_grad=True)
    assert not accumulated(x, None, ALL, 1).result().requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(dtype):
    x, index = torch.randn(50, 3).to(dtype), torch.randint(0, 4, (50,))
    total = accumulated(x[:20].cuda(), index[:20].cuda(), ALL, 5)
    total.merge(accumulated(x[20:], index[20:], ALL, 5))
    assert_same_bits(total.result().cpu(), accumulated(x, index, ALL, 5).result())


def test_updates_in_inference_mode():
    x, index = torch.randn(6, 2), torch.tensor([0, 2, 2, 1, 0, 0])
    expected = accumulated(x, index, ALL, 3)
    expected.update(x, index)
    ours = Accumulator(ALL, 3)
    with torch.inference_mode():
        ours.update(x.clone(), index.clone())
        other = pickle.loads(pickle.dumps(ours))
    ours.merge(other)
    assert_same_bits(ours.result(), expected.result())
    other.update(x, index)
    assert_same_bits(other.result(), expected.result())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64])
def test_few_variances_need_integers_of_any_length(monkeypatch, dtype):
    asked = []
    exact = readouts.accumulator._variance
    monkeypatch.setattr(readouts.accumulator, "_variance", lambda *cell: asked.append(cell) or exact(*cell))
    x, index = (torch.randn(20_000, 8) * 10).to(dtype), torch.randint(0, 900, (20_000,))
    fast = accumulated(x, index, "var", 900).result()
    assert len(asked) < 72  # of 7,200 variances
    monkeypatch.setattr(
        readouts.accumulator.expansions,
        "variance",
        lambda sums, squares, mean, nodes, dtype: (mean, torch.zeros_like(mean, dtype=torch.bool)),
    )
    assert_same_bits(accumulated(x, index, "var", 900).result(), fast)
    assert len(asked) >= 7200
