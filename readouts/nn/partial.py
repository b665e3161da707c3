"""The readout of a share of the nodes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch_geometric.nn.aggr import Aggregation

from readouts import ops
from readouts.nn.base import Readout, call
from readouts.nn.multi import readout_resolver
from readouts.segments import Segments


class PartialReadout(Readout):
    """In training, the readout of m of the n nodes of every graph; in evaluation, that of all of them.

    For the mean and a random choice it is unbiased: its expectation is the mean of all nodes, its variance
    S^2 (1 - m / n) / m, where S^2 = sum_i (x_i - mu)^2 / (n - 1). Other readouts are those of a smaller
    graph: a sum is m / n times the whole on average, a maximum is too low.

    ``"random"`` draws m nodes without replacement, each set of m as likely as any other, so that permuting
    the nodes permutes the distribution: `check_permutation_invariance` says "random" of a model in training.
    ``"strided"`` takes the nodes at the places p = 0 ... n - 1 of the graph where floor((p + 1) m / n)
    exceeds floor(p m / n), the last of every n / m: that depends on the order of the nodes, is biased unless
    the order is random, and the check says "broken". In evaluation both have the bits of the readout itself.

    Args:
        readout: a readout or its name, see `readout_resolver`.
        share: m is the integer nearest to share * n, at least 1; 0 < share <= 1.
        count: m is count, or n if that is less. Give one of the two.
        mode: ``"random"`` or ``"strided"``.

    Raises:
        ValueError: not exactly one of `share` and `count` is given, or one of them or `mode` has a value
            that cannot be used.

    Source: Cochran, "Sampling techniques" (1977), section 2.
    """

    def __init__(
        self,
        readout: str | Aggregation = "mean",
        share: float | None = None,
        *,
        count: int | None = None,
        mode: Literal["random", "strided"] = "random",
    ) -> None:
        """Set the readout, how many nodes it takes, and how they are chosen."""
        super().__init__()
        if (share is None) == (count is None):
            raise ValueError(f"share, count: expected one of the two, got {share} and {count}")
        if share is not None and not 0 < share <= 1:
            raise ValueError(f"share: expected a number above 0 and at most 1, got {share}")
        if count is not None and count < 1:
            raise ValueError(f"count: expected at least 1, got {count}")
        if mode not in ("random", "strided"):
            raise ValueError(f"mode: expected 'random' or 'strided', got {mode!r}")
        self.readout = readout_resolver(readout)
        self.share, self.count, self.mode = share, count, mode

    def reset_parameters(self) -> None:
        """Reset the readout."""
        self.readout.reset_parameters()

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        if self.training:
            kept = self._chosen(segments)
            x, segments = x[kept], Segments.from_batch(segments.index[kept], segments.size)
        return call(self.readout, x, segments)

    def _chosen(self, segments: Segments) -> Tensor:
        """Return the nodes to read, int64 [M], every node at most once."""
        index, ptr, size = segments.index, segments.ptr, segments.size
        nodes = torch.arange(len(index), device=index.device)
        shuffled = torch.randperm(len(index), device=index.device) if self.mode == "random" else nodes
        order = shuffled[ops.group(index[shuffled], size)[1]]
        graph = index[order]
        place, n, m = nodes - ptr[graph], segments.count[graph], self._numbers(segments.count)[graph]
        if self.mode == "random":
            return order[place < m]
        return order[(place + 1) * m // n > place * m // n]

    def _numbers(self, n: Tensor) -> Tensor:
        """Return how many of the n nodes of every graph are read."""
        if self.count is not None:
            return n.clamp(max=self.count)
        assert self.share is not None
        return (n.double() * self.share + 0.5).floor().long().clamp(min=1)

    def _settings(self) -> list[str]:
        number = f"share={self.share}" if self.count is None else f"count={self.count}"
        return [str(self.readout), number, f"mode={self.mode!r}"]
