"""Hypothesis strategies for graphs with tied and extreme features, and for orders of their nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def graphs(
    *, features: int = 2, min_nodes: int = 0, max_nodes: int = 6, dtype: torch.dtype = torch.float32
) -> SearchStrategy[Data]:
    """Draw graphs with x [N, F] and an undirected ``edge_index``: ties, repeated rows, huge and tiny values.

    Example:
        >>> from hypothesis import given, settings
        >>> @settings(max_examples=5)
        ... @given(graphs(features=3))
        ... def test_features(data):
        ...     assert data.x.shape == (data.num_nodes, 3)
        >>> test_features()

    They shrink towards few nodes, no edges, and zeros.

    Args:
        features: number of features F.
        min_nodes: least number of nodes; 0 allows the empty graph.
        max_nodes: largest number of nodes.
        dtype: float dtype of x.

    Raises:
        ImportError: hypothesis is not installed.
    """
    st = _hypothesis()
    rows = st.lists(_values(dtype), min_size=features, max_size=features)

    def build(draw: Any) -> Data:
        table = draw(st.lists(rows, min_size=min_nodes, max_size=max_nodes))
        count = len(table)
        copied = draw(st.lists(st.integers(0, count - 1), min_size=0, max_size=count)) if count else []
        for node, source in enumerate(copied):  # repeated rows
            table[node] = table[source]
        ends = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))
        edges = draw(st.lists(ends, max_size=2 * count)) if count else []
        both = [*edges, *((target, source) for source, target in edges if source != target)]
        x = torch.tensor(table, dtype=torch.float64).reshape(count, features).to(dtype)
        return Data(x=x, edge_index=torch.tensor(both, dtype=torch.int64).reshape(-1, 2).t().contiguous())

    return st.composite(build)()


def graph_batches(
    *,
    min_graphs: int = 1,
    max_graphs: int = 4,
    features: int = 2,
    max_nodes: int = 6,
    dtype: torch.dtype = torch.float32,
) -> SearchStrategy[Batch]:
    """Draw batches of the graphs of `graphs`, some of them empty, with at least one node in all.

    Example:
        >>> from hypothesis import given, settings
        >>> @settings(max_examples=5)
        ... @given(graph_batches(max_graphs=3))
        ... def test_sizes(batch):
        ...     assert 1 <= batch.num_graphs <= 3
        >>> test_sizes()
    """
    st = _hypothesis()
    one = graphs(features=features, max_nodes=max_nodes, dtype=dtype)
    lists = st.lists(one, min_size=min_graphs, max_size=max_graphs)
    filled = lists.filter(lambda parts: any(part.num_nodes for part in parts))
    return filled.map(Batch.from_data_list)


def permutations_of(graphs: Data | Tensor) -> SearchStrategy[Tensor]:
    """Draw orders of nodes, int64 [N], that move every node within its graph; they shrink towards no move.

    Example:
        >>> from hypothesis import given, settings
        >>> from readouts import readout
        >>> x, batch = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1])
        >>> @settings(max_examples=5)
        ... @given(permutations_of(batch))
        ... def test_mean(order):
        ...     assert readout(x[order], batch).equal(readout(x, batch))
        >>> test_mean()

    Args:
        graphs: ``Data``, ``Batch``, or the vector ``batch`` [N].
    """
    st = _hypothesis()
    if isinstance(graphs, Tensor):
        batch = graphs
    else:
        batch = graphs.batch if "batch" in graphs else torch.zeros(graphs.num_nodes or 0, dtype=torch.int64)
    places = [(batch == graph).nonzero().flatten() for graph in batch.unique().tolist()]
    moves = st.tuples(*(st.permutations(range(len(place))) for place in places))

    def order(permutations: tuple[list[int], ...]) -> Tensor:
        nodes = torch.arange(len(batch))
        for place, permutation in zip(places, permutations, strict=True):
            nodes[place] = place[list(permutation)]
        return nodes

    return moves.map(order)


def _values(dtype: torch.dtype) -> SearchStrategy[float]:
    """Draw small integers, ordinary numbers, and the ends of the range; they shrink in this order."""
    st = _hypothesis()
    limits = torch.finfo(dtype)
    ends = [limits.max / 2**20, limits.tiny, limits.tiny * limits.eps, 1 + limits.eps, limits.eps, -0.0]
    extremes = st.sampled_from([*ends, *(-end for end in ends)])
    return st.one_of(st.integers(-3, 3).map(float), st.floats(-4, 4), extremes)


def _hypothesis() -> Any:
    try:
        import hypothesis.strategies
    except ImportError as error:
        text = "the strategies of readouts.testing need hypothesis: pip install hypothesis"
        raise ImportError(text) from error
    return hypothesis.strategies
