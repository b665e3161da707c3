"""The value contract: empty graphs, NaN, infinities, ties, dtypes, shapes, indices."""

import copy
import math
import pickle

import pytest
import torch
from bits import assert_same_bits

from readouts import Segments, global_add_pool, readout
from readouts.nn import MeanReadout, MultiReadout, SumReadout
from readouts.reductions import ELEMENTARY

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("reduce", ELEMENTARY)
@pytest.mark.parametrize("empty", [0, -1.5, NAN, -INF])
def test_empty_graphs_anywhere(reduce, empty, dtype):
    x = torch.tensor([[-1.0], [-2.0], [-3.0]], dtype=dtype)
    out = readout(x, torch.tensor([1, 1, 3]), reduce, size=5, empty=empty).flatten()
    filled = readout(x, torch.tensor([0, 0, 1]), reduce).flatten()
    expected = torch.tensor([empty, filled[0], empty, filled[1], empty], dtype=dtype)
    assert_same_bits(out, expected)


def test_emptiness_is_a_matter_of_counts_not_of_infinities():
    x = torch.full((2, 1), -INF)
    out = readout(x, torch.tensor([0, 0]), ("max", "min", "sum", "mean"), size=2, empty=7)
    assert out.tolist() == [[-INF] * 4, [7] * 4]
    assert readout(x, ptr=torch.tensor([0, 2]), reduce="max").item() == -INF


@pytest.mark.parametrize("reduce", ELEMENTARY)
def test_nan_stays_in_its_graph_and_feature(reduce, dtype):
    x = torch.randn(6, 3).to(dtype)
    index = torch.tensor([0, 1, 2, 0, 1, 2])
    clean = readout(x, index, reduce)
    x[4, 1] = NAN
    out = readout(x, index, reduce)
    assert out[1, 1].isnan()
    clean[1, 1] = NAN
    assert_same_bits(out, clean)


@pytest.mark.parametrize("reduce", ELEMENTARY)
def test_nan_gradient_stays_in_its_graph_and_feature(reduce, dtype):
    x = torch.randn(6, 3).to(dtype)
    x[4, 1] = NAN
    x.requires_grad_()
    readout(x, torch.tensor([0, 1, 2, 0, 1, 2]), reduce).nansum().backward()
    elsewhere = torch.ones(6, 3, dtype=torch.bool)
    elsewhere[[1, 4], 1] = False
    assert x.grad[elsewhere].isfinite().all()


def test_infinities_are_kept():
    x = torch.tensor([[INF, INF, -INF, 1.0], [1.0, -INF, -INF, 2.0]])
    out = readout(x, None, ("sum", "mean", "max", "min")).view(4, 4)
    assert_same_bits(out[:2], torch.tensor([[INF, NAN, -INF, 3.0], [INF, NAN, -INF, 1.5]]))
    assert_same_bits(out[2:], torch.tensor([[INF, INF, -INF, 2.0], [1.0, -INF, -INF, 1.0]]))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, -1.0, -2.0], [1, 0, 0]),
        ([0.0, 0.0, -2.0], [1 / 2, 1 / 2, 0]),
        ([-3.0, -3.0, -3.0], [1 / 3, 1 / 3, 1 / 3]),
        ([0.0, -0.0, -1.0], [1 / 2, 1 / 2, 0]),
        ([INF, INF, 1.0], [1 / 2, 1 / 2, 0]),
        ([NAN, 1.0, NAN], [1 / 2, 0, 1 / 2]),
    ],
    ids=str,
)
def test_winners_share_the_gradient(values, expected):
    for reduce, sign in (("max", 1), ("min", -1)):
        x = (sign * torch.tensor(values)).requires_grad_()
        readout(x, None, reduce).backward(torch.ones(1))
        assert x.grad.tolist() == torch.tensor(expected).tolist()


def test_gradient_of_std_is_zero_where_std_is_zero():
    x = torch.tensor([2.0, 2.0, 5.0]).requires_grad_()
    out = readout(x, torch.tensor([0, 0, 1]), "std")
    out.sum().backward()
    assert out.tolist() == [0.0, 0.0]
    assert x.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
)
def test_dtypes_of_integers(dtype):
    x = torch.tensor([[1], [0], [1]]).to(dtype)
    index = torch.tensor([0, 0, 1])
    assert readout(x, index, "sum").dtype == torch.int64
    assert readout(x, index, "max").dtype == readout(x, index, "min").dtype == dtype
    for reduce in ("mean", "var", "std"):
        assert readout(x, index, reduce).dtype == torch.get_default_dtype()
    assert readout(x, index, ("sum", "mean")).tolist() == [[1.0, 0.5], [1.0, 1.0]]


def test_integer_sums_are_exact_beyond_floats():
    x = torch.tensor([[2**62], [1], [-(2**62)], [2**53 + 1]])
    assert readout(x, torch.tensor([0, 0, 0, 1]), "sum").tolist() == [[1], [2**53 + 1]]


