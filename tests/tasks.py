"""How many tasks the native core makes of a call, whatever its size."""

from contextlib import contextmanager

import pytest
import torch

from readouts.kernels.native import memory


@contextmanager
def tasks(number):
    """Share out every call with work for it to so many threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "GRAIN", 1)
        patch.setattr(torch, "get_num_threads", lambda: number)
        yield
