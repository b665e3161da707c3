"""An accumulator that is shared, interrupted, or given a state that is none."""

import pickle
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from bits import assert_same_bits

import readouts.accumulator
from readouts import Accumulator

ALL = ("sum", "mean", "max", "min", "var", "std", "count")
X, BATCH = torch.randn(30, 3), torch.arange(30) % 4


def accumulated(x=X, times=1, **options):
    total = Accumulator(ALL, 4, **options)
    for _ in range(times):
        total.update(x, BATCH)
    return total


def test_threads_that_share_an_accumulator_lose_nothing():
    total, other = Accumulator(ALL, 4), accumulated()
    with ThreadPoolExecutor(8) as pool:
        for step in [lambda: total.update(X, BATCH), lambda: total.merge(other), other.result] * 40:
            pool.submit(step)
        for _ in range(20):  # each into the other: no deadlock
            a, b = accumulated(), accumulated()
            done = pool.submit(lambda a=a, b=b: a.merge(b)), pool.submit(lambda a=a, b=b: b.merge(a))
            assert [future.result(60) for future in done] == [None, None]
    assert_same_bits(total.result(), accumulated(times=80).result())


class AlarmError(Exception):
    pass


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
@pytest.mark.parametrize("work", ["update", "merge"])
def test_what_interrupts_changes_all_or_nothing(work):
    def ring(*_):
        raise AlarmError

    total, other = accumulated(), accumulated()
    before, rung = signal.signal(signal.SIGALRM, ring), 0
    try:
        for step in range(60):
            count, held = total.count, pickle.dumps(total)
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + 1e-5 * (step % 40))
                total.merge(other) if work == "merge" else total.update(X, BATCH)
            except AlarmError:
                rung += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            expected = pickle.loads(held)
            if not total.count.equal(count):
                expected.update(X, BATCH)
            assert_same_bits(total.result(), expected.result())
    except AlarmError:  # between two instructions of this test
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rung > 2


@pytest.mark.parametrize("fails", [1, 2])
@pytest.mark.parametrize(
    "x",
    [X, X.double().masked_fill(X > 1, torch.inf), (100 * X).long()],
    ids=["float32", "float64", "int64"],
)
@pytest.mark.parametrize("times", [0, 1])
def test_an_update_that_fails_changes_nothing(monkeypatch, fails, x, times):
    total, calls = accumulated(x[:], times), []
    add = readouts.accumulator.add

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == fails:
            raise MemoryError
        add(*arguments)

    monkeypatch.setattr(readouts.accumulator, "add", failing)
    with pytest.raises(MemoryError):
        total.update(x, BATCH)
    monkeypatch.undo()
    total.update(x, BATCH)
    assert_same_bits(total.result(), accumulated(x, times + 1).result())


def changed(**entries):
    return {**accumulated().state_dict(), **entries}


def part(name, change):
    state = accumulated().state_dict()
    state["parts"][name] = change(*state["parts"][name])
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "expected the entry 'reduce'"),
        (changed(dtype=torch.complex64), "expected a real dtype, got torch.complex64"),
        (changed(dtype="float32"), "expected a real dtype, got 'float32'"),
        (changed(dtype=None), "expected the parts of nothing"),
        (changed(features=(2,)), r"expected sum of shape \(\d+, 4, 2\)"),
        (changed(features=(-3, -1)), "expected the shape of the features"),
        (changed(features=3), "expected the shape of the features"),
        (changed(parts=None), "expected the parts .* got NoneType"),
        (changed(parts={}), "expected the parts sum, squares, max, min, count"),
        (part("sum", lambda low, t: (low, t.double())), "expected sum .* int64 tensor"),
        (part("sum", lambda low, t: (low, t.numpy())), "expected sum .* int64 tensor"),
        (part("sum", lambda low, t: (10**6, t)), "expected sum of shape"),
        (part("sum", lambda low, t: (-1, t)), "expected sum of shape"),
        (part("sum", lambda low, t: (low, t[:, :, :1])), "expected sum of shape"),
        (part("sum", lambda low, t: (low, torch.cat([t] * 20))), "expected sum of shape"),
        (part("squares", lambda low, t: (low, t[0])), "expected squares of shape"),
        (part("squares", lambda low, t: (0, t + 2**40)), "expected carried limbs in squares"),
        (part("max", lambda low, t: (low, t[:2])), "expected max of shape"),
        (part("count", lambda low, t: (low, t[:2])), "expected count of shape"),
        (part("count", lambda low, t: (low, -t)), "expected counts that are not negative"),
    ],
)
def test_a_state_that_is_none_is_refused(state, message):
    total = accumulated()
    before = total.result()
    with pytest.raises(ValueError, match=f"state: {message}"):
        total.load_state_dict(state)
    assert_same_bits(total.result(), before)
    with pytest.raises(ValueError, match="state: "):
        Accumulator.__new__(Accumulator).__setstate__({"empty": 0, **state})
    with pytest.raises(TypeError, match="state: expected what state_dict returns, got list"):
        total.load_state_dict([])


def test_threads_do_not_touch_the_handlers_of_signals():
    before, found = signal.getsignal(signal.SIGINT), []
    thread = threading.Thread(target=lambda: found.append(accumulated().result()))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
    assert_same_bits(found[0], accumulated().result())
