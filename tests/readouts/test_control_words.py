"""Flushing of subnormal numbers and rounding modes, set by a caller or kept by threads, change no bit."""

import ctypes
import ctypes.util
import platform
from contextlib import contextmanager

import pytest
import torch
from bits import assert_same_bits
from tasks import tasks

from readouts import Accumulator, readout
from readouts.functional.order import median, trimmed_mean
from readouts.functional.weighted import softmax_mean, weighted_mean
from readouts.kernels.native.library import core, team_of_torch
from readouts.reductions import ELEMENTARY

MODES = {"upward": 0x800, "downward": 0x400, "toward zero": 0xC00}
INDEX, SCORES = torch.arange(600) // 100, torch.linspace(-90, 3, 600)
WEIGHTS = SCORES.exp()


@contextmanager
def flushing():
    assert torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def rounding(mode):
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    before = library.fegetround()
    assert library.fesetround(MODES[mode]) == 0
    try:
        yield
    finally:
        library.fesetround(before)


def accumulated(x):
    total = Accumulator(("sum", "mean", "max"), 6)
    total.update(x, INDEX)
    return total.result()


READOUTS = {
    **{name: lambda x, name=name: readout(x, INDEX, name) for name in (*ELEMENTARY, "median")},
    "several": lambda x: readout(x, INDEX, ELEMENTARY),
    "higher": lambda x: median(x, INDEX, interpolation="higher"),
    "trimmed mean": lambda x: trimmed_mean(x, INDEX, 0.2),
    "weighted mean": lambda x: weighted_mean(x, WEIGHTS, INDEX),
    "softmax mean": lambda x: softmax_mean(x, SCORES, INDEX),
    "accumulator": accumulated,
}


def results(function, x):
    x = x.clone().requires_grad_()
    out = function(x)
    if not out.requires_grad:
        return out, out
    (grad,) = torch.autograd.grad(out, x, torch.full_like(out, 3))
    return out.detach(), grad


@pytest.mark.skipif(
    core.isa is None or platform.machine() != "x86_64", reason="control words of the native core on x86-64"
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", READOUTS)
def test_control_words(name, dtype):
    x = torch.randn(600, 20, dtype=torch.float64) * 3
    x[::2] *= torch.finfo(dtype).smallest_normal
    x = x.to(dtype)
    function, settings = READOUTS[name], [flushing, *(lambda mode=mode: rounding(mode) for mode in MODES)]
    expected = results(function, x)
    for team in (team_of_torch(), None):
        core.set_team(team)
        try:
            for setting in settings:
                for number in (1, 4):  # new threads inherit the words of the caller
                    with tasks(number):
                        with setting():
                            found = results(function, x)
                        again = results(function, x)
                    for actual in (found, again):
                        assert_same_bits(actual[0], expected[0])
                        assert_same_bits(actual[1], expected[1])
        finally:
            core.set_team(team_of_torch())
