"""PyTorch's scatter operators under `exact_scatter`: values, derivatives, compiled code; off means off."""

import itertools
import subprocess
import sys
import threading
from fractions import Fraction

import pytest
import torch
from bits import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st

from readouts import exact_scatter
from readouts.kernels.reference import round_once

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
OVERLOADS = ("functional", "in place", "out")
pytestmark = pytest.mark.filterwarnings("ignore:index_reduce:UserWarning")  # PyTorch calls it beta
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.fixture(autouse=True)
def off_before_and_after():
    assert not exact_scatter.is_enabled()
    yield
    assert not exact_scatter.is_enabled()


def call(name, overload, x, *arguments, **options):
    """Call an overload of an operator on a copy of x."""
    x = x.clone()
    match overload:
        case "functional":
            return getattr(torch, name)(x, *arguments, **options)
        case "in place":
            assert getattr(x, f"{name}_")(*arguments, **options) is x
            return x
        case "out":
            return getattr(torch, name)(x, *arguments, **options, out=torch.empty_like(x))


def assert_near(found, expected):
    bound = ROUNDING[found.dtype]
    torch.testing.assert_close(found.double(), expected.double(), rtol=bound, atol=bound)


@st.composite
def numbers(draw, shape, dtype):
    """Draw random numbers, all of them moderate or over a wide range of exponents; not contiguous."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x = torch.randn(shape[::-1], generator=generator, dtype=torch.float64)
    if draw(st.booleans()):
        x *= 2.0 ** torch.randint(-12, 12, x.shape, generator=generator)
    return x.to(dtype).permute(*range(x.dim())[::-1])


@st.composite
def scatters(draw):
    """Draw target, dim, an index of any shape that fits, and source."""
    shape, dtype = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)), draw(st.sampled_from(FLOATS))
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    own = dim % len(shape)
    of_index = [draw(st.integers(0, 6 if d == own else n)) for d, n in enumerate(shape)]
    of_source = [n + draw(st.integers(0, 2)) for n in of_index]
    target = draw(numbers(shape, dtype))
    if draw(st.booleans()):
        target = torch.zeros_like(target)
    entries = draw(st.lists(st.integers(0, shape[dim] - 1), min_size=24 * 4, max_size=24 * 4))
    index = torch.tensor(entries[: torch.Size(of_index).numel()]).view(of_index)
    if draw(st.booleans()) and index.numel():
        index = index[tuple(slice(None) if d == own else slice(1) for d in range(len(shape)))].expand(
            of_index
        )
    return target, dim, index, draw(numbers(of_source, dtype))


@given(
    scatters(), st.sampled_from(["sum", "mean", "amax", "amin"]), st.booleans(), st.sampled_from(OVERLOADS)
)
def test_scatter_reduce_agrees_with_pytorch(arguments, reduce, include_self, overload):
    target, dim, index, source = arguments
    wide = target.double().scatter_reduce(dim, index, source.double(), reduce, include_self=include_self)
    with exact_scatter():
        found = call(
            "scatter_reduce", overload, target, dim, index, source, reduce, include_self=include_self
        )
    assert found.dtype == target.dtype
    assert_near(found, wide)


@given(scatters(), st.sampled_from(OVERLOADS))
def test_scatter_add_is_the_exact_sum_of_old_and_new(arguments, overload):
    target, dim, index, source = arguments
    terms = {}
    for place in itertools.product(*map(range, index.shape)):
        to = list(place)
        to[dim] = int(index[place])
        terms.setdefault(tuple(to), []).append(Fraction(source[place].item()))
    expected = target.clone()
    for place, values in terms.items():
        expected[place] = round_once(sum(values, Fraction(target[place].item())), target.dtype)
    with exact_scatter():
        assert_same_bits(call("scatter_add", overload, target, dim, index, source), expected)


@given(st.data(), st.sampled_from(FLOATS), st.sampled_from(["index_add", "mean", "amax", "amin"]))
def test_index_operators_agree_with_pytorch_and_have_no_order(data, dtype, name):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    index = torch.tensor(data.draw(st.lists(st.integers(0, shape[dim] - 1), max_size=12)), dtype=torch.int64)
    target = data.draw(numbers(shape, dtype))
    of_source = list(shape)
    of_source[dim] = len(index)
    source = data.draw(numbers(of_source, dtype))
    overload = data.draw(st.sampled_from(OVERLOADS))
    index_dtype = data.draw(st.sampled_from([torch.int64, torch.int32]))

    def run(x, index, source):
        if name == "index_add":
            return call("index_add", overload, x, dim, index.to(index_dtype), source, alpha=0.5)
        return call("index_reduce", overload, x, dim, index.to(index_dtype), source, name)

    plain = run(target.double(), index, source.double())
    shuffle = torch.tensor(data.draw(st.permutations(range(len(index)))), dtype=torch.int64)
    with exact_scatter():
        found = run(target, index, source)
        again = run(target, index[shuffle], source.index_select(dim, shuffle))
    assert_near(found, plain)
    assert_same_bits(again, found)


INDICES = {
    "rows": lambda i: (i,),
    "negative rows": lambda i: (i - 4,),
    "entries": lambda i: (i, (i + 1) % 3),
    "second dimension": lambda i: (slice(None), i % 3),
    "mask": lambda i: (torch.tensor([True, False, True, True]),),
    "grid": lambda i: (i[:2, None], (i % 3)[None, :2]),
}


@pytest.mark.parametrize("indices", INDICES.values(), ids=INDICES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_index_put_adds_at_every_kind_of_index(indices, dtype):
    x = torch.randn(4, 3, 2).to(dtype)
    places = indices(torch.tensor([3, 0, 0, 1, 3, 3]))
    values = torch.randn(x[places].shape).to(dtype)

    def run(x, values):
        x = x.clone()
        x.index_put_(
            tuple(torch.arange(4)[p] if isinstance(p, slice) else p for p in places), values, accumulate=True
        )
        return x

    if any(isinstance(p, slice) for p in places):  # as autograd calls it for x[:, i]
        places = (None, places[1])

        def run(x, values):
            return torch.ops.aten.index_put(x, places, values, True)

    plain = run(x.double(), values.double())
    with exact_scatter():
        assert_near(run(x, values), plain)
        assert_near(run(x, values[..., :1]), run(x.double(), values[..., :1].double()))


def test_other_operators_that_add():
    x, index = torch.tensor([1e8, 1.0, -1e8, 3.0]), torch.tensor([0, 0, 0, 2])
    weight = torch.zeros(3, 1, requires_grad=True)
    with exact_scatter():
        assert torch.zeros(3).put_(index, x, accumulate=True).tolist() == [1, 0, 3]
        assert torch.zeros(3).put(index, x, accumulate=True).tolist() == [1, 0, 3]
        assert torch.zeros(3).scatter_(0, index, x, reduce="add").tolist() == [1, 0, 3]
        assert torch.segment_reduce(x, "sum", lengths=torch.tensor([3, 0, 1])).tolist() == [1, 0, 3]
        assert torch.segment_reduce(x, "sum", offsets=torch.tensor([0, 3, 3, 4])).tolist() == [1, 0, 3]
        for reduce, *expected in (("mean", 1, torch.nan), ("max", 1e8, -torch.inf), ("min", -1e8, torch.inf)):
            found = torch.segment_reduce(x, reduce, lengths=torch.tensor([4, 0]))
            assert_same_bits(found, torch.tensor(expected))
        torch.nn.functional.embedding(index, weight).backward(x[:, None])
        assert weight.grad.flatten().tolist() == [1, 0, 3]
        weight.grad = None
        torch.nn.functional.embedding(index, weight, padding_idx=2, scale_grad_by_freq=True).backward(
            x[:, None]
        )
        assert weight.grad.flatten().tolist() == [torch.tensor(1 / 3).item(), 0, 0]


GRADIENTS = {
    "index_select": lambda x, i: x.index_select(0, i),
    "gather": lambda x, i: x.gather(0, i[:, None].expand(-1, 2)),
    "indexing": lambda x, i: x[i],
    "take": lambda x, i: x.take(i),
    "repeat": lambda x, i: x[i, (i + 1) % 2],
}


@pytest.mark.parametrize("read", GRADIENTS.values(), ids=GRADIENTS)
def test_gradients_of_reading_are_exact_sums(read):
    i = torch.tensor([1, 1, 1, 0])
    x = torch.zeros(3, 2, requires_grad=True)
    with exact_scatter():
        out = read(x, i)
        grad = torch.tensor([1e8, 1.0, -1e8, 5.0]).view(-1, *[1] * (out.dim() - 1)).expand_as(out)
        out.backward(grad)
    assert sorted(set(x.grad.flatten().tolist()) - {0}) == [1, 5]


CALLS = {
    "scatter_add": lambda x, i, s: x.scatter_add(0, i[:, None].expand_as(s), s),
    "general index": lambda x, i, s: x.scatter_add(0, torch.stack([i, (i + 1) % 3], 1), s),
    "index_add": lambda x, i, s: x.index_add(0, i, s, alpha=2),
    "mean": lambda x, i, s: x.scatter_reduce(0, i[:, None].expand_as(s), s, "mean", include_self=False),
    "amax": lambda x, i, s: x.scatter_reduce(0, i[:, None].expand_as(s), s, "amax"),
    "amin alone": lambda x, i, s: x.scatter_reduce(0, i[:, None].expand_as(s), s, "amin", include_self=False),
    "amax in place": lambda x, i, s: (x * 1).scatter_reduce_(0, i[:, None].expand_as(s), s, "amax"),
    "index_reduce": lambda x, i, s: x.index_reduce(0, i, s, "amax", include_self=False),
    "index_put": lambda x, i, s: x.index_put((i,), s, accumulate=True),
}


@pytest.mark.parametrize("operator", CALLS.values(), ids=CALLS)
def test_first_and_second_derivatives(operator):
    index = torch.tensor([0, 2, 0, 0, 2])
    x, s = (torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in (4, 5))
    with exact_scatter():
        assert torch.autograd.gradcheck(lambda x, s: operator(x, index, s), (x, s))
        assert torch.autograd.gradgradcheck(lambda x, s: operator(x, index, s) ** 2, (x, s))


@pytest.mark.parametrize("reduce", ["amax", "amin"])
@pytest.mark.parametrize("in_place", [False, True])
def test_ties_share_a_gradient_and_a_lone_winner_at_zero_has_all(reduce, in_place):
    index = torch.tensor([0, 0, 0, 1, 1])
    sign = 1 if reduce == "amax" else -1
    source = (sign * torch.tensor([-1.0, 0.0, -2.0, 3.0, 3.0])).requires_grad_()
    with exact_scatter():
        for of_rows in (False, True):
            source.grad = None
            target = torch.zeros(2)
            name = ("index_reduce" if of_rows else "scatter_reduce") + "_" * in_place
            getattr(target, name)(0, index, source, reduce, include_self=False).sum().backward()
            assert source.grad.tolist() == [0, 1, 0, 0.5, 0.5]


def test_errors_are_those_of_pytorch():
    x, s = torch.zeros(3, 2), torch.ones(4, 2)
    wrong = [
        lambda: x.index_add_(0, torch.tensor([0, 1, 3, 0]), s),
        lambda: x.index_add_(0, torch.tensor([0, 1, -1, 0]), s),
        lambda: x.index_add_(0, torch.tensor([0, 1]), s),
        lambda: x.index_add_(2, torch.tensor([0, 1, 2, 0]), s),
        lambda: x.index_add_(0, torch.tensor([0, 1, 2, 0]), s.double()),
        lambda: x.scatter_add_(0, torch.full((4, 2), 3), s),
        lambda: x.scatter_add_(0, torch.tensor([[-1, 0]]), s),
        lambda: x.scatter_add_(0, torch.zeros(5, 2, dtype=torch.int64), s),
        lambda: x.scatter_reduce_(0, torch.zeros(4, 2, dtype=torch.int64), s, "nonsense"),
        lambda: x.index_put_((torch.tensor([0, 5]),), s[:2], accumulate=True),
        lambda: x.expand(2, 3, 2).index_add_(0, torch.tensor([0]), torch.ones(1, 3, 2)),
    ]
    for run in wrong:
        with pytest.raises((RuntimeError, IndexError)) as plain:
            run()
        with exact_scatter(), pytest.raises(plain.type):
            run()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64])
def test_other_dtypes_are_left_to_pytorch(dtype):
    index, source = torch.tensor([0, 0, 1]), torch.tensor([1, 1, 0]).to(dtype)
    plain = torch.zeros(2, dtype=dtype).index_add_(0, index, source)
    with exact_scatter():
        assert torch.equal(torch.zeros(2, dtype=dtype).index_add_(0, index, source), plain)


def test_source_and_target_may_be_one_tensor():
    x = torch.arange(4.0)[:, None].expand(4, 3).contiguous()
    index = torch.tensor([3, 3, 0, 0])
    expected = x.index_add(0, index, x.clone())
    with exact_scatter():
        assert torch.equal(x.index_add_(0, index, x), expected)


def test_rows_that_no_index_names_keep_their_bits():
    x = torch.tensor([-0.0, torch.nan, 1.0])
    for index, width in ((torch.tensor([2]), 1), (torch.tensor([2]).expand(40), 40)):
        with exact_scatter():
            found = x.index_add(0, index, torch.ones(width))
        assert found[:2].view(torch.int32).tolist() == x[:2].view(torch.int32).tolist()


def test_an_index_that_changes_is_seen():
    index, source = torch.tensor([0, 0, 1, 1]), torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    alias = index.numpy()
    with exact_scatter():
        assert torch.zeros(2, dtype=torch.float64).index_add_(0, index, source).tolist() == [3, 12]
        index[0] = 1
        assert torch.zeros(2, dtype=torch.float64).index_add_(0, index, source).tolist() == [2, 13]
        alias[1] = 1
        assert torch.zeros(2, dtype=torch.float64).index_add_(0, index, source).tolist() == [0, 15]
        index.data[3] = 0
        assert torch.zeros(2, dtype=torch.float64).index_add_(0, index, source).tolist() == [8, 7]


def kernels():
    """Return the kernels of all operators, by the place where they were registered."""
    names = (
        "scatter_add_",
        "index_add",
        "scatter_reduce.two_out",
        "_index_put_impl_",
        "embedding_dense_backward",
    )
    return {name: str(torch.library.get_kernel(f"aten::{name}", "CPU")) for name in names} | {
        "autograd": str(torch.library.get_kernel("aten::scatter_reduce.two", "AutogradCPU"))
    }


def test_off_means_off():
    before = kernels()
    with exact_scatter():
        assert all(found != before[name] for name, found in kernels().items())
        with exact_scatter():
            pass
        assert exact_scatter.is_enabled()
    assert kernels() == before
    with pytest.raises(KeyError), exact_scatter():
        raise KeyError
    assert kernels() == before

    @exact_scatter()
    def inside():
        return exact_scatter.is_enabled()

    assert inside()
    assert inside()
    assert kernels() == before


def test_the_switch_of_the_process():
    exact_scatter(True)
    assert exact_scatter.is_enabled()
    with exact_scatter():
        exact_scatter(False)
        assert exact_scatter.is_enabled()
    assert not exact_scatter.is_enabled()
    with exact_scatter(True):
        assert exact_scatter.is_enabled()
    assert not exact_scatter.is_enabled()
    with pytest.raises(TypeError, match="enabled: expected True, False or None, got 1"):
        exact_scatter(1)


def test_threads_share_the_operators():
    seen, inside, leave = [], threading.Event(), threading.Event()

    def other():
        with exact_scatter():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    seen.append(exact_scatter.is_enabled())
    with exact_scatter():
        leave.set()
        thread.join()
        seen.append(exact_scatter.is_enabled())
    assert seen == [True, True]


def test_the_interpreter_ends_while_it_is_on():
    code = (
        "import torch, warnings, readouts\n"
        "warnings.simplefilter('error')\n"
        "readouts.exact_scatter(True)\n"
        "print(torch.zeros(1).index_add_(0, torch.tensor([0, 0, 0]), torch.tensor([1e8, 1, -1e8])).item())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "1.0\n", "")


def test_deterministic_algorithms_are_no_obstacle():
    torch.use_deterministic_algorithms(True)
    try:
        with exact_scatter():
            x = torch.zeros(2).scatter_reduce_(
                0, torch.tensor([0, 0]), torch.ones(2), "amax", include_self=False
            )
        assert x.tolist() == [1, 0]
    finally:
        torch.use_deterministic_algorithms(False)


def test_compiled_functions_keep_the_exact_operators():
    index = torch.tensor([0, 0, 0, 1])
    values = torch.tensor([1e8, 1.0, -1e8, 2.0])

    def model(x, weight):
        sums = torch.zeros(2).scatter_add(0, index, x * weight)
        added = torch.zeros(2).index_add(0, index, x * weight)
        return (
            sums,
            added,
            torch.zeros(2).scatter_reduce(0, index, x, "amax", include_self=False),
            weight[index],
        )

    torch.compiler.reset()
    try:
        with exact_scatter():
            compiled = torch.compile(model, fullgraph=True)
            weight = torch.ones(4, requires_grad=True)
            sums, added, greatest, read = compiled(values, weight)
            read.backward(values)
        assert sums.tolist() == added.tolist() == [1, 2]
        assert greatest.tolist() == [1e8, 2]
        assert weight.grad.tolist() == [1, 2, 0, 0]
        assert compiled(values, weight)[0].tolist() == [1, 2]  # off again: what was compiled stays
        torch.compiler.reset()
        plain = torch.compile(model, fullgraph=True)(values, weight)[0]
        assert plain.tolist() == torch.zeros(2).scatter_add(0, index, values).tolist()
    finally:
        torch.compiler.reset()
