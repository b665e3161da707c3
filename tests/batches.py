"""Hypothesis strategies for batches of node features with awkward values."""

from typing import NamedTuple

import torch
from bits import AS_INTEGERS
from hypothesis import strategies as st
from torch import Tensor

from readouts.reductions import ELEMENTARY

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
MULTIPLE = (
    *[(name,) for name in ELEMENTARY],
    ("sum", "mean", "max"),
    ("min", "sum", "max", "mean"),
    ("max", "mean", "max"),
    ELEMENTARY,
    ELEMENTARY[::-1],
)


class Batch(NamedTuple):
    """Node features [N, F], the graph of every node, and the nodes of every graph."""

    x: Tensor
    index: Tensor
    count: Tensor


def floats(dtype: torch.dtype, finite: bool = False) -> st.SearchStrategy[float]:
    """Numbers of a dtype: small integers (ties), ordinary ones, and any bit pattern at all."""
    bits = 8 * dtype.itemsize
    patterns = st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    decoded = patterns.map(lambda n: torch.tensor(n, dtype=AS_INTEGERS[dtype.itemsize]).view(dtype).item())
    kept = decoded.filter(lambda value: abs(value) < float("inf")) if finite else decoded
    return st.one_of(st.integers(-3, 3).map(float), st.floats(-4, 4), kept)


@st.composite
def batches(
    draw: st.DrawFn, dtype: torch.dtype, finite: bool = False, max_nodes: int = 30, max_features: int = 3
) -> Batch:
    """Batches of up to six graphs, empty ones among them, nodes in any order."""
    nodes, features = draw(st.integers(0, max_nodes)), draw(st.integers(1, max_features))
    size = draw(st.integers(1, 6))
    values = draw(st.lists(floats(dtype, finite), min_size=nodes * features, max_size=nodes * features))
    graphs = draw(st.lists(st.integers(0, size - 1), min_size=nodes, max_size=nodes))
    x = torch.tensor(values, dtype=torch.float64).to(dtype).reshape(nodes, features)
    index = torch.tensor(graphs, dtype=torch.int64)
    return Batch(x, index, torch.bincount(index, minlength=size))
