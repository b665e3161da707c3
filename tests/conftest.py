"""Fixtures and settings shared by all tests."""

import os

import hypothesis
import pytest
import torch

from readouts.kernels import plain

pytest_plugins = ["pytester"]

hypothesis.settings.register_profile("default", max_examples=60, deadline=None)
hypothesis.settings.register_profile("thorough", max_examples=2000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

KERNELS = {"plain": plain}
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
