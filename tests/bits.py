"""Equality of bits, the one tolerance of this test suite where sums are exact."""

import torch
from torch import Tensor

AS_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    """Assert equal shape, dtype and bits; any NaN equals any NaN."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    if not actual.dtype.is_floating_point:
        assert actual.equal(expected)
        return
    as_integers = AS_INTEGERS[actual.element_size()]
    both_nan = actual.isnan() & expected.isnan()
    differs = (actual.contiguous().view(as_integers) != expected.contiguous().view(as_integers)) & ~both_nan
    assert not differs.any(), f"{actual[differs][:5].tolist()} != {expected[differs][:5].tolist()}"
