"""Fixtures and settings shared by all tests."""

import os

import hypothesis
import pytest
import torch
from tasks import tasks

from readouts import ops
from readouts.kernels.portable import elementary as portable

pytest_plugins = ["pytester"]

hypothesis.settings.register_profile("default", max_examples=60, deadline=None)
hypothesis.settings.register_profile("thorough", max_examples=2000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


class Portable:
    """The kernel of every device, given the number of nodes of every graph instead of ptr and order."""

    def reduce(self, x, index, count, names):
        return portable.reduce(x, index, *ops.group(index, len(count)), names)

    def reduce_backward(self, grad, x, out, index, count, names):
        return portable.reduce_backward(grad, x, out, index, *ops.group(index, len(count)), names)


class Dispatched:
    """The kernel that the operators choose, with as many tasks as there may be or only one."""

    def __init__(self, threads):
        self.threads = threads

    def reduce(self, x, index, count, names):
        return self._run(ops.reduce, x, index, *ops.group(index, len(count)), names)

    def reduce_backward(self, grad, x, out, index, count, names):
        groups = ops.group(index, len(count))
        return self._run(ops.reduce_backward, grad, x, out, index, *groups, names)

    def _run(self, operator, *arguments):
        with tasks(self.threads):
            return operator(*arguments)


KERNELS = {"portable": Portable(), "one-thread": Dispatched(1), "three-threads": Dispatched(3)}
DTYPES = {"f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


@pytest.fixture(params=KERNELS, scope="session")
def kernel(request):
    """Every kernel that must return the bits of `readouts.kernels.reference`."""
    return KERNELS[request.param]


@pytest.fixture(params=DTYPES, scope="session")
def dtype(request):
    """Every floating-point dtype that readouts take."""
    return DTYPES[request.param]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
