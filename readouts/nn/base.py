"""The base class of readout modules: PyG's interface, `Segments` as index, the value of an empty graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch_geometric.nn import MLP
from torch_geometric.nn.aggr import Aggregation

from readouts.functional.checks import cast_back, check_empty, check_x, segments_of, to_compute_dtype
from readouts.functional.elementary import nodes_back, nodes_first
from readouts.keywords import check_words, explain_keywords, hints_for
from readouts.segments import Segments


class Readout(Aggregation):
    """A readout with PyG's interface; a subclass computes `_read`, nodes first: [N, ..., F] -> [B, ..., *].

    Attributes:
        undistributed: why `DistributedReadout` rejects this readout, in one sentence; empty if it does not.
    """

    undistributed = ""
    _renamed: Mapping[
        str, str | None
    ] = {}  # keys in the state_dict of PyG's twin: ours, or None to ignore it
    _hints: Mapping[str, str] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        """Make constructor and `forward` raise helpful errors for the keywords of other libraries."""
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = explain_keywords(cls.__init__)  # type: ignore[method-assign]
        cls._hints = hints_for(cls.forward)

    @explain_keywords
    def __init__(self, *, empty: float = 0) -> None:
        """Set the value of an empty graph."""
        super().__init__()
        check_empty(empty)
        self.empty = empty

    def __call__(
        self, x: Tensor, index: Tensor | Segments | None = None, *arguments: Any, **options: Any
    ) -> Tensor:
        """Skip PyG's checks for `Segments`, for wrong types and for an index whose maximum is not known."""
        if options:
            check_words(self._hints, options)
        ptr = arguments[0] if arguments else options.get("ptr")
        if torch.compiler.is_compiling() or not _suits_pyg(x, index, ptr):
            return Module.__call__(self, x, index, *arguments, **options)
        return super().__call__(x, index, *arguments, **options)

    def forward(
        self,
        x: Tensor,
        index: Tensor | Segments | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
        *,
        max_num_elements: int | None = None,
    ) -> Tensor:
        """Read out x along `dim`, the dimension of the nodes; for the formula see the class.

        Args:
            x: node features [..., N, ...].
            index: graph of every node, int64 or int32 [N], in any order, or `Segments`.
            ptr: offsets of sorted graphs (CSR pointer), int64 or int32 [B + 1]; ignored if `index` is given.
            dim_size: number of graphs B.
            dim: dimension of the nodes.
            max_num_elements: ignored; PyG's classes need it for their dense batches.
        """
        check_x(x)
        x, back = nodes_first(x, dim)
        segments = segments_of(x, index, ptr if index is None else None, dim_size)
        return nodes_back(self._read(x, segments), back)

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        raise NotImplementedError

    def contribution(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return the contribution of every node, nodes first; see `readouts.attribution.contributions`.

        Raises:
            ValueError: the output is not a sum over nodes.
        """
        raise ValueError(f"reduce: expected a readout that is a sum over its nodes, got {self!r}")

    def attention(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return the weights of every node; see `readouts.attribution.attention_weights`.

        Raises:
            ValueError: the readout has no weights.
        """
        raise ValueError(f"readout: expected a readout that weights its nodes, got {self!r}")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Load the state of PyG's twin, too."""
        for theirs, ours in self._renamed.items():
            start = prefix + theirs
            for key in [key for key in state_dict if key == start or key.startswith(start + ".")]:
                value = state_dict.pop(key)
                if ours is not None:
                    state_dict[prefix + ours + key.removeprefix(start)] = value
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _settings(self) -> list[str]:
        return [] if self.empty == 0 else [f"empty={self.empty}"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._settings())})"


def check_network(name: str, module: Callable[..., Any] | None) -> None:
    """Raise unless a network is a module, another callable object or None."""
    if module is not None and (isinstance(module, type) or not callable(module)):
        shown = f"the class {module.__name__}" if isinstance(module, type) else type(module).__name__
        raise TypeError(f"{name}: expected a network such as torch.nn.Linear(8, 1), got {shown}")


def apply(module: Module | None, x: Tensor, segments: Segments, name: str) -> Tensor:
    """Apply a network to the nodes, if there is one; pass the batch to PyG's MLP, whose norms need it."""
    if module is None:
        return x
    batch = dict(batch=segments.index, batch_size=segments.size) if isinstance(module, MLP) else {}
    out = run(module, x, name, **batch)
    if not isinstance(out, Tensor) or out.shape[:1] != x.shape[:1]:
        got = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(f"{name}: expected a network with one row for each of {len(x)} nodes, got {got}")
    return out


def run(module: Module, x: Tensor, name: str, **options: Any) -> Any:
    """Apply a network; if it does not accept x, name it and the shape of x."""
    try:
        return module(x, **options)
    except RuntimeError as problem:
        if isinstance(problem, torch.OutOfMemoryError) or torch.compiler.is_compiling():
            raise
        raise ValueError(f"{name}: expected a network for x {tuple(x.shape)}, got: {problem}") from problem


def call(readout: Aggregation, x: Tensor, segments: Segments) -> Tensor:
    """Apply a readout, or one of PyG's aggregations, along the first dimension of x."""
    if isinstance(readout, Readout):
        return readout(x, segments, dim=0)
    return readout(x, segments.index, dim_size=segments.size, dim=0)


def _suits_pyg(x: object, index: object, ptr: object) -> bool:
    """Return whether PyG's own checks accept these types."""
    return isinstance(x, Tensor) and all(
        graphs is None or isinstance(graphs, Tensor) for graphs in (index, ptr)
    )


def slopes_times_values(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """Return values times the slopes of a function, block by block.

    The function is linear or piecewise linear in the values.
    """
    leaf = to_compute_dtype(values).detach().requires_grad_()
    with torch.enable_grad():
        out = function(leaf)
        blocks = [out] if leaf.dim() == 1 else out.split(max(leaf.shape[-1], 1), dim=-1)
        slopes = [torch.autograd.grad(block.sum(), leaf, retain_graph=True)[0] for block in blocks]
    parts = [torch.where(slope == 0, 0, leaf.detach() * slope) for slope in slopes]
    return cast_back(torch.cat(parts, dim=-1), values)
