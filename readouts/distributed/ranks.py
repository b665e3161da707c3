"""Communication between the ranks of a process group: agreement on a call, sums and maxima."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup, ReduceOp

ERRORS: dict[str, type[Exception]] = {kind.__name__: kind for kind in (TypeError, ValueError, IndexError)}


class Ranks:
    """The ranks of a process group; every message is one `all_reduce` of int64 integers.

    Integer sums are exact and independent of order, so no result depends on how the group reduces. If a rank
    does not take part, the message fails within the timeout of the group.
    """

    def __init__(self, group: ProcessGroup | None) -> None:
        """Use an existing group; None for the default group."""
        self.group, self.rank, self.number = group, dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise ValueError("group: expected a process group with this process in it, got another")

    def sum(self, *tensors: Tensor) -> list[Tensor]:
        """Return the sums of int64 tensors over all ranks, in one message."""
        return self._reduce(tensors, ReduceOp.SUM)

    def max(self, *tensors: Tensor) -> list[Tensor]:
        """Return the elementwise maximum of int64 tensors over all ranks, in one message."""
        return self._reduce(tensors, ReduceOp.MAX)

    def agree(self, call: str, problem: Exception | None, device: torch.device, *numbers: int) -> list[int]:
        """Check that all ranks make the same call, and return the maximum over ranks of each number.

        Args:
            call: description of what this rank is about to compute; must be the same on all ranks.
            problem: the error that prevents this rank from computing it, or None.
            device: device of the messages.
            numbers: integers of this rank.

        Raises:
            TypeError, ValueError, IndexError: on all ranks, the problem of the first rank that has one;
                RuntimeError for a problem of another type.
            ValueError: on all ranks, if the calls differ.
        """
        digest = int.from_bytes(hashlib.blake2b(call.encode(), digest_size=7).digest())
        head = torch.tensor([digest, -digest, problem is not None, *numbers], device=device)
        high, low, failed, *greatest = self.max(head)[0].tolist()
        if failed:
            problems = self._gather("" if problem is None else f"{type(problem).__name__}: {problem}")
            first = next(rank for rank, text in enumerate(problems) if text)
            kind, _, text = problems[first].partition(": ")
            raise ERRORS.get(kind, RuntimeError)(f"{text} (rank {first} of {self.number})") from problem
        if high != -low:
            calls = self._gather(call)
            groups = {text: [rank for rank, other in enumerate(calls) if other == text] for text in calls}
            found = "; ".join(f"{text} on {_listed(ranks)}" for text, ranks in groups.items())
            raise ValueError(f"readouts.distributed: expected the same call on all ranks, got {found}")
        return greatest

    def _reduce(self, tensors: tuple[Tensor, ...], operation: ReduceOp.RedOpType) -> list[Tensor]:
        message = torch.cat([tensor.reshape(-1) for tensor in tensors])
        if message.numel():
            with self._together():
                dist.all_reduce(message, operation, self.group)
        parts = message.split([tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def _gather(self, text: str) -> list[str]:
        texts = [""] * self.number
        with self._together():
            dist.all_gather_object(texts, text, self.group)
        return texts

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as problem:
            expected = f"an answer from all {self.number} ranks within the timeout of the group"
            raise RuntimeError(f"readouts.distributed: expected {expected}, got {problem}") from problem


def _listed(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
