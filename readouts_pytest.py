"""The pytest plugin of `readouts`: seeded shuffles of the nodes for permutation-invariance tests.

It lives outside the package, and imports torch only when a test asks for a permutation, so that
starting pytest costs nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import Tensor


def _positive(text: str) -> int:
    """Read a number of permutations; with none, a test would check nothing."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options --readouts-permutations and --readouts-seed."""
    group = parser.getgroup("readouts", "permutation invariance of graph readouts")
    group.addoption(
        "--readouts-permutations",
        type=_positive,
        default=10,
        metavar="N",
        help="number of permutations that node_permutations gives (default: 10)",
    )
    group.addoption(
        "--readouts-seed", type=int, default=0, metavar="SEED", help="seed of the permutations (default: 0)"
    )


@pytest.fixture
def node_permutations(request: pytest.FixtureRequest) -> Callable[[int], Iterator[Tensor]]:
    """Seeded random orders of n nodes: ``for order in node_permutations(n): ...`` with int64 [n]."""

    def permutations(num_nodes: int) -> Iterator[Tensor]:
        import torch

        generator = torch.Generator().manual_seed(request.config.getoption("--readouts-seed"))
        for _ in range(request.config.getoption("--readouts-permutations")):
            yield torch.randperm(num_nodes, generator=generator)

    return permutations