@pytest.mark.parametrize("features", [(), (1,), (4,), (2, 3), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("nodes", [0, 1, 5])
def test_shapes(features, nodes):
    x, index = torch.randn(nodes, *features), torch.arange(nodes) % 3
    single = readout(x, index, "mean", size=3)
    assert single.shape == (3, *features)
    double = readout(x, index, ("mean", "max"), size=3)
    assert double.shape == ((3, *features[:-1], 2 * features[-1]) if features else (3, 2))
    parts = [single, readout(x, index, "max", size=3)]
    assert_same_bits(double, torch.cat(parts, -1) if features else torch.stack(parts, -1))


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)], ids=str)
def test_no_nodes_no_features_no_graphs(shape):
    x = torch.randn(shape, requires_grad=True)
    index = torch.zeros(shape[0], dtype=torch.int64)
    assert readout(x, index, "sum").shape == (min(shape[0], 1), shape[1])
    out = readout(x, index, ("mean", "std"), size=2)
    assert out.shape == (2, 2 * shape[1])
    out.sum().backward()
    assert x.grad.equal(torch.zeros(shape))
    assert readout(x, None).shape == (1, shape[1])


def test_non_contiguous_and_untouched_input():
    x, index = torch.randn(4, 12, 2), torch.tensor([1, 0, 1, 0])
    for view in (x.transpose(0, 1)[:4], x[:, ::3], x.flip(0), x.expand(4, 12, 2)[..., :1]):
        before = view.clone()
        assert_same_bits(readout(view, index, ELEMENTARY), readout(view.contiguous(), index, ELEMENTARY))
        assert_same_bits(view, before)
    assert_same_bits(readout(x, index.repeat_interleave(2)[::2]), readout(x, index))


def test_without_batch_all_nodes_are_one_graph():
    x = torch.randn(5, 3)
    assert_same_bits(readout(x), readout(x, torch.zeros(5, dtype=torch.int64)))
    assert readout(x[:0]).tolist() == [[0.0, 0.0, 0.0]]
    assert readout(torch.tensor([1.0, 2.0])).tolist() == [1.5]


def test_size_comes_from_the_batch_unless_given():
    x, index = torch.ones(3, 1), torch.tensor([2, 0, 2])
    assert readout(x, index, "sum").tolist() == [[1], [0], [2]]
    assert readout(x, index, "sum", size=5).tolist() == [[1], [0], [2], [0], [0]]
    assert readout(x, ptr=torch.tensor([0, 1, 1, 3]), reduce="sum").tolist() == [[1], [0], [2]]


def test_float16_is_accumulated_without_overflow():
    x = torch.tensor([[60000.0], [60000.0], [-60000.0]], dtype=torch.float16)
    assert readout(x, None, "sum").item() == 60000.0
    assert readout(x, None, "mean").item() == 20000.0
    assert readout(x[:2], None, "sum").item() == INF


def test_sum_that_is_zero_is_plus_zero():
    for dtype in (torch.float32, torch.float16):
        x = torch.tensor([[-0.0], [-0.0]], dtype=dtype)
        assert_same_bits(readout(x, None, ("sum", "mean")), torch.zeros(1, 2, dtype=dtype))
    least = torch.tensor([[-(2.0**-24)], [0.0], [0.0]], dtype=torch.float16)
    assert_same_bits(readout(least, None, "mean"), torch.zeros(1, 1, dtype=torch.float16))


def test_only_what_the_gradient_needs_is_saved():
    def saved_features(reduce):
        saved = []
        x = torch.randn(1000, 8, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
            readout(x, torch.arange(1000) % 10, reduce, size=10)
        assert (
            sum(t.numel() for t in saved if not t.is_floating_point()) <= 1000 + 11 + 1000
        )  # batch, ptr, order
        return sum(t.numel() for t in saved if t.is_floating_point())

    assert saved_features(("sum", "mean")) == 0
    assert saved_features(("sum", "std")) == 8000  # x
    assert saved_features(("sum", "max")) == 8000 + 160  # x and the output


def test_modules_survive_copies_and_pickles():
    for module in (SumReadout(), MeanReadout(empty=NAN), MultiReadout(["sum", "max"])):
        x, index = torch.randn(5, 2), torch.tensor([0, 2, 0, 2, 2])
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert repr(twin) == repr(module)
            assert_same_bits(twin(x, index), module(x, index))
        assert module.state_dict() == {}
    segments = Segments.from_batch(torch.tensor([1, 0, 1]))
    for twin in (copy.deepcopy(segments), pickle.loads(pickle.dumps(segments))):
        assert twin.index.equal(segments.index)
        assert twin.count.equal(segments.count)


def test_autocast_leaves_the_dtype_of_the_features():
    x, index = torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 1, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = torch.nn.Linear(4, 4)(x)
        assert hidden.dtype == torch.bfloat16
        assert_same_bits(global_add_pool(hidden, index), readout(hidden, index, "sum"))
        assert_same_bits(readout(x, index), readout(x.clone(), index))
        assert readout(x, index).dtype == torch.float32
