"""Every wrong argument gets one error that names the argument, the expectation and what came."""

import numpy as np
import pytest
import torch

from readouts import Segments, global_mean_pool, readout
from readouts.nn import MultiReadout, SumReadout

X = torch.ones(4, 2)
BATCH = torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(batch=torch.tensor([0, 0, 1, 5]), size=2), IndexError, r"batch: .*0 to 1.* got 5"),
        (dict(batch=torch.tensor([0, -1, 1, 1])), IndexError, r"batch: .* got -1"),
        (dict(batch=torch.tensor([-1, -1, -2, -1])), IndexError, r"batch: .* got -2"),
        (dict(batch=BATCH, size=1), IndexError, r"batch: .*0 to 0.* got 1"),
        (dict(batch=BATCH, size=0), IndexError, r"batch: .*size 0.* got 1"),
        (dict(batch=BATCH.float()), TypeError, r"batch: expected int64 or int32, got torch.float32"),
        (dict(batch=BATCH.bool()), TypeError, r"batch: expected int64 or int32, got torch.bool"),
        (dict(batch=[0, 0, 1, 1]), TypeError, r"batch: expected a tensor, got list"),
        (dict(batch=BATCH[:3]), ValueError, r"batch: .*4 nodes, got 3"),
        (dict(batch=BATCH.view(2, 2)), ValueError, r"batch: expected one dimension, got shape \(2, 2\)"),
        (dict(batch=Segments.from_batch(BATCH[:3])), ValueError, r"batch: .*4 nodes, got 3"),
        (dict(batch=Segments.from_batch(BATCH), size=3), ValueError, r"size: expected 2.* got 3"),
        (dict(batch=BATCH, size=-1), ValueError, r"size: .* got -1"),
        (dict(batch=BATCH, size=2.0), TypeError, r"size: expected an integer, got float"),
        (dict(batch=BATCH, size=True), TypeError, r"size: expected an integer, got bool"),
        (dict(size=2), ValueError, r"size: expected 1.* got 2"),
        (dict(size="2"), TypeError, r"size: expected an integer, got str"),
        (dict(size=True), TypeError, r"size: expected an integer, got bool"),
        (dict(ptr=torch.tensor([0, 4]), size=1.0), TypeError, r"size: expected an integer, got float"),
        (dict(empty=None), TypeError, r"empty: expected a real number, got NoneType"),
        (dict(empty=1j), TypeError, r"empty: expected a real number, got complex"),
        (dict(empty=1e300), ValueError, r"empty: .*float32, got 1e\+300"),
        (dict(x=X.half(), empty=1e10), ValueError, r"empty: .*float16, got 10000000000.0"),
        (dict(x=X.byte(), reduce="max", empty=-1), ValueError, r"empty: .*uint8, got -1"),
        (dict(x=X.bool(), reduce="max", empty=2), ValueError, r"empty: .*bool, got 2"),
        (dict(x=X.long(), reduce="sum", empty=2**70), ValueError, r"empty: .*int64, got"),
        (dict(x=X.to_sparse()), TypeError, r"x: expected a dense tensor, got layout torch.sparse_coo"),
        (dict(batch=BATCH.to_sparse()), TypeError, r"batch: expected a dense tensor"),
        (
            dict(ptr=torch.tensor([0, 3, 2, 4])),
            ValueError,
            r"ptr: .*not decrease, got 3 before 2 at position 2",
        ),
        (dict(ptr=torch.tensor([0, 2, 3])), ValueError, r"ptr: .*0 to the number of nodes 4, got 0 to 3"),
        (dict(ptr=torch.tensor([1, 2, 4])), ValueError, r"ptr: .*got 1 to 4"),
        (dict(ptr=torch.tensor([0, 9, 4])), ValueError, r"ptr: .*not decrease, got 9 before 4"),
        (dict(ptr=torch.tensor([], dtype=torch.int64)), ValueError, r"ptr: .*empty"),
        (dict(ptr=torch.tensor([0.0, 4.0])), TypeError, r"ptr: expected int64 or int32, got torch.float32"),
        (dict(ptr=torch.tensor([0, 2, 4]), size=3), ValueError, r"size: expected 2.* got 3"),
        (dict(ptr=torch.tensor([0, 2, 4]), batch=BATCH), ValueError, r"batch, ptr: .*got both"),
        (
            dict(reduce="median_"),
            ValueError,
            r"reduce: expected one of sum, mean, max, min, var, std, median, got 'median_'",
        ),
        (dict(reduce=("sum", "mul")), ValueError, r"reduce: .*got 'mul'; for products .* logarithms"),
        (dict(reduce=()), ValueError, r"reduce: .*got none"),
        (dict(reduce=None), TypeError, r"reduce: .*got NoneType"),
        (dict(reduce=("sum", 3)), ValueError, r"reduce: .*got 3"),
        (dict(x=X.to(torch.complex64)), TypeError, r"x: expected a real dtype.* got torch.complex64"),
        (dict(x=X.numpy()), TypeError, r"x: expected a tensor, got ndarray"),
        (dict(x=torch.tensor(1.0)), ValueError, r"x: .*got a scalar"),
        (dict(x=X.long(), reduce="sum", empty=0.5), ValueError, r"empty: .*int64, got 0.5"),
        (dict(x=X.long(), reduce="sum", empty=float("nan")), ValueError, r"empty: .*int64, got nan"),
    ],
    ids=str,
)
def test_readout(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        readout(**{"x": X, **arguments})
    assert "\n" not in str(caught.value)


def test_tensors_on_two_devices():
    with pytest.raises(ValueError, match=r"batch: .*device of x, cpu, got meta"):
        readout(X, Segments(BATCH.to("meta"), torch.tensor([2, 2])))


def test_modules_check_their_settings_when_made():
    with pytest.raises(ValueError, match=r"readout: .* got 'summ'"):
        MultiReadout(["summ"])
    with pytest.raises(ValueError, match=r"reduce: .* got none"):
        MultiReadout([])
    with pytest.raises(TypeError, match=r"empty: .* got str"):
        SumReadout(empty="x")


@pytest.mark.parametrize("exact", [True, False])
def test_sums_are_exact_without_an_option(exact):
    for call in (
        lambda: readout(X, BATCH, exact=exact),
        lambda: SumReadout(exact=exact),
        lambda: MultiReadout(["sum"], exact=exact),
    ):
        with pytest.raises(TypeError, match="unexpected keyword argument 'exact'"):
            call()


def test_numpy_integers_are_integers():
    assert readout(X, BATCH, size=np.int64(3)).shape == (3, 2)


@pytest.mark.parametrize("change", [5, -1, 0])
def test_batch_that_changed_after_it_was_checked(change):
    batch = torch.tensor([0, 0, 1, 1])
    segments = Segments.from_batch(batch)
    batch[2] = change
    with pytest.raises(IndexError, match=r"batch: expected the graphs that were counted"):
        readout(X, segments)


def test_pools_and_modules_pass_the_errors_on():
    with pytest.raises(IndexError, match=r"batch: .* got -3"):
        global_mean_pool(X, torch.tensor([0, 0, 1, -3]))
    with pytest.raises(TypeError, match=r"batch: .*float32"):
        SumReadout()(X, BATCH.float(), dim_size=2)
    with pytest.raises(ValueError, match="invalid 'dim_size'"):  # PyG's own words
        SumReadout()(X, BATCH, dim_size=1)
